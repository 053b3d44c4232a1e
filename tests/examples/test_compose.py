import numpy as np
import pytest
from art import crop_to_content
from compose import HUES, drop_chin_strap, paste_centered, recolor, scale_to_fit, wear
from PIL import Image, ImageDraw


def test_scaling_keeps_the_shape_and_fits_the_box() -> None:
    image = Image.new("RGBA", (100, 50), "red")
    assert scale_to_fit(image, 40, 40).size == (40, 20)
    assert scale_to_fit(image, 400, 25).size == (50, 25)


def test_pasting_stays_inside_the_canvas() -> None:
    canvas = Image.new("RGBA", (50, 50), "white")
    assert paste_centered(canvas, Image.new("RGBA", (20, 10), "red"), 25, 25) == (15, 20, 35, 30)
    assert paste_centered(canvas, Image.new("RGBA", (20, 10), "red"), 2, 60) == (0, 40, 20, 50)


def test_cropping_keeps_only_what_is_visible() -> None:
    image = Image.new("RGBA", (50, 50))
    ImageDraw.Draw(image).rectangle((10, 20, 29, 24), fill="red")
    assert crop_to_content(image).size == (20, 5)
    with pytest.raises(ValueError, match="fully transparent"):
        crop_to_content(Image.new("RGBA", (5, 5)))


@pytest.mark.parametrize("color", sorted(HUES))
def test_recoloring_turns_the_main_hue_and_leaves_the_other(color: str) -> None:
    image = Image.new("RGBA", (40, 40), (200, 30, 30, 255))
    ImageDraw.Draw(image).rectangle((0, 0, 39, 9), fill=(20, 160, 40, 255))
    result = recolor(image, color)
    assert result is not None
    hsv = np.asarray(result.convert("RGB").convert("HSV")).astype(int)
    apart = abs(hsv[30, 20, 0] * 360 / 255 - HUES[color]) % 360
    assert min(apart, 360 - apart) < 4
    assert result.getpixel((20, 3)) == pytest.approx((20, 160, 40, 255), abs=4)


def test_a_picture_without_a_main_hue_is_not_recolored() -> None:
    assert recolor(Image.new("RGBA", (40, 40), (128, 128, 128, 255)), "red") is None
    stripes = Image.new("RGBA", (40, 40), (220, 20, 20, 255))
    ImageDraw.Draw(stripes).rectangle((0, 0, 39, 19), fill=(20, 20, 220, 255))
    assert recolor(stripes, "green") is None


def test_the_strap_below_the_widest_row_of_a_helmet_is_dropped() -> None:
    helmet = Image.new("RGBA", (60, 60))
    ImageDraw.Draw(helmet).rectangle((0, 0, 59, 29), fill="red")
    ImageDraw.Draw(helmet).rectangle((28, 30, 32, 59), fill="black")
    assert 29 <= drop_chin_strap(helmet).height <= 32


def test_a_hat_sits_between_the_ears_not_on_them() -> None:
    head = Image.new("RGBA", (100, 100))
    draw = ImageDraw.Draw(head)
    draw.rectangle((0, 40, 99, 99), fill="green")
    draw.rectangle((0, 0, 15, 40), fill="green")
    draw.rectangle((84, 0, 99, 40), fill="green")
    hat = Image.new("RGBA", (40, 30), "blue")
    dressed = np.asarray(wear(head, hat, None, eye_height=0.6))
    blue_rows = np.flatnonzero(((dressed[..., 2] > 200) & (dressed[..., 3] > 200)).any(axis=1))
    ears_top = np.flatnonzero((dressed[..., 1] > 100) & (dressed[..., 3] > 200)).min() // dressed.shape[1]
    brim = blue_rows.max() - ears_top
    assert 45 <= brim <= 55
