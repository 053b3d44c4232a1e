# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""Draw pictures again with a cascade's base, from part of the way to noise (SDEdit, arXiv:2108.01073).

They still show the same, with what the base gets wrong: an enlargement can learn from them. Called by `cli/redraw.py`.
"""

from collections.abc import Sequence
from typing import Any

import torch
from diffusers import DDPMScheduler
from torch import Tensor

from diffusers_imagen.pipelines.pipeline_imagen_cascade import ImagenCascadePipeline

_TIMESTEPS = 1000


def check_strength(strength: float, steps: int) -> None:
    """Refuse a noise level or a number of steps that cannot be.

    Raises:
        ValueError: naming the argument.
    """
    if not 0 < strength <= 1:
        raise ValueError(f"`strength` is {strength}; give a share above 0, for what is nearly kept, and up to 1.")
    if not 1 <= steps <= strength * _TIMESTEPS:
        raise ValueError(f"`steps` is {steps}; give 1 to {int(strength * _TIMESTEPS)} for a strength of {strength}.")


def redrawing_pipeline(pipe: ImagenCascadePipeline) -> ImagenCascadePipeline:
    """Return a pipeline of a cascade's base alone, with a scheduler that can begin anywhere between picture and noise.

    Args:
        pipe: the cascade, which keeps its own schedulers.
    """
    enlargements = dict.fromkeys(("sr_unet_1", "sr_scheduler_1", "sr_unet_2", "sr_scheduler_2"))
    scheduler = DDPMScheduler(beta_schedule="squaredcos_cap_v2", prediction_type="sample", clip_sample=False)
    settings = pipe.components | enlargements | {"scheduler": scheduler, "safety_checker": None, "watermarker": None}
    if settings.get("stages"):
        settings["stages"] = {"base": settings["stages"].get("base", {})}
    redrawing = ImagenCascadePipeline(**settings)
    redrawing.set_progress_bar_config(disable=True)
    return redrawing


@torch.no_grad()
def redraw(
    pipe: Any, pictures: Tensor, prompts: Sequence[str], strength: float, steps: int, seeds: Sequence[int]
) -> Tensor:
    """Draw pictures again, from part of the way to noise.

    Args:
        pipe: as `redrawing_pipeline` returns it.
        pictures: (B, C, H, W) in [-1, 1], of the base's size.
        prompts: what each shows.
        strength: how far they are noised, in (0, 1]; 1 leaves next to nothing of them.
        steps: sampling steps.
        seeds: one for each picture, which then does not depend on the others.

    Returns:
        Pictures (B, C, H, W) in [-1, 1].

    Raises:
        ValueError: a strength or a number of steps that cannot be.
    """
    check_strength(strength, steps)
    first = round(strength * _TIMESTEPS)
    timesteps = [round(first * (1 - index / steps)) - 1 for index in range(steps)]
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    noise = torch.stack([torch.randn(pictures.shape[1:], generator=generator) for generator in generators])
    # Where sampling starts at the first of these timesteps, what it takes for its noise is the noised picture.
    kept = pipe.scheduler.alphas_cumprod[timesteps[0]]
    noised = kept.sqrt() * pictures + (1 - kept).sqrt() * noise
    drawn: Tensor = pipe(
        list(prompts),
        latents=noised.to(pipe.device),
        timesteps={"base": timesteps},
        height=pictures.shape[-2],
        width=pictures.shape[-1],
        generator=generators,
        output_type="latent",
    ).images
    return drawn.clamp(-1, 1)
