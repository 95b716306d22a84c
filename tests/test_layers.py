"""The floors of the house: an import may only point down, file by file. And what the package shows the world."""

import ast
from collections import Counter
from collections.abc import Callable
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import growkit

ROOT = Path(growkit.__file__).parent
FLOORS = [
    {"errors", "limits", "units", "version", "visible"},
    {"maps"},
    {"families", "operators"},
    {"checkpoint"},
    {"growth", "data", "reports"},
    {"models"},
    {"merging", "family_check"},
    {"training"},
    {"skills"},
    {"chains"},
    {"hub"},
    {"api"},
    {"cli"},
    {"__main__", "__init__"},
]
FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
FILES = sorted(ROOT.rglob("*.py"))
NAMES = {
    ".".join(path.relative_to(ROOT.parent).with_suffix("").parts).removesuffix(".__init__"): path for path in FILES
}


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text("utf-8"))


def room(name: str) -> str:
    """The room a module is in: its package below growkit, or its own name."""
    return (name.split(".") + ["__init__"])[1]


@cache
def imports(name: str) -> set[str]:
    """Modules of growkit that one imports, when it is loaded or later."""
    found = set()
    for node in ast.walk(parsed(NAMES[name])):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "growkit":
            # names that growkit shows at its top are looked up when used, so importing them is no import of a room
            inner = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= (inner & NAMES.keys()) or ({node.module} - {"growkit"})
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names} & NAMES.keys()
    return found


def test_imports_point_down():
    def upward(name: str) -> set[str]:
        return {each for each in imports(name) if FLOOR[room(each)] >= FLOOR[room(name)] and room(each) != room(name)}

    assert {name: upward(name) for name in NAMES if upward(name)} == {}


def test_no_file_imports_itself_in_a_circle():
    try:
        TopologicalSorter({name: imports(name) for name in NAMES}).prepare()
    except CycleError as error:
        pytest.fail(f"a circle of imports: {' <- '.join(error.args[1])}")


def test_each_file_and_each_class_has_a_name_of_its_own():
    stems = Counter(path.stem for path in FILES if path.stem != "__init__" and path.parent.name not in ("api", "cli"))
    classes = Counter(node.name for path in FILES for node in parsed(path).body if isinstance(node, ast.ClassDef))
    assert [name for name, count in (stems + classes).items() if count > 1] == []


UNPICKLING = {"pickle", "dill", "joblib", "shelve", "marshal", "torch.load", "torch.save", "np.load", "numpy.load"}


def faulty(fault: Callable[[Path], object]) -> dict[str, object]:
    """What is wrong with each file that something is wrong with."""
    faults = {str(path.relative_to(ROOT)): fault(path) for path in FILES}
    assert len(faults) > 200
    return {name: wrong for name, wrong in faults.items() if wrong}


def test_no_file_pickles():
    """Neither by itself nor through PyTorch's distributed checkpoint, whose files hold pickles."""

    def pickling(path: Path) -> set[str]:
        used = set()
        for node in ast.walk(parsed(path)):
            if isinstance(node, ast.Import):
                used |= {alias.name for alias in node.names}
            if isinstance(node, ast.ImportFrom):
                used |= {node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)}
            if isinstance(node, ast.Attribute):
                used.add(ast.unparse(node))
        return {name for name in used if name in UNPICKLING or name.startswith("torch.distributed.checkpoint")}

    assert faulty(pickling) == {}


def test_files_say_what_they_are_and_stay_small():
    assert faulty(lambda path: not ast.get_docstring(parsed(path))) == {}
    assert faulty(lambda path: len(path.read_text("utf-8").splitlines()) > 300) == {}


def test_large_dataclasses_are_built_by_keyword():
    def by_place(path: Path) -> list[str]:
        found = []
        for node in ast.walk(parsed(path)):
            made_by = [
                ast.unparse(one) for one in getattr(node, "decorator_list", []) if isinstance(node, ast.ClassDef)
            ]
            if any("dataclass" in one for one in made_by) and sum(isinstance(m, ast.AnnAssign) for m in node.body) > 4:
                found += [node.name] * (not any("kw_only=True" in one for one in made_by))
        return found

    assert faulty(by_place) == {}


def test_prose_fits_in_120_columns():
    """Comments and docstrings; the formatter sees to code, and messages are as long as they are."""

    def too_long(path: Path) -> list[int]:
        lines = path.read_text("utf-8").splitlines()
        nodes = ast.walk(parsed(path))
        texts = [node.body[0] for node in nodes if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Module)]
        strings = [text for text in texts if isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant)]
        prose = {number for text in strings for number in range(text.lineno, (text.end_lineno or 0) + 1)}
        prose |= {number for number, line in enumerate(lines, start=1) if line.lstrip().startswith("#")}
        return [number for number in sorted(prose) if len(lines[number - 1]) > 120]

    assert faulty(too_long) == {}


def test_public_functions_are_documented():
    def undocumented(path: Path) -> list[str]:
        tree, found = parsed(path), []
        classes = [node for node in tree.body if isinstance(node, ast.ClassDef)]
        for node in [*tree.body, *(member for owner in classes for member in owner.body)]:
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
                short_property = any("property" in ast.unparse(d) for d in getattr(node, "decorator_list", []))
                interface = any(node in owner.body for owner in classes if "Protocol" in map(ast.unparse, owner.bases))
                small = short_property and len(node.body) == 1
                found += [node.name] * (not (small or interface or ast.get_docstring(node)))
        return found

    assert faulty(undocumented) == {}


def test_what_the_package_exports():
    assert sorted(growkit.__all__) == sorted(
        ["CheckpointError", "GrowkitError", "RequestError", "__version__", "expand", "grow_state_dict", "inspect"]
        + [
            "verify",
            "widen",
            "stack",
            "grow",
            "fuse",
            "upcycle",
            "merge",
            "delta",
            "apply",
            "chain",
            "check_family",
            "panel",
            "panel_show",
        ]
        + [
            "tokenize",
            "init",
            "evaluate",
            "teach",
            "pretrain",
            "tune",
            "report",
            "forecast",
            "push",
            "param_groups",
            "generate",
        ]
        + ["skill_apply_layer", "skill_carry", "skill_check", "skill_dial", "skill_learn", "skill_plug", "load_skills"]
        + ["mapping", "fpi", "aki", "stack_order", "stack_layers"]
    )
    for name in growkit.__all__:
        assert callable(getattr(growkit, name)) or name == "__version__"
    with pytest.raises(AttributeError, match="no attribute 'wdien'"):
        growkit.wdien  # noqa: B018
