# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""Keep a picture's mean colour. Called by the sampling loop for enlargements."""

from torch import Tensor

# Newton steps; the mean of a clipped picture is piecewise linear in the shift.
_ROUNDS = 4


def with_mean_color(x_0: Tensor, color: Tensor) -> Tensor:
    """Shift each channel of predicted clean pictures to a given mean, within [-1, 1].

    Thresholding cuts off errors on one side wherever a picture is white or black, so that an enlargement drifts from the
    colours of the picture that it enlarges.

    Args:
        x_0: Pictures (B, C, H, W), near [-1, 1].
        color: Mean of each channel, (B, C, 1, 1), in [-1, 1].

    Returns:
        Pictures (B, C, H, W) within [-1, 1].
    """
    shift = color - x_0.clamp(-1, 1).mean(dim=(-2, -1), keepdim=True)
    for _ in range(_ROUNDS):
        shifted = x_0 + shift
        missing = color - shifted.clamp(-1, 1).mean(dim=(-2, -1), keepdim=True)
        moving = (shifted.abs() < 1).to(x_0.dtype).mean(dim=(-2, -1), keepdim=True)
        shift = (shift + missing / moving.clamp(min=0.01)).clamp(-2, 2)
    return (x_0 + shift).clamp(-1, 1)
