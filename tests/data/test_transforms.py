from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from diffusers_imagen.data.transforms import crop_at, flip_some, low_res_of, to_rgb, to_square, to_unit_range


def test_exif_rotation_is_undone(tmp_path: Path) -> None:
    image = Image.new("RGB", (4, 2), (255, 0, 0))
    exif = image.getexif()
    exif[0x0112] = 6  # rotated by a quarter
    image.save(tmp_path / "turned.png", exif=exif)

    with Image.open(tmp_path / "turned.png") as opened:
        assert to_rgb(opened).size == (2, 4)


def test_sixteen_bit_grey_is_scaled_and_not_clipped(tmp_path: Path) -> None:
    values = np.array([[0, 257 * 100], [257 * 200, 65535]], dtype=np.uint16)
    Image.fromarray(values).save(tmp_path / "deep.png")

    with Image.open(tmp_path / "deep.png") as opened:
        grey = np.asarray(to_rgb(opened))[..., 0]
    assert grey.tolist() == [[0, 100], [200, 255]]


def test_float_grey_is_scaled_from_the_unit_interval() -> None:
    image = Image.fromarray(np.array([[0.0, 0.5, 1.0]], dtype=np.float32))

    assert np.asarray(to_rgb(image))[..., 0].tolist() == [[0, 128, 255]]


@pytest.mark.parametrize(
    ("mode", "colour", "expected"),
    [
        ("L", 40, (40, 40, 40)),
        ("1", 1, (255, 255, 255)),
        ("CMYK", (0, 255, 255, 0), (255, 0, 0)),
        ("RGBA", (0, 0, 0, 0), (255, 255, 255)),
        ("RGBA", (255, 0, 0, 128), (255, 127, 127)),
        ("LA", (0, 0), (255, 255, 255)),
    ],
)
def test_other_modes_become_rgb_with_transparency_over_white(
    mode: str, colour: int | tuple[int, ...], expected: tuple[int, int, int]
) -> None:
    rgb = to_rgb(Image.new(mode, (2, 2), colour))

    assert rgb.mode == "RGB"
    assert rgb.getpixel((1, 1)) == expected


def test_palette_with_transparent_entry_is_laid_over_white(tmp_path: Path) -> None:
    image = Image.new("P", (2, 1), 0)
    image.putpalette([10, 20, 30, 200, 0, 0])
    image.putpixel((1, 0), 1)
    image.save(tmp_path / "palette.png", transparency=0)

    with Image.open(tmp_path / "palette.png") as opened:
        rgb = to_rgb(opened)
    assert [rgb.getpixel((x, 0)) for x in (0, 1)] == [(255, 255, 255), (200, 0, 0)]


def test_square_is_cut_from_the_centre() -> None:
    pixels = np.zeros((4, 8, 3), dtype=np.uint8)
    pixels[:, 2:6] = 255
    wide, tall = Image.fromarray(pixels), Image.fromarray(pixels.transpose(1, 0, 2))

    for image in (wide, tall):
        assert np.asarray(to_square(image, 4)).min() == 255
        assert np.asarray(to_square(image, 2)).shape == (2, 2, 3)


def test_square_is_shrunk_without_aliasing() -> None:
    checkerboard = (np.indices((64, 64)).sum(0) % 2 * 255).astype(np.uint8)
    small = np.asarray(to_square(Image.fromarray(checkerboard).convert("RGB"), 8))

    assert abs(small.astype(int) - 127).max() <= 2


def test_unit_range_goes_from_minus_one_to_one() -> None:
    assert to_unit_range(torch.tensor([0, 255], dtype=torch.uint8)).tolist() == [-1.0, 1.0]


def test_low_resolution_is_that_of_the_whole_picture_enlarged() -> None:
    image = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    small = F.interpolate(image.double(), (8, 8), mode="bicubic", antialias=True)
    expected = F.interpolate(small.clamp(-1, 1), (32, 32), mode="bicubic", antialias=True).clamp(-1, 1)

    torch.testing.assert_close(low_res_of(image, 4).double(), expected, rtol=0, atol=1e-5)


def test_size_that_is_no_multiple_of_the_factor_is_refused() -> None:
    with pytest.raises(ValueError, match="30x32, not a multiple of `factor` 4"):
        low_res_of(torch.zeros(1, 3, 30, 32), 4)


def test_each_picture_is_cropped_at_its_own_place() -> None:
    image = torch.arange(2 * 3 * 8 * 8).reshape(2, 3, 8, 8).float()
    crops = crop_at(image, torch.tensor([0, 3]), torch.tensor([4, 1]), side=4)

    assert torch.equal(crops[0], image[0, :, 0:4, 4:8])
    assert torch.equal(crops[1], image[1, :, 3:7, 1:5])


def test_only_the_chosen_pictures_are_mirrored() -> None:
    image = torch.rand(2, 3, 4, 4)
    flipped = flip_some(image, torch.tensor([False, True]))

    assert torch.equal(flipped[0], image[0])
    assert torch.equal(flipped[1], image[1].flip(-1))
