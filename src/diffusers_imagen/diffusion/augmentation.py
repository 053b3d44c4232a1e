# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""Add noise to the low-resolution image that an enlargement stage is conditioned on (arXiv:2106.15282).

The level is a number in [0, 1] that the stage's U-Net is told. Called by the sampling loop and the objective.
"""

import math

from torch import Tensor

from diffusers_imagen.diffusion.noise import add_noise


def noise_low_res(low_res: Tensor, noise_level: Tensor, noise: Tensor) -> Tensor:
    """Noise low-resolution images by a level on the cosine schedule.

    Args:
        low_res: Resized low-resolution images in [-1, 1], (B, C, H, W).
        noise_level: Level of each image in [0, 1], (B,): 0 leaves the image, 1 leaves only noise.
        noise: Standard normal noise (B, C, H, W).

    Returns:
        cos(pi/2 level) * low_res + sin(pi/2 level) * noise, (B, C, H, W), in the type of `low_res`.
    """
    angle = noise_level * (math.pi / 2)
    return add_noise(low_res, noise, angle.cos(), angle.sin()).to(low_res.dtype)
