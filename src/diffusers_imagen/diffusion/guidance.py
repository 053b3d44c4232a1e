# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""Combine the predictions with and without text: classifier-free guidance on x_0.

Guidance is affine with weights that sum to one, so on x_0 it is the same as on eps, v or flow at the same x_t.
Thresholding, which follows it, is in `thresholding.py`. Called by the sampling loop.
"""

import torch
from torch import Tensor

from diffusers_imagen.diffusion.noise import per_sample


def guide(x_0_cond: Tensor, x_0_uncond: Tensor, guidance_scale: float | Tensor, rescale: float = 0.0) -> Tensor:
    """Move the prediction away from the unconditional one (arXiv:2207.12598, equation 6).

    Args:
        x_0_cond: Clean images predicted with the text (B, C, H, W).
        x_0_uncond: Clean images predicted without it (B, C, H, W).
        guidance_scale: Imagen's w, one number or (B,): 0 gives `x_0_uncond`, 1 gives `x_0_cond`, both bit by bit.
        rescale: Share in [0, 1] of the result that is brought back to the spread of `x_0_cond`
            (arXiv:2305.08891, equations 15 and 16); 0 does nothing.

    Returns:
        Guided x_0 (B, C, H, W).
    """
    if isinstance(guidance_scale, Tensor):
        guided = torch.lerp(x_0_uncond, x_0_cond, per_sample(guidance_scale.to(x_0_cond), x_0_cond))
    elif guidance_scale == 1:
        guided = x_0_cond
    else:
        # In the order of Diffusers' own pipelines, so that the same model gives the same picture to the bit.
        guided = (x_0_cond - x_0_uncond).mul_(guidance_scale).add_(x_0_uncond)
    if rescale == 0.0:
        return guided
    axes = tuple(range(1, guided.ndim))
    spread = x_0_cond.std(axes, keepdim=True) / guided.std(axes, keepdim=True)
    return torch.lerp(guided, guided * spread, rescale)


def in_interval(step_index: int, num_steps: int, interval: tuple[float, float]) -> bool:
    """Say whether guidance acts at this step (arXiv:2404.07724).

    Args:
        step_index: The step, counted from 0.
        num_steps: How many steps there are.
        interval: First and last fraction of the steps, as `start` and `stop` of Diffusers' guiders.

    Returns:
        True from step int(start * num_steps) on, before step int(stop * num_steps).
    """
    start, stop = interval
    return int(start * num_steps) <= step_index < int(stop * num_steps)
