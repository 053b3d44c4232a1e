# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""Pictures at the pipeline's two ends: what a caller gives to enlarge, and what a caller gets."""

from typing import Any

import numpy as np
import torch
from diffusers.image_processor import VaeImageProcessor
from torch import Tensor

from diffusers_imagen.diffusion.resize import resize
from diffusers_imagen.pipelines.call_checks import Size
from diffusers_imagen.pipelines.pipeline_output import Pictures

# What a resize or a round trip through half precision may leave beyond the range.
_TOLERANCE = 1e-2


def given_pictures(image: Any, processor: VaeImageProcessor, channels: int) -> Tensor:
    """Return pictures of any form as (B, C, H, W) in [-1, 1].

    Args:
        image: a PIL image, a tensor (C, H, W) or (B, C, H, W), an array (H, W, C) or (B, H, W, C), or a list of them;
            numbers in [0, 1].
        processor: Diffusers' converter.
        channels: how many the pictures must have.

    Raises:
        ValueError: what is no picture, has other channels, or leaves [0, 1].
    """
    image = [_within_range(item) for item in image] if isinstance(image, list) else _within_range(image)
    try:
        pictures: Tensor = processor.preprocess(image).float()
    except (TypeError, AttributeError, IndexError, ValueError, RuntimeError) as error:
        raise ValueError(
            f"`image` is {image!r:.80}; give a PIL image, a tensor, an array or a list of them."
        ) from error
    if pictures.shape[1] != channels:
        raise ValueError(f"`image` has {pictures.shape[1]} channels; give {channels}.")
    return pictures


def shrunk(pictures: Tensor, size: Size, share: float) -> Tensor:
    """Return pictures (B, C, h, w) in the size that a stage was trained to enlarge.

    Args:
        pictures: those to start from.
        size: (height, width) that the stage draws.
        share: of this size that its smaller pictures have.
    """
    small = (round(size[0] * share), round(size[1] * share))
    return pictures if tuple(pictures.shape[-2:]) == small else resize(pictures, small)


def finished_pictures(drawn: Tensor, output_type: str, processor: VaeImageProcessor) -> Pictures:
    """Return drawn pictures (B, C, H, W), near [-1, 1], in the form that the caller wants.

    Args:
        drawn: the pictures.
        output_type: "pil", "np", "pt" or "latent".
        processor: Diffusers' converter.
    """
    if output_type == "pil":
        # One at a time: on its way to bytes a picture is held several times in float32.
        return [processor.postprocess(picture[None])[0] for picture in drawn]
    return processor.postprocess(drawn, output_type)


def _within_range(image: Any) -> Any:
    """Return a tensor or an array clamped to [0, 1], anything else as it is."""
    if not isinstance(image, np.ndarray | Tensor):
        return image
    pixels = torch.as_tensor(image)
    if not bool(pixels.isfinite().all()):
        raise ValueError("`image` holds values that are not finite; give pixels in [0, 1].")
    low, high = (float(pixels.min()), float(pixels.max())) if pixels.numel() else (0.0, 0.0)
    if low < -_TOLERANCE or high > 1 + _TOLERANCE:
        remedy = "pictures in [-1, 1] become so by (image / 2 + 0.5).clamp(0, 1)" if low < 0 else "divide by 255"
        raise ValueError(f"`image` holds values from {low:g} to {high:g}; give pixels in [0, 1]: {remedy}.")
    # Diffusers takes a picture with a single negative value for one in [-1, 1].
    return image.clip(0, 1)
