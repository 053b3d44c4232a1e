# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""Keep a predicted clean image inside the range of pixels (Imagen, arXiv:2205.11487, section 2.3).

Dynamic and static thresholding live here and nowhere else: the schedulers' own are never relied on. Called by the
sampling loop after guidance.
"""

import math
from typing import Literal

import torch
from torch import Tensor

ThresholdMode = Literal["dynamic", "static", "none"]


def threshold(
    x_0: Tensor, mode: ThresholdMode, percentile: float = 0.995, max_threshold: float | None = None
) -> Tensor:
    """Apply the chosen thresholding.

    Args:
        x_0: Predicted clean images (B, C, H, W).
        mode: "dynamic", "static" or "none".
        percentile: Passed to `dynamic_threshold`.
        max_threshold: Passed to `dynamic_threshold`.

    Returns:
        x_0 (B, C, H, W); within [-1, 1] unless `mode` is "none".

    Raises:
        ValueError: If `mode` is unknown, or `percentile` or `max_threshold` is out of range.
    """
    if mode == "dynamic":
        return dynamic_threshold(x_0, percentile, max_threshold)
    if mode == "static":
        return static_threshold(x_0)
    if mode == "none":
        return x_0
    raise ValueError(f"`mode` is {mode!r}; choose one of dynamic, static, none.")


def static_threshold(x_0: Tensor) -> Tensor:
    """Clip to [-1, 1]."""
    return x_0.clamp(-1, 1)


def dynamic_threshold(x_0: Tensor, percentile: float = 0.995, max_threshold: float | None = None) -> Tensor:
    """Clip each image to its own limit s and divide by s.

    s is the percentile of |x_0| over the image, at least 1: an image within [-1, 1] comes back bit by bit.

    Args:
        x_0: Predicted clean images (B, C, H, W).
        percentile: Share of the values that stay unclipped, in (0, 1]; between two values as `torch.quantile`.
        max_threshold: Upper limit of s, at least 1; None for no limit. With 1 this is static thresholding.

    Returns:
        x_0 within [-1, 1], (B, C, H, W), in the type of `x_0`.

    Raises:
        ValueError: If `percentile` or `max_threshold` is out of range.
    """
    if not 0 < percentile <= 1:
        raise ValueError(f"`percentile` is {percentile}; give a share above 0 and at most 1, such as 0.995.")
    if max_threshold is not None and not max_threshold >= 1:
        raise ValueError(f"`max_threshold` is {max_threshold}; give 1 or more, or None for no limit.")
    # One image at a time: at 1024 x 1024 pixels each is 12 MB.
    dtype = torch.promote_types(x_0.dtype, torch.float32)
    s = torch.stack([_percentile_or_one(image.flatten().abs().to(dtype), percentile) for image in x_0])
    s = s.clamp(1, max_threshold).to(x_0.dtype).reshape(-1, *(1,) * (x_0.ndim - 1))
    return x_0.clamp(-s, s).div_(s)


def _percentile_or_one(magnitude: Tensor, percentile: float) -> Tensor:
    """Give max(1, percentile of the values), looking only at the values above 1 where they decide it."""
    count = magnitude.numel()
    # torch.quantile places the percentile in the values' own precision; so do we, to give the same number.
    rank = min(float(magnitude.new_tensor(percentile) * (count - 1)), count - 1)
    from_top_lower, from_top_upper = count - math.floor(rank), count - math.ceil(rank)
    above_one = magnitude[magnitude > 1]
    if above_one.numel() < from_top_upper:
        return magnitude.new_ones(())
    # The lower neighbour may be the one value just below 1.
    candidates = above_one if above_one.numel() >= from_top_lower else magnitude
    largest = candidates.topk(from_top_lower).values
    lower, upper = largest[from_top_lower - 1], largest[from_top_upper - 1]
    return torch.lerp(lower, upper, rank - math.floor(rank))
