"""A table of numbers as a picture: a heat map in SVG, and a page of such pictures and tables that needs no other file.
Knows HTML; ignorant of what the numbers are.
"""

from collections.abc import Callable, Sequence
from html import escape

from growkit.visible import visible

CELL, HEIGHT, LETTER = 54, 26, 7.2  # pixels: a cell's width and height, a letter's width
NARROW = 14  # a cell's width where there are many, which then hold no numbers
MANY = 24
STYLE = (
    "body{font:14px system-ui,sans-serif;margin:2em auto;max-width:80em;padding:0 1em;color:#222;background:#fff}"
    "table{border-collapse:collapse;margin:1em 0}th,td{padding:.2em .8em;text-align:left;border-bottom:1px solid #ddd}"
    "svg{max-width:100%;height:auto}svg text{font:12px system-ui,sans-serif}h2{margin-top:2em}"
)
Values = Sequence[Sequence[float | None]]


def heat_map(
    rows: Sequence[str], columns: Sequence[str], values: Values, colour: Callable[[float], str], corner: str = ""
) -> str:
    """An SVG of a table. values: row by row, None where there is none. colour: of a number, as CSS writes it. corner:
    what columns are. Numbers stand in the cells where there are few columns, and else show under the pointer."""
    wide = CELL if len(columns) <= MANY else NARROW
    left = round(max((len(name) for name in (*rows, corner)), default=0) * LETTER) + 14
    tilted = wide == NARROW or any(len(name) * LETTER > wide for name in columns)
    top = round(max((len(name) for name in columns), default=0) * LETTER * 0.75) + 24 if tilted else 24
    width, height = left + wide * len(columns) + (top if tilted else 10), top + HEIGHT * len(rows) + 8
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}">'
    ]
    parts.append(f'<text x="0" y="{top - 8}" fill="#777">{_safe(corner)}</text>')
    for number, name in enumerate(columns):
        x, y = left + wide * number + wide / 2, top - 8
        how = f'transform="rotate(-45 {x} {y})"' if tilted else 'text-anchor="middle"'
        parts.append(f'<text x="{x}" y="{y}" {how}>{_safe(name)}</text>')
    for number, (name, line) in enumerate(zip(rows, values)):
        y = top + HEIGHT * number
        parts.append(f'<text x="0" y="{y + 17}">{_safe(name)}</text>')
        for place, value in enumerate(line):
            x, told = left + wide * place, "" if value is None else f"{value:.3g}"
            fill = "#f2f2f2" if value is None else colour(value)
            title = _safe(f"{name}, {columns[place]}: {told or '-'}")
            box = f'<rect x="{x}" y="{y}" width="{wide - 1}" height="{HEIGHT - 1}" fill="{fill}"/>'
            parts.append(f"<g><title>{title}</title>{box}")
            if wide == CELL:
                parts.append(f'<text x="{x + wide / 2}" y="{y + 17}" text-anchor="middle">{told}</text>')
            parts.append("</g>")
    return "".join([*parts, "</svg>"])


def html_table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of text."""
    head = "".join(f"<th>{_safe(heading)}</th>" for heading in headings)
    body = "".join("<tr>" + "".join(f"<td>{_safe(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def html_page(title: str, parts: Sequence[tuple[str, str]], notes: Sequence[str]) -> str:
    """A whole page. parts: (heading, HTML). notes: sentences of text."""
    body = "".join(f"<h2>{_safe(heading)}</h2>{content}" for heading, content in parts)
    said = "".join(f"<p>{_safe(note)}</p>" for note in notes)
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{_safe(title)}</title><style>{STYLE}</style>'
        f"</head><body><h1>{_safe(title)}</h1>{said}{body}</body></html>\n"
    )


def _safe(text: str) -> str:
    """Names come from files of anybody."""
    return escape(visible(text))
