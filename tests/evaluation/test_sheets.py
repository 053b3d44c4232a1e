from pathlib import Path

import pytest
from PIL import Image

from diffusers_imagen.evaluation.sheets import Cell, write_sheet


def test_groups_stand_side_by_side_in_frames(tmp_path: Path) -> None:
    path = tmp_path / "sheets" / "sheet.png"
    squares = {color: Image.new("RGB", (8, 8), color) for color in ("red", "blue", "black")}
    groups = [[Cell(squares["red"]), Cell(squares[color], "hit")] for color in ("blue", "black", "blue")]
    write_sheet(groups, path, columns=2, side=20)
    sheet = Image.open(path)
    # A cell is 26 wide with its border, a group 52 and a gap of 4; two groups in a row, two rows.
    assert sheet.size == (2 * 56 + 4, 2 * 30 + 4)
    assert [sheet.getpixel((x, 17)) for x in (17, 43, 99)] == [(255, 0, 0), (0, 0, 255), (0, 0, 0)]
    assert sheet.getpixel((31, 17)) == (40, 160, 70)
    assert sheet.getpixel((80, 50)) == (255, 255, 255)


def test_groups_of_different_length_are_refused(tmp_path: Path) -> None:
    cell = Cell(Image.new("RGB", (8, 8)))
    with pytest.raises(ValueError, match=r"lengths \[1, 2\]"):
        write_sheet([[cell], [cell, cell]], tmp_path / "sheet.png", columns=2)
