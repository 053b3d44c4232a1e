# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""Sheets: many pictures on one PNG, in rows, each with a frame that says what was made of it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from PIL import Image

Frame = Literal["hit", "miss", "none"]

_FRAMES = {"hit": (40, 160, 70), "miss": (205, 50, 45), "none": (150, 150, 150)}
_BORDER = 3
_GAP = 4


@dataclass(frozen=True)
class Cell:
    """Hold a picture of a sheet and its frame: green for "hit", red for "miss", gray for "none"."""

    picture: Image.Image
    frame: Frame = "none"


def write_sheet(groups: Sequence[Sequence[Cell]], path: Path, columns: int, side: int = 96) -> None:
    """Write groups of pictures that belong together, side by side, in rows of groups.

    Args:
        groups: Groups of equally many pictures, such as a real and a drawn one.
        path: PNG file to write.
        columns: Groups in a row.
        side: Width and height of a picture on the sheet in pixels.

    Raises:
        ValueError: If there are no groups, or they are not of one length.
    """
    lengths = {len(group) for group in groups}
    if len(lengths) != 1 or lengths == {0} or columns < 1:
        raise ValueError(f"`groups` have the lengths {sorted(lengths)}; give groups of one length, at least 1.")
    cell = side + 2 * _BORDER
    group_width = cell * lengths.pop() + _GAP
    columns = min(columns, len(groups))
    rows = -(-len(groups) // columns)
    sheet = Image.new("RGB", (columns * group_width + _GAP, rows * (cell + _GAP) + _GAP), "white")
    for number, group in enumerate(groups):
        left, top = _GAP + number % columns * group_width, _GAP + number // columns * (cell + _GAP)
        for place, item in enumerate(group):
            framed = Image.new("RGB", (cell, cell), _FRAMES[item.frame])
            framed.paste(
                item.picture.convert("RGB").resize((side, side), Image.Resampling.LANCZOS), (_BORDER, _BORDER)
            )
            sheet.paste(framed, (left + place * cell, top))
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    sheet.save(temporary, format="PNG")
    temporary.replace(path)
