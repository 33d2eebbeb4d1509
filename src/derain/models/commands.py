"""The command `derain models`."""

from __future__ import annotations

from itertools import zip_longest
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from derain.card import Quality

_PROTOCOL = "y_matlab"


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("models")(models)


def models() -> None:
    """List the models that ship with derain: quality, cost and size."""
    from rich.console import Console
    from rich.table import Table

    from derain.card import read_card
    from derain.models import shipped

    table = Table("name", "kMAC/pixel", "size", "measured on", "PSNR (input)", "SSIM")
    for name, model in shipped().items():
        card = read_card(model.path)
        # One protocol, so that the rows can be compared; `derain inspect NAME` shows all figures.
        figures = [item for item in card.quality if item.protocol == _PROTOCOL]
        heads = [(name, f"{card.cost.kmac_per_pixel:.2f}", f"{model.bytes / 1e3:.0f} kB")]
        for head, figure in zip_longest(heads, figures, fillvalue=None):
            table.add_row(*(head or ("", "", "")), *(_cells(figure) if figure else ("not measured", "", "")))
        table.add_section()
    console = Console(markup=False)
    if table.row_count:
        console.print(table)
        console.print(f"PSNR in dB, protocol {_PROTOCOL}. derain inspect NAME shows a model's whole card.")
        for name, model in shipped().items():
            console.print(f"{name} comes with: {', '.join(model.companions) or 'nothing more'}.")
        console.print("attention serves the rain gate (--gate auto), tile and context serve --tile.")
    else:
        console.print("No model ships with this installation.")


def _cells(figure: Quality) -> tuple[str, str, str]:
    given = f" ({figure.input_psnr:.2f})" if figure.input_psnr is not None else ""
    return figure.dataset, f"{figure.psnr:.2f}{given}", f"{figure.ssim:.4f}"
