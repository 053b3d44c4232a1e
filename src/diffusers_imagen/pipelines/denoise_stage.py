# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""The one sampling loop: from noise to pictures with any scheduler, for every stage.

Its common currency is the predicted clean picture x_0. Here, and nowhere else, Diffusers' names (sample, timestep)
and the paper's (x_t, x_0, alpha, sigma) meet.
"""

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from diffusers_imagen.diffusion.color import with_mean_color
from diffusers_imagen.diffusion.guidance import guide, in_interval
from diffusers_imagen.diffusion.prediction import to_x_0
from diffusers_imagen.diffusion.thresholding import threshold
from diffusers_imagen.models.stage_model import Prediction, StageModel
from diffusers_imagen.pipelines.guider_run import GuiderRun, StageGuider, Wanted
from diffusers_imagen.pipelines.stage_settings import StageSettings
from diffusers_imagen.schedulers.bridge import SchedulerBridge

Generator = torch.Generator | list[torch.Generator] | None


@dataclass(frozen=True)
class StageCondition:
    """What a stage's pictures are conditioned on, for B pictures.

    Args:
        text: (B, L, D) text encoder states.
        text_mask: (B, L) bool.
        negative_text: (B, L, D), what guidance moves away from.
        negative_mask: (B, L) bool; all False for the learned null text.
        low_res: (B, C, H, W), resized and noised, for enlargements.
        noise_level: (B,), the noise of `low_res`.
        color: (B, C, 1, 1), mean of each channel that the pictures are to have; `None` for any.
    """

    text: Tensor
    text_mask: Tensor
    negative_text: Tensor
    negative_mask: Tensor
    low_res: Tensor | None = None
    noise_level: Tensor | None = None
    color: Tensor | None = None

    @cached_property
    def both_texts(self) -> tuple[Tensor, Tensor]:
        """States (2B, L, D) and mask (2B, L) of the text, then of the negative one: the same tensors at every step."""
        states = torch.cat([self.text, self.negative_text])
        return states, torch.cat([self.text_mask, self.negative_mask])

    def split(self, size: int | None) -> list["StageCondition"]:
        """Return the conditions of parts of at most `size` pictures, as equal as can be; `None` for all in one."""
        batch_size = len(self.text)
        if size is None or size >= batch_size:
            return [self]
        size = math.ceil(batch_size / math.ceil(batch_size / size))
        values: dict[str, Any] = {field.name: getattr(self, field.name) for field in fields(self)}
        given = {name: value for name, value in values.items() if value is not None}
        return [
            StageCondition(**{name: value[start : start + size] for name, value in given.items()})
            for start in range(0, batch_size, size)
        ]


@dataclass
class _Part:
    """Pictures that go through the U-Net together: their place in the batch, a scheduler and a guider of their own."""

    rows: slice
    model: StageModel
    condition: StageCondition
    bridge: SchedulerBridge
    generators: list[torch.Generator] | None
    guider: GuiderRun | None = None


@dataclass(frozen=True)
class StepControl:
    """How the caller follows and steers a run.

    Args:
        guidance_scale: read anew at every step.
        on_step_end: gets the step's index, its timestep and the sample, and returns the sample to go on with.
        interrupted: whether the remaining steps are to be skipped.
        keeps_samples: whether `on_step_end` may hold on to a sample, which is then not written over.
    """

    guidance_scale: Callable[[], float]
    on_step_end: Callable[[int, Tensor, Tensor], Tensor]
    interrupted: Callable[[], bool]
    keeps_samples: bool = True


def denoise_stage(
    model: StageModel,
    bridge: SchedulerBridge,
    timesteps: Tensor,
    sample: Tensor,
    condition: StageCondition,
    settings: StageSettings,
    control: StepControl,
    generator: Generator = None,
    guider: StageGuider | None = None,
) -> Tensor:
    """Draw the pictures of one stage.

    With `settings.max_batch_size` the batch is split, and every part takes a step before any takes the next one: the
    hooks see the whole batch after each step and noise is drawn in the same order, whatever the size of the parts.

    Args:
        model: the stage's U-Net.
        bridge: the stage's scheduler, its timesteps set.
        timesteps: what `bridge.set_timesteps` returned.
        sample: (B, C, H, W) float32 noise in the scheduler's own space.
        condition: text and smaller picture.
        settings: guidance and thresholding.
        control: the caller's hooks.
        generator: source of the noise that stochastic schedulers add, one for all pictures or one for each.
        guider: a Diffusers guider, which guides in place of the settings and `control.guidance_scale`.

    Returns:
        Pictures (B, C, H, W), near [-1, 1], in float32.
    """
    parts = _split(model, bridge, condition, generator, settings.max_batch_size, guider)
    for index, timestep in enumerate(timesteps):
        if control.interrupted():
            break
        guidance_scale = control.guidance_scale()
        if not in_interval(index, len(timesteps), settings.guidance_interval):
            guidance_scale = 1.0
        for part in parts:
            if part.guider is not None:
                part.guider.begin_step(index, len(timesteps), timestep)
        if len(parts) == 1:
            sample = _step(parts[0], timestep, sample, guidance_scale, settings)
        else:
            following = torch.empty_like(sample) if control.keeps_samples else sample
            for part in parts:
                following[part.rows] = _step(part, timestep, sample[part.rows], guidance_scale, settings)
            sample = following
        sample = control.on_step_end(index, timestep, sample)
    return sample


def predict_x_0(
    model: StageModel,
    sample: Tensor,
    alpha: float,
    sigma: float,
    condition: StageCondition,
    guidance: float | GuiderRun,
    settings: StageSettings,
) -> tuple[Tensor, Tensor | None]:
    """Predict the guided, thresholded clean pictures and the learned variance, if there is one.

    Args:
        model: the stage's U-Net.
        sample: (B, C, H, W), alpha * x_0 + sigma * eps.
        alpha: scale of the clean picture in `sample`, 0 or more.
        sigma: scale of the noise in `sample`, 0 or more.
        condition: text and smaller picture.
        guidance: a scale, 1 for none, or a guider that has begun this step.
        settings: rescaling and thresholding.
    """
    x_0, variance = _guided(model, sample, alpha, sigma, condition, guidance, settings.guidance_rescale)
    x_0 = threshold(x_0, settings.thresholding, settings.threshold_percentile, settings.threshold_max)
    if condition.color is not None:
        x_0 = with_mean_color(x_0, condition.color)
    return x_0, variance


def _guided(
    model: StageModel,
    sample: Tensor,
    alpha: float,
    sigma: float,
    condition: StageCondition,
    guidance: float | GuiderRun,
    rescale: float,
) -> tuple[Tensor, Tensor | None]:
    """Predict as `predict_x_0`, before thresholding; what it holds of the batch ends here."""
    log_snr = torch.tensor(_log_snr(alpha, sigma), dtype=torch.float32, device=sample.device).expand(sample.shape[0])
    # Only the noisy picture is scaled: the smaller picture is a condition, not the diffused variable. Scaled along
    # with it, it would vanish under the schedulers whose noise is as large as sigma.
    x_t = sample / math.hypot(alpha, sigma)
    if isinstance(guidance, GuiderRun):
        return _guided_by(guidance, model, x_t, log_snr, condition)
    if guidance == 1.0:
        prediction = _predict(model, x_t, log_snr, condition)
        return _x_0(model, prediction.value, x_t, log_snr), prediction.variance
    prediction, negative = _predict_both(model, x_t, log_snr, condition)
    if rescale == 0.0:
        # The same as on x_0, with one conversion less, and to the bit what other pipelines do with the same model.
        guided = guide(prediction.value, negative.value, guidance)
        return _x_0(model, guided, x_t, log_snr), prediction.variance
    x_0, negative_x_0 = (_x_0(model, one.value, x_t, log_snr) for one in (prediction, negative))
    return guide(x_0, negative_x_0, guidance, rescale), prediction.variance


def _guided_by(
    guider: GuiderRun, model: StageModel, x_t: Tensor, log_snr: Tensor, condition: StageCondition
) -> tuple[Tensor, Tensor | None]:
    """Predict what a guider wants, the texts of one U-Net in a single forward pass, and have it guide."""
    predicted: dict[Wanted, Prediction] = {}
    if Wanted(negative=True) in guider.wanted:
        both = _predict_both(model, x_t, log_snr, condition)
        predicted = {Wanted(): both[0], Wanted(negative=True): both[1]}
    x_0s = []
    for wanted in guider.wanted:
        source = guider.worse if wanted.worse and guider.worse is not None else model
        if wanted not in predicted:
            predicted[wanted] = _predict(source, x_t, log_snr, condition, wanted.negative)
        x_0s.append(_x_0(source, predicted[wanted].value, x_t, log_snr))
    level = model.noise_process.schedule.alpha_sigma(_trained(model, log_snr))
    return guider.guide(x_0s, x_t, *level), predicted[guider.wanted[0]].variance


def _split(
    model: StageModel,
    bridge: SchedulerBridge,
    condition: StageCondition,
    generator: Generator,
    size: int | None,
    guider: StageGuider | None,
) -> list["_Part"]:
    """Return the parts of the batch; the first keeps the scheduler itself, before whose first step copies are equal."""
    conditions = condition.split(size)
    if not isinstance(generator, list) and generator is not None:
        # A scheduler's noise is then drawn picture by picture, and does not depend on where the batch is split.
        generator = [generator] * len(condition.text)
    parts, start = [], 0
    for number, own in enumerate(conditions):
        rows = slice(start, start + len(own.text))
        generators = None if generator is None else generator[rows]
        run = None if guider is None else GuiderRun(guider)
        parts.append(_Part(rows, model, own, copy.deepcopy(bridge) if number else bridge, generators, run))
        start = rows.stop
    return parts


def _step(part: "_Part", timestep: Tensor, sample: Tensor, guidance_scale: float, settings: StageSettings) -> Tensor:
    """Go one step with the pictures of a part."""
    alpha, sigma = part.bridge.noise_level(timestep)
    guidance = guidance_scale if part.guider is None else part.guider
    x_0, variance = predict_x_0(part.model, sample, alpha, sigma, part.condition, guidance, settings)
    part.model = part.model.after(x_0)
    if part.guider is not None and part.guider.worse is not None:
        part.guider.worse = part.guider.worse.after(x_0)
    return part.bridge.step(x_0, timestep, sample, variance=variance, generator=part.generators)


def _log_snr(alpha: float, sigma: float) -> float:
    if alpha == 0:
        return -math.inf
    return math.inf if sigma == 0 else 2 * math.log(alpha / sigma)


def _trained(model: StageModel, log_snr: Tensor) -> Tensor:
    return model.noise_process.schedule.clamp(log_snr)


def _predict(
    model: StageModel, x_t: Tensor, log_snr: Tensor, condition: StageCondition, negative: bool = False
) -> Prediction:
    """Predict with the text or with the negative one."""
    texts = (condition.text, condition.text_mask)
    if negative:
        texts = (condition.negative_text, condition.negative_mask)
    return model.predict(x_t, _trained(model, log_snr), *texts, condition.low_res, condition.noise_level)


def _predict_both(
    model: StageModel, x_t: Tensor, log_snr: Tensor, condition: StageCondition
) -> tuple[Prediction, Prediction]:
    """Predict with the text and with the negative one in a single forward pass."""
    text, text_mask = condition.both_texts
    output = model.predict(
        _twice(x_t),
        _twice(_trained(model, log_snr)),
        text,
        text_mask,
        None if condition.low_res is None else _twice(condition.low_res),
        None if condition.noise_level is None else _twice(condition.noise_level),
    )
    values = output.value.chunk(2)
    variances = (None, None) if output.variance is None else output.variance.chunk(2)
    return Prediction(values[0], variances[0]), Prediction(values[1], variances[1])


def _x_0(model: StageModel, prediction: Tensor, x_t: Tensor, log_snr: Tensor) -> Tensor:
    process = model.noise_process
    level = process.schedule.alpha_sigma(_trained(model, log_snr))
    return to_x_0(prediction, x_t, *level, process.prediction_type)


def _twice(value: Tensor) -> Tensor:
    return torch.cat([value, value])
