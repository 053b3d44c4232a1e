"""Put the example's folder on the path, as Python does when one of its scripts is run, and draw art for the tests.

The real art is not part of the repository, so the tests use shapes of one color each: what a picture shows can then
be read from its pixels.
"""

import io
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image, ImageDraw

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "examples" / "emoji"))

# Code points, noun, color, width and height of the shape.
SHAPES = (
    ("1f431", "cat", (0, 200, 0), (60, 60)),
    ("1f436", "dog", (200, 0, 200), (60, 60)),
    ("1f34e", "apple", (220, 0, 0), (50, 50)),
    ("1f511", "key", (230, 200, 0), (40, 60)),
    ("1f3a9", "top hat", (0, 0, 220), (40, 40)),
    ("1f452", "straw hat", (0, 180, 220), (60, 30)),
    ("1f451", "crown", (120, 60, 0), (50, 30)),
    ("1f453", "pair of glasses", (0, 0, 0), (60, 20)),
    ("1f576", "pair of sunglasses", (70, 70, 70), (60, 20)),
    ("1f388", "balloon", (255, 128, 0), (40, 60)),
)


def _row(code_points: str, name: str, color: tuple[int, int, int], size: tuple[int, int], group: str) -> dict:
    image = Image.new("RGBA", (80, 80))
    left, top = (80 - size[0]) // 2, (80 - size[1]) // 2
    ImageDraw.Draw(image).rectangle((left, top, left + size[0] - 1, top + size[1] - 1), fill=(*color, 255))
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return {
        "image": {"bytes": buffer.getvalue(), "path": f"{code_points}.png"},
        "codepoints": code_points,
        "group": group,
        "name_en": f"{name} emoji",
        "name_zh": f"表情{code_points}",
        "keywords_en": [f"keyword of {name}"],
        "keywords_zh": [],
    }


@pytest.fixture(scope="session")
def art_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("art")
    rows = [_row(*shape, group="animals-nature") for shape in SHAPES]
    rows.append(_row("1f3f3", "white flag", (1, 2, 3), (60, 40), group="flags"))
    pq.write_table(pa.Table.from_pylist(rows), folder / "shapes.parquet")
    return folder


@pytest.fixture(scope="session")
def shape_colors() -> dict[str, tuple[int, int, int]]:
    """Color of each noun's shape."""
    return {name: color for _, name, color, _ in SHAPES}
