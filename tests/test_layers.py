"""The floors of the house: an import may only point down. And what the package shows the world."""

import ast
from pathlib import Path

import pytest

import growkit

ROOT = Path(growkit.__file__).parent
FLOORS = [
    {"errors", "version"},
    {"axes", "recipe"},
    {"maps"},
    {"attention_maps"},
    {"operators", "families", "checkpoint"},
    {"rules", "live"},
    {"plan"},
    {"planners"},
    {"execute", "sources", "provenance", "optimizer"},
    {"request", "likeness", "lineage", "output", "running"},
    {"prepare", "proof"},
    {"clusters"},
    {"api", "merging"},
    {"training"},
    {"inspection"},
    {"cli"},
    {"__main__", "__init__"},
]
FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
FILES = sorted(ROOT.rglob("*.py"))


def room(path: Path) -> str:
    """The room a file is in: its package below growkit, or its own name."""
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def imported_rooms(path: Path) -> set[str]:
    """Rooms a file imports when it is loaded (imports inside functions wait, and are checked too)."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("growkit"):
            parts = node.module.split(".")
            found |= {parts[1]} if len(parts) > 1 else {alias.name for alias in node.names}
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[1] for alias in node.names if alias.name.startswith("growkit.")}
    return {name for name in found if name in FLOOR}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_down(path):
    # names that growkit shows at its top are looked up when used, so importing them from there is no import of a room
    here = room(path)
    upward = {name for name in imported_rooms(path) if FLOOR[name] >= FLOOR[here] and name != here}
    assert not upward, f"{here} imports {upward} from above"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_say_what_they_are_and_stay_small(path):
    text = path.read_text("utf-8")
    assert ast.get_docstring(ast.parse(text)), "no docstring on top"
    assert len(text.splitlines()) <= 300


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_public_functions_are_documented(path):
    tree = ast.parse(path.read_text("utf-8"))
    classes = [node for node in tree.body if isinstance(node, ast.ClassDef)]
    for node in [*tree.body, *(member for owner in classes for member in owner.body)]:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            short_property = any("property" in ast.unparse(d) for d in getattr(node, "decorator_list", []))
            interface = any(node in owner.body for owner in classes if "Protocol" in map(ast.unparse, owner.bases))
            small = short_property and len(node.body) == 1
            assert small or interface or ast.get_docstring(node), f"{node.name} has no docstring"


def test_what_the_package_exports():
    assert sorted(growkit.__all__) == sorted(
        ["CheckpointError", "GrowkitError", "RequestError", "__version__", "expand", "grow_state_dict", "inspect"]
        + ["plan_widen", "plan_stack", "plan_grow", "plan_fuse", "plan_upcycle", "plan_merge", "verify"]
        + ["widen", "stack", "grow", "fuse", "upcycle", "merge", "delta", "apply"]
        + ["tokenize", "init", "evaluate", "pretrain", "report"]
    )
    for name in growkit.__all__:
        assert callable(getattr(growkit, name)) or name == "__version__"
    with pytest.raises(AttributeError, match="no attribute 'wdien'"):
        growkit.wdien  # noqa: B018
