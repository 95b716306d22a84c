"""The table of skills.py."""

from collections.abc import Mapping, Sequence
from statistics import mean
from typing import Any

from skills_data import DOCS, GATED, MERGES, SKILLS


def show(rows: Sequence[Mapping[str, Any]]) -> None:
    """The tables, as Markdown."""
    by = {(row["arm"], row["skill"]): row for row in rows}
    base = by["base", "none"]
    gain = lambda row, name: base["tasks"][name]["loss"] - row["tasks"][name]["loss"]  # noqa: E731
    exact = lambda row, name: f"{100 * row['tasks'][name]['exact']:.0f}"  # noqa: E731
    columns = list(dict.fromkeys(row["arm"] for row in rows if row["arm"] != "base"))
    lines: dict[str, list[str]] = {}

    def line(name: str, cell: Any) -> None:
        lines[name] = [cell(column) for column in columns]

    def own(column: str) -> dict[str, Mapping[str, Any]]:
        arm = "full" if column in MERGES else "panel" if column == GATED else column
        return {name: by[arm, name] for name in SKILLS if (arm, name) in by}

    for name in SKILLS:

        def cell(column: str, name: str = name) -> str:
            alone, every = own(column).get(name), by.get((column, "all"))
            parts = [f"{gain(row, name):.2f}" + ("" if name == DOCS else f" ({exact(row, name)} %)")
                     for row in (alone, every) if row is not None]  # fmt: skip
            return " to ".join(parts)

        line(f"{name}: gain alone to all plugged", cell)

    def kept(column: str) -> str:
        every = by.get((column, "all"))
        if every is None:
            return ""
        shares = [gain(every, name) / gain(row, name) for name, row in own(column).items()]
        return f"{100 * mean(shares):.0f} ({100 * min(shares):.0f})"

    def pairs(what: str) -> Any:
        def cell(column: str) -> str:
            found = by.get((column, "all"), {}).get(what)
            return "" if found is None else f"{mean(found.values()):.2f} ({max(found.values()):.2f})"

        return cell

    line("gain kept, %: mean (worst)", kept)
    line("general text, one skill alone: mean (worst)", lambda column: "" if column in MERGES or column == GATED else
         f"{mean(row['general'] - base['general'] for row in own(column).values()):+.3f}"
         f" ({max(row['general'] - base['general'] for row in own(column).values()):+.3f})")  # fmt: skip
    line("general text, all plugged", lambda column: "" if (column, "all") not in by else
         f"{by[column, 'all']['general'] - base['general']:+.3f}")  # fmt: skip
    line("general sequences that change", lambda column: "all" if column != GATED else
         f"{100 * by[column, 'all']['opened']['general']:.1f} %")  # fmt: skip
    line("rho of pairs: mean (largest)", pairs("rho"))
    line("KL of pairs: mean (largest)", pairs("kl"))
    line(
        "numbers of one skill",
        lambda column: "" if column in MERGES else f"{next(iter(own(column).values()))['numbers']:,}",
    )
    line("seconds to learn one", lambda column: "" if column in MERGES or column == GATED else
         f"{mean(row['seconds'] for row in own(column).values()):.0f}")  # fmt: skip
    merged = [one for one in columns if one in MERGES]
    for some in filter(None, ([one for one in columns if one not in MERGES], merged)):
        print("\n| | base | " + " | ".join(some) + " |\n|---|---|" + "---|" * len(some))
        for name, cells in lines.items():
            task = name.split(":")[0]
            plain = f"{base['tasks'][task]['loss']:.2f} nats" if task in SKILLS else ""
            plain = f"{base['general']:.2f} nats" if name == "general text, all plugged" else plain
            told = [cell for cell, column in zip(cells, columns) if column in some]
            if any(told):
                print(f"| {name} | {plain} | " + " | ".join(told) + " |")
    for row in rows:
        if "opened" in row:
            shares = ", ".join(f"{name} {100 * share:.1f} %" for name, share in row["opened"].items())
            print(f"\nopened by the gate: {shares}")
            print("by prompts of tasks that nobody learned: "
                  + ", ".join(f"{name} {100 * share:.0f} %" for name, share in row["strangers"].items()))  # fmt: skip
            print("certificate:", row["certificate"])
