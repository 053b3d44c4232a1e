# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""The one sampling loop: from noise to pictures with any scheduler, for every stage.

Its common currency is the predicted clean picture x_0. Here, and nowhere else, Diffusers' names (sample, timestep)
and the paper's (x_t, x_0, alpha, sigma) meet.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from diffusers_imagen.diffusion.guidance import guide, in_interval
from diffusers_imagen.diffusion.noise import alpha_sigma
from diffusers_imagen.diffusion.prediction import to_x_0
from diffusers_imagen.diffusion.thresholding import threshold
from diffusers_imagen.models.stage_model import Prediction, StageModel
from diffusers_imagen.pipelines.stage_settings import StageSettings
from diffusers_imagen.schedulers.bridge import SchedulerBridge


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
    """

    text: Tensor
    text_mask: Tensor
    negative_text: Tensor
    negative_mask: Tensor
    low_res: Tensor | None = None
    noise_level: Tensor | None = None


@dataclass(frozen=True)
class StepControl:
    """How the caller follows and steers a run.

    Args:
        guidance_scale: read anew at every step.
        on_step_end: gets the step's index, its timestep and the sample, and returns the sample to go on with.
        interrupted: whether the remaining steps are to be skipped.
    """

    guidance_scale: Callable[[], float]
    on_step_end: Callable[[int, Tensor, Tensor], Tensor]
    interrupted: Callable[[], bool]


def denoise_stage(
    model: StageModel,
    bridge: SchedulerBridge,
    timesteps: Tensor,
    sample: Tensor,
    condition: StageCondition,
    settings: StageSettings,
    control: StepControl,
    generator: torch.Generator | list[torch.Generator] | None = None,
) -> Tensor:
    """Draw the pictures of one stage.

    Args:
        model: the stage's U-Net.
        bridge: the stage's scheduler, its timesteps set.
        timesteps: what `bridge.set_timesteps` returned.
        sample: (B, C, H, W) float32 noise in the scheduler's own space.
        condition: text and smaller picture.
        settings: guidance and thresholding.
        control: the caller's hooks.
        generator: source of the noise that stochastic schedulers add.

    Returns:
        Pictures (B, C, H, W), near [-1, 1], in float32.
    """
    for index, timestep in enumerate(timesteps):
        if control.interrupted():
            break
        guidance_scale = control.guidance_scale()
        if not in_interval(index, len(timesteps), settings.guidance_interval):
            guidance_scale = 1.0
        alpha, sigma = bridge.noise_level(timestep)
        x_0, variance = predict_x_0(model, sample, alpha, sigma, condition, guidance_scale, settings)
        sample = bridge.step(x_0, timestep, sample, variance=variance, generator=generator)
        sample = control.on_step_end(index, timestep, sample)
    return sample


def predict_x_0(
    model: StageModel,
    sample: Tensor,
    alpha: float,
    sigma: float,
    condition: StageCondition,
    guidance_scale: float,
    settings: StageSettings,
) -> tuple[Tensor, Tensor | None]:
    """Predict the guided, thresholded clean pictures and the learned variance, if there is one.

    Args:
        model: the stage's U-Net.
        sample: (B, C, H, W), alpha * x_0 + sigma * eps.
        alpha: scale of the clean picture in `sample`, 0 or more.
        sigma: scale of the noise in `sample`, 0 or more.
        condition: text and smaller picture.
        guidance_scale: 1 for none.
        settings: rescaling and thresholding.
    """
    process = model.noise_process
    log_snr = torch.tensor(_log_snr(alpha, sigma), dtype=torch.float32, device=sample.device)
    log_snr = process.schedule.clamp(log_snr).expand(sample.shape[0])
    # Only the noisy picture is scaled: the smaller picture is a condition, not the diffused variable. Scaled along
    # with it, it would vanish under the schedulers whose noise is as large as sigma.
    x_t = sample / math.hypot(alpha, sigma)
    model_alpha, model_sigma = alpha_sigma(log_snr)

    def x_0_of(prediction: Tensor) -> Tensor:
        return to_x_0(prediction, x_t, model_alpha, model_sigma, process.prediction_type)

    if guidance_scale == 1.0:
        prediction = _predict(model, x_t, log_snr, condition)
        x_0 = x_0_of(prediction.value)
    else:
        prediction, negative = _predict_both(model, x_t, log_snr, condition)
        x_0 = guide(x_0_of(prediction.value), x_0_of(negative.value), guidance_scale, settings.guidance_rescale)
    x_0 = threshold(x_0, settings.thresholding, settings.threshold_percentile, settings.threshold_max)
    return x_0, prediction.variance


def _log_snr(alpha: float, sigma: float) -> float:
    if alpha == 0:
        return -math.inf
    return math.inf if sigma == 0 else 2 * math.log(alpha / sigma)


def _predict(model: StageModel, x_t: Tensor, log_snr: Tensor, condition: StageCondition) -> Prediction:
    return model.predict(x_t, log_snr, condition.text, condition.text_mask, condition.low_res, condition.noise_level)


def _predict_both(
    model: StageModel, x_t: Tensor, log_snr: Tensor, condition: StageCondition
) -> tuple[Prediction, Prediction]:
    """Predict with the text and with the negative one in a single forward pass."""
    output = model.predict(
        _twice(x_t),
        _twice(log_snr),
        torch.cat([condition.text, condition.negative_text]),
        torch.cat([condition.text_mask, condition.negative_mask]),
        None if condition.low_res is None else _twice(condition.low_res),
        None if condition.noise_level is None else _twice(condition.noise_level),
    )
    values = output.value.chunk(2)
    variances = (None, None) if output.variance is None else output.variance.chunk(2)
    return Prediction(values[0], variances[0]), Prediction(values[1], variances[1])


def _twice(value: Tensor) -> Tensor:
    return torch.cat([value, value])
