# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""Resize images in [-1, 1] as tensors, the same way in training, sampling and evaluation.

Files and PIL images are the concern of the layers above, which all call this one function.
"""

from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

ResizeMode = Literal["bicubic", "bilinear", "bilinear_align_corners", "nearest"]


def resize(image: Tensor, size: tuple[int, int], mode: ResizeMode = "bicubic") -> Tensor:
    """Resize images, smaller ones without aliasing.

    "bicubic" and "bilinear" widen their filter when they shrink, as Pillow does. "bilinear_align_corners" is what
    DeepFloyd IF's enlargement stages were trained with, "nearest" imagen-pytorch's; these do not widen.

    Args:
        image: Images (B, C, H, W), any floating type.
        size: Height and width of the result in pixels.
        mode: The filter.

    Returns:
        Images (B, C, height, width) in the type of `image`; clamped to [-1, 1] for "bicubic", which overshoots.

    Raises:
        ValueError: If `mode` is unknown.
    """
    # Half precision goes through float32: CPUs lack the filters in it, and its weights would not sum to one.
    precise = image.to(torch.promote_types(image.dtype, torch.float32))
    if mode == "bicubic":
        resized = F.interpolate(precise, size, mode="bicubic", align_corners=False, antialias=True).clamp(-1, 1)
    elif mode == "bilinear":
        resized = F.interpolate(precise, size, mode="bilinear", align_corners=False, antialias=True)
    elif mode == "bilinear_align_corners":
        resized = F.interpolate(precise, size, mode="bilinear", align_corners=True)
    elif mode == "nearest":
        resized = F.interpolate(precise, size, mode="nearest")
    else:
        raise ValueError(f"`mode` is {mode!r}; choose one of {', '.join(get_args(ResizeMode))}.")
    return resized.to(image.dtype)
