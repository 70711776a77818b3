"""A picture of what the pipeline is run on: rows of prepared crops, each row one data set.

``python -m hmdiff.contact_sheet OUT.jpg data/prepared/body/3dpw.h5 ...`` wrote docs/pictures.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from PIL import Image, ImageDraw, ImageFont

from hmdiff.datasets.prepared import PreparedFile
from hmdiff.errors import UserError
from hmdiff.files import atomic_file

TILE = 128  # pixels
LINE = 22  # height of a row's caption
QUALITY = 85  # JPEG


def contact_sheet(files: list[Path], columns: int) -> Image.Image:
    """``columns`` test images of each prepared file, evenly spaced, under a line that says what.

    Raises:
        UserError: a file is no prepared file, or holds real images, which nobody may pass on.
    """
    rows = [_row(path, columns) for path in files]
    sheet = Image.new("RGB", (columns * TILE, len(rows) * (TILE + LINE)), "white")
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(size=14)
    for index, (caption, tiles) in enumerate(rows):
        top = index * (TILE + LINE)
        draw.text((4, top + 3), caption, fill="black", font=font)
        for column, tile in enumerate(tiles):
            sheet.paste(Image.fromarray(tile), (column * TILE, top + LINE))
    return sheet


def _row(path: Path, columns: int) -> tuple[str, list[np.ndarray]]:
    with PreparedFile(path) as prepared:
        dataset, source = prepared.attrs["dataset"], prepared.attrs["source"]
        if source != "rendered":
            raise UserError(
                f"{path}: source: {source}; the licence of {dataset} forbids to pass its images "
                "on, name the prepared file of a rendered stand-in"
            )
        test = prepared.indices("test")
        chosen = test[np.linspace(0, len(test) - 1, columns).round().astype(int)]
        tiles = [prepared.image(int(index), TILE) for index in chosen]
    return f"{dataset}: rendered stand-in, test images (not {dataset} itself)", tiles


def main(
    out: Annotated[Path, typer.Argument(help="The picture (JPEG).")],
    files: Annotated[list[Path], typer.Argument(help="Prepared files.")],
    columns: Annotated[int, typer.Option(min=1, help="Images of each.")] = 8,
) -> None:
    """Write the contact sheet of ``files``."""
    sheet = contact_sheet(files, columns)
    with atomic_file(out) as temporary:
        sheet.save(temporary, "JPEG", quality=QUALITY, optimize=True)


if __name__ == "__main__":
    typer.run(main)
