"""``derain inspect --html``: one file with the card, a picture of the parts, the tables and the estimates."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from pathlib import Path

from derain.devices import ESTIMATE_COLUMNS, ESTIMATE_NOTE, estimate_row
from derain.export.inspection import Inspection, card_rows
from derain.files import atomic_path
from derain.sizes import size_text

_STYLE = """
:root { color-scheme: light dark; --ink: #1c2733; --soft: #5b6b7b; --line: #c9d3dc; --fill: #e8f0f7; --bar: #3b7dd8 }
@media (prefers-color-scheme: dark) { :root { --ink: #e3e9ef; --soft: #9fb0c0; --line: #3c4a58; --fill: #22303d;
  --bar: #5b9bf0 } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); max-width: 60rem; margin: 2rem auto; padding: 0 1rem }
table { border-collapse: collapse; margin: .5rem 0 1.5rem } td, th { padding: .15rem .8rem .15rem 0; text-align: left;
  vertical-align: top; border-bottom: 1px solid var(--line) }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums } p.note { color: var(--soft) }
svg text { font: 13px system-ui, sans-serif; fill: var(--ink) } svg .soft { fill: var(--soft) }
"""
_ROW, _BOX, _WIDTH, _LEFT, _TEXT = 38, 28, 640, 120, 8


def write_html(found: Inspection, path: Path) -> None:
    """Write the report atomically. All text of the card is escaped: a card comes from outside."""
    with atomic_path(path) as temporary:
        temporary.write_text(render(found), encoding="utf-8")


def render(found: Inspection) -> str:
    """The report as an HTML document that needs nothing else."""
    card = found.card
    parts = [
        f"<h1>{escape(card.name)}</h1>",
        _table(("", ""), card_rows(card, found.path, found.file_bytes), numbers=2),
    ]
    if found.cost is None:
        parts.append(f"<p>{escape(found.missing or '')}</p>")
    else:
        cost = found.cost
        rows = [
            (part, f"{kmac:.3f}", f"{kmac / max(cost.kmac_per_pixel, 1e-12):.1%}", f"{weights:,}")
            for part, (kmac, weights) in cost.by_part(2).items()
        ]
        parts += [
            "<h2>Parts</h2>",
            _picture(found),
            _table(("part", "kMAC/pixel", "share", "weights"), rows, numbers=1),
            f"<p>All: {cost.kmac_per_pixel:.3f} kMAC/pixel, {cost.parameters:,} stored weights.</p>",
            f"<h2>Memory at {size_text(cost.shape)}</h2>",
            f"<p>Activations: at most {cost.activation_bytes / 2**20:.1f} MiB alive at once, node by node and unfused. "
            f"Weights: {cost.weight_bytes / 2**20:.2f} MiB.</p>",
            "<h2>Operators</h2>",
            f"<p>{escape(', '.join(f'{name} {count}' for name, count in cost.operators.most_common()))}</p>",
            f"<h2>Estimates at {size_text(cost.shape)}</h2>",
            f'<p class="note">{escape(ESTIMATE_NOTE)}</p>',
            _table(ESTIMATE_COLUMNS, [estimate_row(item) for item in found.estimates], numbers=2),
        ]
    body = "\n".join(parts)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width">'
        f"<title>{escape(card.name)}: derain inspect</title><style>{_STYLE}</style></head>"
        f"\n<body>\n{body}\n</body></html>\n"
    )


def _table(header: tuple[str, ...], rows: Iterable[tuple[str, ...]], *, numbers: int) -> str:
    """A table whose columns from ``numbers`` on are right-aligned."""

    def line(cells: tuple[str, ...], tag: str) -> str:
        kind = [' class="n"' if index >= numbers else "" for index in range(len(cells))]
        return "<tr>" + "".join(f"<{tag}{k}>{escape(c)}</{tag}>" for k, c in zip(kind, cells, strict=True)) + "</tr>"

    head = line(header, "th") if any(header) else ""
    return f"<table>{head}{''.join(line(row, 'td') for row in rows)}</table>"


def _picture(found: Inspection) -> str:
    """The parts from top to bottom in the order they run, bars as long as their share, arcs for data."""
    assert found.cost is not None
    costs = found.cost.by_part(2)
    names = list(dict.fromkeys([name for edge in found.flow for name in edge] + list(costs)))
    index = {name: position for position, name in enumerate(names)}
    largest = max((kmac for kmac, _ in costs.values()), default=0.0) or 1.0
    shapes = [_arc(index[start], index[end]) for start, end in found.flow if start in index and end in index]
    for name, position in index.items():
        top = position * _ROW
        kmac, _ = costs.get(name, (0.0, 0))
        bar = (_WIDTH - _LEFT) * kmac / largest
        label = f"{kmac:.2f} kMAC/pixel" if kmac >= 0.005 else ""
        shapes.append(
            f'<rect x="{_LEFT}" y="{top}" width="{_WIDTH - _LEFT}" height="{_BOX}" rx="5" fill="var(--fill)"/>'
            f'<rect x="{_LEFT}" y="{top + _BOX - 4}" width="{bar:.1f}" height="4" fill="var(--bar)"/>'
            f'<text x="{_LEFT + _TEXT}" y="{top + 18}">{escape(name)}</text>'
            f'<text class="soft" x="{_WIDTH - _TEXT}" y="{top + 18}" text-anchor="end">{label}</text>'
        )
    height = len(names) * _ROW
    return (
        f'<svg viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}" height="{height}" role="img" '
        'aria-label="Parts of the graph and the data between them"><defs><marker id="tip" viewBox="0 0 6 6" refX="5" '
        'refY="3" markerWidth="6" markerHeight="6" orient="auto"><path d="M0 0L6 3L0 6z" fill="var(--soft)"/></marker>'
        f"</defs>{''.join(shapes)}</svg>"
    )


def _arc(start: int, end: int) -> str:
    """An arrow on the left from one row to another, the further the longer its way."""
    reach = min(_LEFT - 14, 10 + 9 * abs(end - start))
    above, below = start * _ROW + _BOX / 2 + 4, end * _ROW + _BOX / 2 - 4
    path = f"M{_LEFT} {above}C{_LEFT - reach} {above} {_LEFT - reach} {below} {_LEFT - 2} {below}"
    return f'<path d="{path}" fill="none" stroke="var(--soft)" stroke-opacity=".6" marker-end="url(#tip)"/>'
