"""The command `derain models`."""

from __future__ import annotations

import typer


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("models")(models)


def models() -> None:
    """List the models that ship with derain: quality, cost and size."""
    from rich.console import Console
    from rich.table import Table

    from derain.card import read_card
    from derain.models import shipped

    table = Table("name", "system", "precision", "kMAC/pixel", "size", "quality (output, input)")
    for name, model in shipped().items():
        card = read_card(model.path)
        quality = [
            f"{item.dataset}: {item.psnr:.2f} dB, SSIM {item.ssim:.3f}"
            + (f" (input {item.input_psnr:.2f} dB)" if item.input_psnr is not None else "")
            + f" [{item.protocol}]"
            for item in card.quality
        ]
        table.add_row(
            name,
            f"{card.system} {card.variant}",
            card.precision.kind,
            f"{card.cost.kmac_per_pixel:.2f}",
            f"{model.bytes / 1e3:.0f} kB",
            "\n".join(quality) or "not measured",
        )
    console = Console(markup=False)
    if table.row_count:
        console.print(table)
    else:
        console.print("No model ships with this installation.")
