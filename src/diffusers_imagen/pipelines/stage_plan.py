# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""All that is settled about a stage before the first one runs, and what it starts from. Called by the pipeline."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from diffusers.utils.torch_utils import randn_tensor
from torch import Tensor

from diffusers_imagen.diffusion.resize import resize
from diffusers_imagen.models.stage_model import StageModel, stage_model_for, stage_shape
from diffusers_imagen.pipelines.call_checks import Size
from diffusers_imagen.pipelines.denoise_stage import Generator, StageCondition
from diffusers_imagen.pipelines.stage_settings import StageSettings, is_number
from diffusers_imagen.schedulers.bridge import bridge_for
from diffusers_imagen.schedulers.family import SchedulerBridge
from diffusers_imagen.text.encoding import TextEmbeddings

# The pipeline's components that make a stage: its U-Net and its scheduler.
STAGE_COMPONENTS = {
    "base": ("unet", "scheduler"),
    "sr_1": ("sr_unet_1", "sr_scheduler_1"),
    "sr_2": ("sr_unet_2", "sr_scheduler_2"),
}


@dataclass(frozen=True)
class StagePlan:
    """One stage of a call: its U-Net, its scheduler, its settings, the size of its pictures, and its custom steps.

    `starts_from_noise` is False where the caller gives what sampling starts from, which may then be a noised picture.
    """

    name: str
    model: StageModel
    bridge: SchedulerBridge
    settings: StageSettings
    size: Size
    schedule: Mapping[str, Any]
    starts_from_noise: bool = True

    def set_timesteps(self, device: torch.device) -> Tensor:
        """Lay out the scheduler's steps anew and return them."""
        try:
            timesteps = self.bridge.set_timesteps(device=device, **self.schedule)
            if self.starts_from_noise and not _is_mostly_noise(self.bridge.noise_level(timesteps[0])):
                raise ValueError("they begin where there is more picture than noise, but it starts from noise.")
            return timesteps
        except ValueError as error:
            raise ValueError(
                f"The steps of {self.name!r} ({', '.join(key for key, value in self.schedule.items() if value is not None)}) do not suit its scheduler: {error} Change them, or "
                "give the stage another scheduler."
            ) from error

    def shape(self, batch_size: int) -> tuple[int, int, int, int]:
        """Return (B, C, H, W) of the pictures."""
        return (batch_size, self.model.shape.channels, *self.size)

    def noise_drawn_first(
        self, batch_size: int, latents: Tensor | None, generator: Generator, device: torch.device
    ) -> Tensor | None:
        """Return `latents`, drawn before the smaller picture's noise where the U-Net's own pipeline has that order."""
        if latents is not None or not self.model.draws_start_first:
            return latents
        return randn_tensor(self.shape(batch_size), generator, device=device, dtype=torch.float32)

    def starting_noise(
        self, batch_size: int, latents: Tensor | None, generator: Generator, device: torch.device
    ) -> Tensor:
        """Return noise in the scheduler's space, from `latents` or drawn; after `set_timesteps`."""
        if latents is None:
            latents = randn_tensor(self.shape(batch_size), generator, device=device, dtype=torch.float32)
        return latents.to(device, torch.float32) * self.bridge.init_noise_sigma

    def condition(
        self, text: TextEmbeddings, negative: TextEmbeddings, small: Tensor | None, generator: Generator
    ) -> StageCondition:
        """Return the text and, for an enlargement, the smaller picture, resized and noised (Imagen, section 2.5)."""
        low_res, level, color = None, None, None
        if small is not None:
            level = torch.full((small.shape[0],), float(self.settings.noise_level), device=small.device)
            # The noise of the whole batch first, then each picture in its noise's place: all that is large is held once.
            shape = (*small.shape[:2], *self.size)
            low_res = randn_tensor(shape, generator, device=small.device, dtype=small.dtype)
            for row in range(small.shape[0]):
                one = slice(row, row + 1)
                enlarged = resize(small[one], self.size, self.settings.resize)
                low_res[one] = self.model.noise_low_res(enlarged, level[one], low_res[one])
            if self.settings.keep_color:
                color = small.float().mean(dim=(-2, -1), keepdim=True)
        return StageCondition(
            text.hidden_states, text.mask, negative.hidden_states, negative.mask, low_res, level, color
        )


def _is_mostly_noise(level: tuple[float, float]) -> bool:
    alpha, sigma = level
    return sigma > alpha


def check_unets(unets: Mapping[str, Any]) -> tuple[int, int]:
    """Refuse U-Nets that make no cascade, whichever of its stages run.

    Args:
        unets: the cascade's U-Nets by stage.

    Returns:
        (tokens, width): the longest text that all of them take, and the width of its states.

    Raises:
        ValueError: a base that is missing, a U-Net of an unknown family, or U-Nets that do not fit.
    """
    if "base" not in unets:
        raise ValueError("`unet` is None, and without a base there is no cascade; give an ImagenUNet2DConditionModel.")
    shapes = {}
    for stage, unet in unets.items():
        shape = stage_shape(unet)
        if shape.enlarges != (stage != "base"):
            kind = "an enlargement" if shape.enlarges else "a base"
            component = "unet" if stage == "base" else stage.replace("sr_", "sr_unet_")
            raise ValueError(f"`{component}` is the U-Net of {kind}; give each stage the one that was trained for it.")
        shapes[stage] = (shape.text_length, shape.text_width)
    widths = {stage: width for stage, (_, width) in shapes.items()}
    if len(set(widths.values())) > 1:
        raise ValueError(
            f"The U-Nets take texts of different widths, {widths}; give U-Nets that were trained together."
        )
    return min(tokens for tokens, _ in shapes.values()), widths["base"]


def plan_stage(
    name: str, unet: Any, scheduler: Any, settings: StageSettings, size: Size, schedule: Mapping[str, Any]
) -> StagePlan:
    """Settle a stage, and refuse it if it cannot run.

    Args:
        name: "base", "sr_1" or "sr_2".
        unet: its U-Net.
        scheduler: its Diffusers scheduler.
        settings: its settings in this call.
        size: (height, width) of its pictures.
        schedule: `timesteps` or `sigmas` of this call, or neither.

    Raises:
        ValueError: a missing or unsupported part, or a combination that cannot work.
    """
    component = "scheduler" if name == "base" else name.replace("sr_", "sr_scheduler_")
    if scheduler is None:
        raise ValueError(f"`{component}` is None, but the stage {name!r} runs; give it a Diffusers scheduler.")
    model = stage_model_for(unet, settings.noise)
    try:
        bridge = bridge_for(scheduler)
    except ValueError as error:
        raise ValueError(f"`{component}` cannot drive the stage {name!r}: {error}") from error
    if bridge.needs_variance and not model.predicts_variance:
        raise ValueError(
            f"The scheduler of {name!r} ({type(scheduler).__name__}) wants a learned variance, which its U-Net does not "
            'predict; make it with variance_type="fixed_small".'
        )
    if bridge.clips_x_0 and settings.thresholding == "none":
        raise ValueError(
            f"`thresholding` is 'none' for {name!r}, but its scheduler ({type(scheduler).__name__}) clips pictures "
            "itself; make it with clip_sample=False and thresholding=False."
        )
    schedule = {key: values.tolist() if hasattr(values, "tolist") else values for key, values in schedule.items()}
    for key, values in schedule.items():
        if not isinstance(values, list | tuple) or not all(is_number(value) for value in values):
            raise ValueError(f"`{key}` is {values!r} for {name!r}; give a list of numbers.")
    steps = None if schedule else settings.num_inference_steps
    schedule = {**schedule, "num_inference_steps": steps}
    return StagePlan(name, model, bridge, settings, size, schedule)


def plan_stages(
    names: Sequence[str],
    unets: Mapping[str, Any],
    schedulers: Mapping[str, Any],
    settings: Mapping[str, StageSettings],
    sizes: Mapping[str, Size],
    schedules: Mapping[str, Mapping[str, Any]],
) -> list[StagePlan]:
    """Settle the stages that run.

    Args:
        names: the stages, in order.
        unets: the U-Nets by stage.
        schedulers: the schedulers by stage.
        settings: the settings by stage.
        sizes: (height, width) by stage.
        schedules: `timesteps` and `sigmas` of this call, each by stage.

    Raises:
        ValueError: as `plan_stage`.
    """
    plans = []
    for name in names:
        custom = {key: by_stage[name] for key, by_stage in schedules.items() if name in by_stage}
        plans.append(plan_stage(name, unets[name], schedulers[name], settings[name], sizes[name], custom))
    return plans
