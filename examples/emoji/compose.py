# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""What is done to cropped RGBA pictures before and while they are put together: scale, paste, recolor, wear.

Knows nothing of nouns, captions or chance: the scene kinds decide what is drawn and where.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

# Hues of the color words in degrees.
HUES = {"red": 0, "orange": 28, "yellow": 50, "green": 120, "blue": 215, "purple": 275, "pink": 330}
# Color words that `recolor` understands.
COLORS = (*HUES, "black", "white")


def scale_to_fit(image: Image.Image, width: float, height: float) -> Image.Image:
    """Scale a picture, keeping its shape, to the largest size that fits the given width and height in pixels."""
    factor = min(width / image.width, height / image.height)
    size = (max(1, round(image.width * factor)), max(1, round(image.height * factor)))
    return image.resize(size, Image.Resampling.LANCZOS)


def paste_centered(
    canvas: Image.Image, image: Image.Image, center_x: float, center_y: float
) -> tuple[int, int, int, int]:
    """Draw `image` on `canvas` around a point, moved as far as needed to lie inside.

    Returns:
        The box drawn on: left, top, right, bottom in pixels of the canvas.
    """
    left = round(center_x - image.width / 2)
    top = round(center_y - image.height / 2)
    left = max(0, min(left, canvas.width - image.width))
    top = max(0, min(top, canvas.height - image.height))
    canvas.alpha_composite(image, (left, top))
    return left, top, left + image.width, top + image.height


def _dominant_hue(hues: NDArray[np.int64]) -> int:
    histogram = np.bincount(hues, minlength=256).astype(float)
    # A window with a peak: a flat one would put a picture of one single hue anywhere within its width.
    smoothed = sum((11 - abs(shift)) * np.roll(histogram, shift) for shift in range(-10, 11))
    return int(np.argmax(smoothed))


def recolor(image: Image.Image, color: str) -> Image.Image | None:
    """Turn the main hue of a picture into another color, keeping shading and the other hues.

    Args:
        image: RGBA picture.
        color: One of `COLORS`.

    Returns:
        The new picture, or None where too little of the picture has one hue to make the color believable.
    """
    hsv = np.asarray(image.convert("RGB").convert("HSV")).astype(np.int64)
    visible = np.asarray(image.getchannel("A")) > 128
    strong = visible & (hsv[..., 1] > 70) & (hsv[..., 2] > 50)
    if not strong.any() or strong.sum() < 0.3 * visible.sum():
        return None
    main_hue = _dominant_hue(hsv[..., 0][strong])
    distance = np.abs((hsv[..., 0] - main_hue + 128) % 256 - 128)
    if (distance < 30)[strong].mean() < 0.6:
        return None

    turned = hsv.copy()
    if color == "black":
        turned[..., 1] //= 5
        turned[..., 2] = turned[..., 2] * 36 // 100
    elif color == "white":
        turned[..., 1] //= 10
        turned[..., 2] = 215 + turned[..., 2] * 40 // 255
    else:
        turned[..., 0] = (turned[..., 0] - main_hue + round(HUES[color] * 255 / 360)) % 256

    # A soft window around the main hue, closing for pale pixels, leaves leaves green and eyes dark.
    share = np.clip((44 - distance) / 14, 0, 1) * np.clip(hsv[..., 1] / 40, 0, 1)
    share = share[..., None]
    new = np.asarray(Image.fromarray(turned.astype(np.uint8), "HSV").convert("RGB"))
    old = np.asarray(image.convert("RGB"))
    result = Image.fromarray((new * share + old * (1 - share)).astype(np.uint8)).convert("RGBA")
    result.putalpha(image.getchannel("A"))
    return result


def drop_chin_strap(helmet: Image.Image) -> Image.Image:
    """Keep the part of a helmet down to its widest row's end: below it hangs only the strap."""
    widths = (np.asarray(helmet.getchannel("A")) > 64).sum(axis=1)
    last_widest_row = len(widths) - 1 - int(widths[::-1].argmax())
    return helmet.crop((0, 0, helmet.width, min(helmet.height, int(last_widest_row + 0.03 * helmet.height))))


def _scalp(head: Image.Image) -> tuple[int, float]:
    """Measure where the top of a head's middle is (ears stick out higher) and how wide the head is just below."""
    solid = np.asarray(head.getchannel("A")) > 128
    middle = solid[:, int(head.width * 0.44) : int(head.width * 0.56) + 1]
    tops = [int(column.argmax()) for column in middle.T if column.any()]
    top = int(np.median(tops)) if tops else 0
    across = np.flatnonzero(solid[min(head.height - 1, top + int(0.16 * head.height))])
    width = int(across[-1] - across[0] + 1) if len(across) else head.width
    return top, min(width, 0.92 * head.width)


def wear(head: Image.Image, hat: Image.Image | None, glasses: Image.Image | None, eye_height: float) -> Image.Image:
    """Put a hat and glasses on a head.

    Args:
        head: Tightly cropped RGBA head seen from the front.
        hat: Tightly cropped RGBA hat, or None.
        glasses: Tightly cropped RGBA glasses, or None.
        eye_height: Height of the eyes as a fraction of the head's height, from its top.

    Returns:
        Tightly cropped RGBA picture of all of them.
    """
    scalp_top, scalp_width = _scalp(head)
    canvas = Image.new("RGBA", (2 * head.width, 3 * head.height))
    left, top = head.width // 2, int(1.2 * head.height)
    middle = left + head.width // 2
    canvas.alpha_composite(head, (left, top))
    if glasses is not None:
        width = round(0.74 * min(scalp_width * 1.15, head.width))
        worn = glasses.resize((width, round(width * glasses.height / glasses.width)), Image.Resampling.LANCZOS)
        eyes = top + int(eye_height * head.height)
        canvas.alpha_composite(worn, (middle - worn.width // 2, eyes - worn.height // 2))
    if hat is not None:
        # A flat hat may be as wide as the head; a tall one looks right a little narrower.
        width = round((0.82 if hat.width > 1.05 * hat.height else 0.72) * scalp_width)
        worn = hat.resize((width, round(width * hat.height / hat.width)), Image.Resampling.LANCZOS)
        brim = top + scalp_top + int(0.11 * head.height)
        canvas.alpha_composite(worn, (middle - worn.width // 2, max(0, brim - worn.height)))
    return canvas.crop(canvas.getchannel("A").getbbox())
