import numpy as np
import pytest
import torch
from diffusers.image_processor import VaeImageProcessor
from PIL import Image

from diffusers_imagen.pipelines.pictures import finished_pictures, given_pictures, shrunk

PROCESSOR = VaeImageProcessor(vae_scale_factor=1, do_convert_rgb=True)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (
            torch.full((1, 3, 4, 4), 1.5),
            r"`image` holds values from 1.5 to 1.5; give pixels in \[0, 1\]: divide by 255",
        ),
        (np.full((4, 4, 3), 255, dtype=np.uint8), "from 255 to 255; .*divide by 255"),
        (torch.linspace(-1, 1, 48).view(3, 4, 4), r"from -1 to 1; .*\(image / 2 \+ 0.5\)"),
        ([torch.zeros(3, 4, 4), torch.full((3, 4, 4), 2.0)], "from 2 to 2"),
        (np.full((4, 4, 3), np.nan), "not finite"),
    ],
)
def test_pixels_that_leave_their_range_are_refused(image, message):
    with pytest.raises(ValueError, match=message):
        given_pictures(image, PROCESSOR, 3)


def test_what_a_resize_overshoots_is_clamped():
    image = torch.linspace(-0.005, 1.005, 48).view(1, 3, 4, 4)
    torch.testing.assert_close(given_pictures(image, PROCESSOR, 3), image.clamp(0, 1) * 2 - 1)
    assert image.min() < 0
    array = image[0].permute(1, 2, 0).numpy()
    torch.testing.assert_close(given_pictures([array], PROCESSOR, 3), image.clamp(0, 1) * 2 - 1)


def test_a_picture_of_bytes_comes_back_byte_by_byte():
    pixels = np.arange(192, dtype=np.uint8).reshape(8, 8, 3)
    drawn = given_pictures([Image.fromarray(pixels), Image.fromarray(pixels.T.copy().reshape(8, 8, 3))], PROCESSOR, 3)
    assert drawn.shape == (2, 3, 8, 8)
    first, _ = finished_pictures(drawn, "pil", PROCESSOR)
    np.testing.assert_array_equal(np.asarray(first), pixels)


def test_pictures_beyond_their_range_are_clipped_but_left_alone_as_latents():
    drawn = torch.tensor([-3.0, -1.0, 0.0, 1.0, 3.0, 0.5]).view(1, 1, 2, 3)
    expected = torch.tensor([0.0, 0.0, 0.5, 1.0, 1.0, 0.75]).view(1, 1, 2, 3)
    assert torch.equal(finished_pictures(drawn, "pt", PROCESSOR), expected)
    assert torch.equal(finished_pictures(drawn, "latent", PROCESSOR), drawn)
    np.testing.assert_array_equal(finished_pictures(drawn, "np", PROCESSOR), expected.permute(0, 2, 3, 1).numpy())


def test_starting_pictures_are_shrunk_only_where_they_must_be():
    pictures = torch.rand(2, 3, 16, 24)
    assert shrunk(pictures, (64, 96), 0.25) is pictures
    assert shrunk(pictures, (32, 48), 0.25).shape == (2, 3, 8, 12)
