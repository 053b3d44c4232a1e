import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from diffusers_imagen.diffusion.resize import resize

every_mode = pytest.mark.parametrize("mode", ["bicubic", "bilinear", "bilinear_align_corners", "nearest"])


def noise_image(*shape, scale=0.3):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0)) * scale


@pytest.mark.parametrize("mode", ["bicubic", "bilinear"])
def test_a_checkerboard_vanishes_when_it_is_shrunk(mode):
    rows, columns = torch.meshgrid(torch.arange(64), torch.arange(64), indexing="ij")
    checkerboard = ((rows + columns) % 2 * 2.0 - 1.0).expand(1, 3, 64, 64)
    shrunk = resize(checkerboard, (21, 21), mode)
    # The outermost pixels see a cut filter.
    assert shrunk[..., 1:-1, 1:-1].abs().max() < 0.03


@every_mode
@pytest.mark.parametrize("size", [(7, 5), (16, 16), (50, 64)])
def test_a_constant_image_stays_constant(mode, size):
    resized = resize(torch.full((1, 3, 16, 16), 0.7), size, mode)
    assert resized.shape == (1, 3, *size)
    torch.testing.assert_close(resized, torch.full_like(resized, 0.7), rtol=0, atol=1e-6)


@pytest.mark.parametrize("mode", ["bicubic", "bilinear"])
def test_up_and_down_again_keeps_the_mean(mode):
    image = noise_image(2, 3, 16, 16)
    there_and_back = resize(resize(image, (64, 64), mode), (16, 16), mode)
    torch.testing.assert_close(there_and_back.mean((1, 2, 3)), image.mean((1, 2, 3)), rtol=0, atol=2e-3)


@pytest.mark.parametrize("size", [(11, 13), (64, 80)])
@pytest.mark.parametrize(("mode", "filter_"), [("bicubic", Image.BICUBIC), ("bilinear", Image.BILINEAR)])
def test_pillow_gives_the_same(mode, filter_, size):
    image = noise_image(1, 1, 32, 40)
    theirs = np.asarray(Image.fromarray(image[0, 0].numpy()).resize(size[::-1], filter_))
    expected = torch.from_numpy(theirs.copy()).clamp(-1, 1)
    torch.testing.assert_close(resize(image, size, mode)[0, 0], expected, rtol=0, atol=1e-5)


def test_overshoot_of_bicubic_is_clamped():
    step = torch.ones(1, 3, 8, 8)
    step[..., :4] = -1
    raw = F.interpolate(step, (32, 32), mode="bicubic", antialias=True)
    assert raw.abs().max() > 1.01
    assert torch.equal(resize(step, (32, 32)), raw.clamp(-1, 1))


def test_aligned_corners_stay_where_they_are():
    image = noise_image(1, 3, 8, 8)
    resized = resize(image, (32, 32), "bilinear_align_corners")
    torch.testing.assert_close(
        resized[..., [0, 0, -1, -1], [0, -1, 0, -1]], image[..., [0, 0, -1, -1], [0, -1, 0, -1]]
    )


@every_mode
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_type_stays(mode, dtype):
    image = noise_image(1, 3, 16, 16).to(dtype)
    resized = resize(image, (8, 8), mode)
    assert resized.dtype == dtype
    torch.testing.assert_close(resized, resize(image.float(), (8, 8), mode).to(dtype), rtol=1e-5, atol=1e-6)


def test_an_unknown_mode_is_refused():
    with pytest.raises(ValueError, match="`mode` is 'area'; choose one of bicubic, bilinear, bilinear_align"):
        resize(torch.zeros(1, 3, 8, 8), (4, 4), "area")


def test_nearest_repeats_pixels_as_imagen_pytorch_does():
    image = noise_image(1, 3, 4, 4)
    assert torch.equal(resize(image, (8, 12), "nearest"), image.repeat_interleave(2, 2).repeat_interleave(3, 3))
