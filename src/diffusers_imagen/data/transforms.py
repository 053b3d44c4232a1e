# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""Bring pictures into the form that training takes: RGB of one shape, crops and low-resolution pairs.

PIL pictures are cut when they are read; the rest works on whole batches on the training device. Called by
`source.py` and by the training objective.
"""

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from diffusers_imagen.diffusion.resize import ResizeMode, resize


def to_rgb(image: Image.Image) -> Image.Image:
    """Turn any PIL picture upright and into RGB, transparent parts over white.

    Args:
        image: A picture of any mode; 16-bit grey is scaled by its full range, not clipped.

    Returns:
        The picture in mode "RGB".
    """
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith(("I", "F")):
        # PIL's own conversion clips at 255, which turns 16-bit pictures white.
        image = Image.fromarray(_grey_to_uint8(np.asarray(image)))
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        paper = Image.new("RGBA", layer.size, (255, 255, 255, 255))
        return Image.alpha_composite(paper, layer).convert("RGB")
    return image.convert("RGB")


def to_square(image: Image.Image, side: int) -> Image.Image:
    """Crop the centre square of a picture and resize it to `side` * `side` pixels without aliasing."""
    return to_shape(image, side, side)


def to_shape(image: Image.Image, height: int, width: int) -> Image.Image:
    """Crop the centre of a picture to the shape that is asked for and resize it without aliasing.

    Args:
        image: An RGB picture.
        height: Of the result, in pixels.
        width: Of the result, in pixels.

    Returns:
        The picture of height * width pixels, resized with a bicubic filter.
    """
    if image.width * height < image.height * width:
        size = image.width, max(1, round(image.width * height / width))
    else:
        size = max(1, round(image.height * width / height)), image.height
    left, top = (image.width - size[0]) // 2, (image.height - size[1]) // 2
    box = (left, top, left + size[0], top + size[1])
    if size == (width, height):
        return image.crop(box)
    return image.resize((width, height), Image.Resampling.BICUBIC, box=box)


def to_unit_range(pixels: Tensor) -> Tensor:
    """Turn pixels of 0 to 255 into float32 in [-1, 1]."""
    return pixels.float() / 127.5 - 1


def to_uint8(image: Tensor) -> Tensor:
    """Turn pixels in [-1, 1] into 0 to 255, rounded."""
    return ((image + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)


def low_res_of(image: Tensor, factor: int, mode: ResizeMode = "bicubic") -> Tensor:
    """Make the low-resolution version of whole pictures, enlarged back to their size.

    The shrinking never sees a crop, whose border would not be that of a picture that a base stage made; the enlarging
    is the one that sampling does between stages.

    Args:
        image: Pictures (B, C, H, W) in [-1, 1], H and W multiples of `factor`.
        factor: How many times smaller the low resolution is.
        mode: The filter that enlarges, as in sampling.

    Returns:
        Blurred pictures (B, C, H, W).

    Raises:
        ValueError: If the size is not a multiple of `factor`.
    """
    height, width = image.shape[-2:]
    if height % factor or width % factor:
        raise ValueError(f"`image` is {height}x{width}, not a multiple of `factor` {factor}; resize it first.")
    small = resize(image, (height // factor, width // factor))
    return resize(small, (height, width), mode)


def crop_at(image: Tensor, top: Tensor, left: Tensor, side: int) -> Tensor:
    """Cut a square out of each picture, each at its own place.

    Args:
        image: Pictures (B, C, H, W).
        top: First row of each crop (B,), integers.
        left: First column of each crop (B,), integers.
        side: Height and width of the crops.

    Returns:
        Crops (B, C, side, side).
    """
    if side == image.shape[-2] == image.shape[-1]:
        return image
    span = torch.arange(side, device=image.device)
    sample = torch.arange(len(image), device=image.device)[:, None, None]
    rows, columns = (top[:, None] + span)[:, :, None], (left[:, None] + span)[:, None, :]
    return image.permute(0, 2, 3, 1)[sample, rows, columns].permute(0, 3, 1, 2).contiguous()


def flip_some(image: Tensor, flip: Tensor) -> Tensor:
    """Mirror the pictures (B, C, H, W) for which `flip` (B,) is true, left to right."""
    return torch.where(flip[:, None, None, None], image.flip(-1), image)


def _grey_to_uint8(values: np.ndarray) -> np.ndarray:
    if values.dtype.kind == "f":
        # Float pictures are in [0, 1] or [0, 255]; nothing in the file says which.
        scale = 255.0 if values.max(initial=0.0) <= 1.0 else 1.0
    else:
        scale = 255.0 / 65535.0
    return (values * scale).round().clip(0, 255).astype(np.uint8)
