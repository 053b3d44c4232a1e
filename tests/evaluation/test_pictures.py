from pathlib import Path

import pytest
from PIL import Image

from diffusers_imagen.evaluation.pictures import read_batches, to_tensor


@pytest.fixture
def paths(tmp_path: Path) -> list[Path]:
    """Write three pictures of two sizes."""
    made = [tmp_path / f"{number}.png" for number in range(3)]
    for path, side in zip(made, (8, 8, 12), strict=True):
        Image.new("RGBA", (side, side), (10, 20, 30, 255)).save(path)
    return made


def test_batches_are_of_one_size(paths: list[Path]) -> None:
    assert [len(batch) for batch in read_batches(paths)] == [2, 1]
    assert [len(batch) for batch in read_batches(paths, side=6)] == [3]
    assert [len(batch) for batch in read_batches(paths, side=6, batch_size=2)] == [2, 1]


def test_pictures_become_tensors_with_channels_first(paths: list[Path]) -> None:
    (batch,) = read_batches(paths, side=4)
    pixels = to_tensor(batch)
    assert pixels.shape == (3, 3, 4, 4)
    assert pixels[0, :, 2, 2].tolist() == [10, 20, 30]


def test_what_is_no_picture_is_named(tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("no picture")
    with pytest.raises(ValueError, match=r"text\.png cannot be read as a picture"):
        list(read_batches([tmp_path / "text.png"]))
