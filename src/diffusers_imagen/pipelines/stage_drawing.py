# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""One stage from its text and the smaller picture to its pictures, by the one sampling loop.

Noise is drawn in one order everywhere, so that a seed means a picture. Called by the pipeline and by its modular blocks.
"""

import torch
from torch import Tensor

from diffusers_imagen.pipelines.denoise_stage import Generator, StepControl, denoise_stage
from diffusers_imagen.pipelines.guider_run import StageGuider
from diffusers_imagen.pipelines.stage_plan import StagePlan
from diffusers_imagen.text.encoding import TextEmbeddings


def draw_stage(
    plan: StagePlan,
    text: TextEmbeddings,
    negative: TextEmbeddings,
    small: Tensor | None,
    control: StepControl,
    device: torch.device,
    latents: Tensor | None = None,
    generator: Generator = None,
    guider: StageGuider | None = None,
) -> Tensor:
    """Draw the pictures of a stage.

    Args:
        plan: the stage, settled.
        text: what to draw, for B pictures.
        negative: what guidance moves away from.
        small: (B, C, h, w) in [-1, 1], the pictures to enlarge; `None` for a base.
        control: the caller's hooks.
        device: where to draw.
        latents: (B, C, H, W) standard normal noise to start from; `None` draws it.
        generator: source of all noise.
        guider: guides in place of the settings, or `None`.

    Returns:
        Pictures (B, C, H, W), near [-1, 1], in float32.

    Raises:
        FloatingPointError: pictures with values that are not finite.
    """
    batch_size = text.mask.shape[0]
    first = plan.noise_drawn_first(batch_size, latents, generator, device)
    condition = plan.condition(text, negative, small, generator)
    steps = plan.set_timesteps(device)
    # The noise gets no name here: it would be held until the last step.
    pictures = denoise_stage(
        plan.model,
        plan.bridge,
        steps,
        plan.starting_noise(batch_size, first, generator, device),
        condition,
        plan.settings,
        control,
        generator,
        guider,
    )
    _check_finite(plan, pictures)
    return pictures


def _check_finite(plan: StagePlan, pictures: Tensor) -> None:
    """Refuse what would become black pictures, of which the next stage would make more."""
    # Once a stage, not at every step, where an accelerator would have to wait for the answer.
    finite = pictures.isfinite().flatten(1).all(1)
    if not bool(finite.all()):
        raise FloatingPointError(
            f"The stage {plan.name!r} drew {int((~finite).sum())} of {len(finite)} pictures with values that are not finite. "
            "Look for them in its weights and adapters (float16 holds nothing above 65504: try bfloat16), in what the "
            "guider returns, and in what `callback_on_step_end` returns."
        )
