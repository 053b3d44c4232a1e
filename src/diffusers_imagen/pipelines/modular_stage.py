# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""What a modular block does to draw a stage: it settles the stage as the pipeline does, and has it drawn.

Called by `modular_blocks.py`.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from diffusers.image_processor import VaeImageProcessor
from torch import Tensor

from diffusers_imagen.models.stage_model import stage_shape
from diffusers_imagen.pipelines.call_checks import Size, check_batch, check_embeds, stage_sizes
from diffusers_imagen.pipelines.denoise_stage import StepControl
from diffusers_imagen.pipelines.guider_plan import check_guided_steps, stage_guiders
from diffusers_imagen.pipelines.pictures import given_pictures, shrunk
from diffusers_imagen.pipelines.stage_drawing import draw_stage
from diffusers_imagen.pipelines.stage_plan import STAGE_COMPONENTS, StagePlan, plan_stage
from diffusers_imagen.pipelines.stage_settings import (
    STAGES,
    for_every_stage,
    override_settings,
    per_stage,
    saved_settings,
)
from diffusers_imagen.pipelines.text_batches import given_text, null_text_like, padded_alike
from diffusers_imagen.pipelines.weights import align_weights

_SETTINGS = (
    "num_inference_steps",
    "guidance_scale",
    "guidance_rescale",
    "guidance_interval",
    "thresholding",
    "noise_level",
    "max_batch_size",
)
STAGE_INPUTS = (*_SETTINGS, "timesteps", "sigmas", "guider", "height", "width", "generator", "latents")


def draw_modular_stage(components: Any, stage: str, given: Mapping[str, Any], device: torch.device) -> Tensor:
    """Draw the pictures of a stage.

    Args:
        components: the modular pipeline, with the U-Nets that it has as attributes.
        stage: "base", "sr_1" or "sr_2".
        given: the block's inputs by name.
        device: where to draw.

    Returns:
        Pictures (B, C, H, W), near [-1, 1].

    Raises:
        ValueError: inputs that `ImagenCascadePipeline` refuses too, or no smaller pictures for an enlargement.
    """
    unets = _unets(components)
    if stage not in unets:
        raise ValueError(f"`{STAGE_COMPONENTS[stage][0]}` is None, but the stage {stage!r} runs; give it its U-Net.")
    small = _small_pictures(stage, given, stage_shape(unets[stage]).channels)
    size = _size(stage, unets, small, given)
    plan, guider = _plan(components, stage, unets, size, given)
    text_shape = (stage_shape(unets[stage]).text_length, stage_shape(unets[stage]).text_width)
    for name in ("prompt_embeds", "negative_prompt_embeds"):
        check_embeds(name, given[name], given[name.replace("embeds", "attention_mask")], text_shape)
    text = given_text(given["prompt_embeds"], given["prompt_attention_mask"])
    negative = null_text_like(text)
    if given["negative_prompt_embeds"] is not None:
        negative = given_text(given["negative_prompt_embeds"], given["negative_prompt_attention_mask"])
    text, negative = padded_alike(text, negative)
    batch_size = text.mask.shape[0]
    latents = given["latents"] if stage == "base" or given["pictures"] is None else None
    check_batch(batch_size, given["generator"], latents, plan.shape(batch_size))
    if small is not None:
        small = _beside(small, batch_size, plan, _before(stage, unets)).to(device)
    if device.type == "cpu":
        align_weights(unets[stage])
    scale = plan.settings.guidance_scale if guider is None else guider.scale
    control = StepControl(lambda: scale, lambda index, timestep, sample: sample, lambda: False, keeps_samples=False)
    return draw_stage(plan, text, negative, small, control, device, latents, given["generator"], guider)


def _unets(components: Any) -> dict[str, Any]:
    found = {stage: getattr(components, names[0], None) for stage, names in STAGE_COMPONENTS.items()}
    return {stage: unet for stage, unet in found.items() if unet is not None}


def _plan(
    components: Any, stage: str, unets: Mapping[str, Any], size: Size, given: Mapping[str, Any]
) -> tuple[StagePlan, Any]:
    """Settle the stage from what is saved and what is given."""
    names = list(unets)
    arguments = {name: _named(given[name], names) for name in _SETTINGS}
    arguments["max_batch_size"] = for_every_stage(given["max_batch_size"], names)
    settings = override_settings(saved_settings(components.config.stages), arguments, names)
    guiders = stage_guiders(_named(given["guider"], names), None, arguments, unets, {stage: size})
    steps = {name: per_stage(name, _named(given[name], names), names) for name in ("timesteps", "sigmas")}
    schedule = {name: values[stage] for name, values in steps.items() if stage in values}
    scheduler = getattr(components, STAGE_COMPONENTS[stage][1])
    plan = plan_stage(stage, unets[stage], scheduler, settings[stage], size, schedule)
    plan = replace(plan, starts_from_noise=given["latents"] is None)
    if stage in guiders:
        check_guided_steps(guiders, {stage: len(plan.set_timesteps(torch.device("cpu")))})
    return plan, guiders.get(stage)


def _named(argument: Any, stages: list[str]) -> Any:
    """Return a single value as that of the stage, where there is only one; else it is the base's."""
    if len(stages) == 1 and argument is not None and not isinstance(argument, Mapping):
        return {stages[0]: argument}
    return argument


def _small_pictures(stage: str, given: Mapping[str, Any], channels: int) -> Tensor | None:
    if stage == "base":
        return None
    pictures, image = given["pictures"], given["image"]
    if (pictures is None) == (image is None):
        what = "both missing" if image is None else "both given"
        raise ValueError(
            f"`pictures` and `image` are {what} for {stage!r}; run the stage before, or leave it out and give `image`."
        )
    if image is not None:
        return given_pictures(image, VaeImageProcessor(vae_scale_factor=1, do_convert_rgb=True), channels)
    small: Tensor = pictures
    if not isinstance(small, Tensor) or small.ndim != 4 or small.shape[1] != channels:
        shape = tuple(small.shape) if isinstance(small, Tensor) else type(small).__name__
        raise ValueError(f"`pictures` is {shape}; give a tensor (batch, {channels}, height, width) in [-1, 1].")
    return small


def _before(stage: str, unets: Mapping[str, Any]) -> float | None:
    """Return the side of the pictures that the stage before draws, where its U-Net is there, as a share of this one's."""
    before = STAGES[STAGES.index(stage) - 1] if stage != "base" else stage
    return unets[before].config.sample_size / unets[stage].config.sample_size if before in unets else None


def _size(stage: str, unets: Mapping[str, Any], small: Tensor | None, given: Mapping[str, Any]) -> Size:
    """Return (height, width) of the stage's pictures, of which `height` and `width` of the last stage are multiples."""
    running = [name for name in STAGES[STAGES.index(stage) :] if name in unets]
    sides = {name: unets[name].config.sample_size for name in running}
    multiples = {name: unets[name].size_multiple for name in running}
    default = (sides[running[-1]], sides[running[-1]])
    if small is not None:
        share = _before(stage, unets) or max(small.shape[-2:]) / sides[stage]
        height, width = (round(side * sides[running[-1]] / sides[stage] / share) for side in small.shape[-2:])
        default = (height, width)
    return stage_sizes(running, sides, multiples, given["height"], given["width"], default)[stage]


def _beside(small: Tensor, batch_size: int, plan: StagePlan, share: float | None) -> Tensor:
    """Return the smaller pictures, one for each that is drawn, in the size that the stage was trained to enlarge."""
    if batch_size % small.shape[0]:
        raise ValueError(
            f"There are {small.shape[0]} pictures to enlarge for {batch_size} texts; give one or as many."
        )
    if share is not None:
        small = shrunk(small, plan.size, share)
    return small.repeat_interleave(batch_size // small.shape[0], dim=0)
