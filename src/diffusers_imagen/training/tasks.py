# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""What each family of U-Nets is trained to do: at which levels of noise, what it is told, and what it answers.

The loss that is made of it is in `objective.py`; the learned variance of DeepFloyd IF's U-Nets in `variance.py`. Called
by the objective, and chosen where a run's U-Net is made.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from diffusers_imagen.conversion.deepfloyd_settings import LOW_RES_NOISE, NOISE
from diffusers_imagen.diffusion.augmentation import noise_low_res
from diffusers_imagen.diffusion.noise import NoiseProcess, alpha_sigma
from diffusers_imagen.diffusion.noise_table import NoiseTable
from diffusers_imagen.models.stage_deepfloyd import DeepFloydStageModel
from diffusers_imagen.models.stage_protocol import Prediction
from diffusers_imagen.models.unet_deepfloyd import DeepFloydUNet2DConditionModel
from diffusers_imagen.training.config import TrainConfig
from diffusers_imagen.training.variance import LearnedVariance


class NoiseAt(NamedTuple):
    """Hold the level of noise of each sample, (B,) each, with alpha^2 + sigma^2 = 1."""

    log_snr: Tensor
    alpha: Tensor
    sigma: Tensor


class TrainingTask(Protocol):
    """What a U-Net is trained to do."""

    @property
    def prediction_type(self) -> str:
        """One of `PREDICTION_TYPES`."""

    def noise_at(self, t: Tensor) -> NoiseAt:
        """Give the noise at times in [0, 1], (B,), 0 being clean."""

    def noise_low_res(self, low_res: Tensor, level: Tensor, eps: Tensor) -> Tensor:
        """Noise resized smaller pictures (B, 3, H, W) by levels (B,) in [0, 1], as in sampling."""

    def predict(
        self,
        unet: nn.Module,
        x_t: Tensor,
        t: Tensor,
        text: Tensor,
        text_mask: Tensor,
        low_res: Tensor | None,
        noise_level: Tensor | None,
    ) -> Prediction:
        """Ask the U-Net, wrapped for training or not."""

    def variance_loss(self, prediction: Prediction, x_0: Tensor, x_t: Tensor, t: Tensor) -> Tensor | None:
        """Give what the variance of a prediction adds to the loss of each sample (B,); None for nothing."""


class ImagenTask:
    """The task of this package's own U-Nets, in continuous time.

    Args:
        process: Their noise schedule and prediction type.
    """

    def __init__(self, process: NoiseProcess) -> None:
        self._schedule = process.schedule
        self.prediction_type = process.prediction_type

    def noise_at(self, t: Tensor) -> NoiseAt:
        """See `TrainingTask`."""
        log_snr = self._schedule.log_snr(t)
        return NoiseAt(log_snr, *alpha_sigma(log_snr))

    def noise_low_res(self, low_res: Tensor, level: Tensor, eps: Tensor) -> Tensor:
        """See `TrainingTask`; on the cosine schedule."""
        return noise_low_res(low_res, level, eps)

    def predict(
        self,
        unet: nn.Module,
        x_t: Tensor,
        t: Tensor,
        text: Tensor,
        text_mask: Tensor,
        low_res: Tensor | None,
        noise_level: Tensor | None,
    ) -> Prediction:
        """See `TrainingTask`."""
        answer = unet(
            x_t,
            1000 * t,
            text,
            encoder_attention_mask=text_mask,
            low_res=low_res,
            noise_level=noise_level,
            return_dict=False,
        )
        return Prediction(answer[0])

    def variance_loss(self, prediction: Prediction, x_0: Tensor, x_t: Tensor, t: Tensor) -> Tensor | None:
        """See `TrainingTask`; there is none."""
        return None


class DeepFloydTask:
    """The task of DeepFloyd IF's U-Nets: whole timesteps, six channels into an enlargement, a learned variance.

    An enlargement sees the smaller picture, resized and noised by its own schedule, and the timestep of that noise.

    Args:
        stage: How the U-Net is asked in sampling, with its noise.
        learns_variance: Whether the variance is trained (arXiv:2102.09672); it is left alone otherwise.
    """

    def __init__(self, stage: DeepFloydStageModel, learns_variance: bool) -> None:
        table = stage.noise_process.schedule
        if not isinstance(table, NoiseTable):
            raise ValueError(f"`stage` has the noise schedule {type(table).__name__}; DeepFloyd IF's is a table.")
        self._stage = stage
        self._table = table
        self._variance = LearnedVariance(table) if learns_variance and stage.predicts_variance else None
        self.prediction_type = stage.noise_process.prediction_type

    def noise_at(self, t: Tensor) -> NoiseAt:
        """See `TrainingTask`; at the timestep that a time falls into."""
        timestep = self._timestep(t)
        log_snr = self._table.log_snr(timestep / self._table.last)
        return NoiseAt(log_snr, *self._table.alpha_sigma_at(timestep))

    def noise_low_res(self, low_res: Tensor, level: Tensor, eps: Tensor) -> Tensor:
        """See `TrainingTask`; on the enlargement's own schedule for it."""
        return self._stage.noise_low_res(low_res, level, eps)

    def predict(
        self,
        unet: nn.Module,
        x_t: Tensor,
        t: Tensor,
        text: Tensor,
        text_mask: Tensor,
        low_res: Tensor | None,
        noise_level: Tensor | None,
    ) -> Prediction:
        """See `TrainingTask`."""
        answer = unet(
            x_t if low_res is None else torch.cat([x_t, low_res], dim=1),
            self._timestep(t),
            text,
            class_labels=None if noise_level is None else self._stage.low_res_timestep(noise_level),
            encoder_attention_mask=None if bool(text_mask.all()) else text_mask,
            return_dict=False,
        )[0]
        if not self._stage.predicts_variance:
            return Prediction(answer)
        value, variance = answer.chunk(2, dim=1)
        return Prediction(value, variance)

    def variance_loss(self, prediction: Prediction, x_0: Tensor, x_t: Tensor, t: Tensor) -> Tensor | None:
        """See `TrainingTask`."""
        if self._variance is None or prediction.variance is None:
            return None
        timestep = self._timestep(t)
        return self._variance.loss(prediction, self.prediction_type, x_0, x_t, timestep)

    def _timestep(self, t: Tensor) -> Tensor:
        # Each timestep is met alike often by times that are drawn evenly.
        return (t * (self._table.last + 1)).long().clamp(0, self._table.last)


def training_task(unet: Any, config: TrainConfig) -> TrainingTask:
    """Choose the task of a U-Net.

    Args:
        unet: The U-Net itself, not wrapped.
        config: Of the run.

    Raises:
        ValueError: If `model.noise` is given to a U-Net that says itself what it was trained on, or makes no schedule.
    """
    if isinstance(unet, DeepFloydUNet2DConditionModel):
        noise = deepfloyd_noise(unet, config.model.noise)
        return DeepFloydTask(DeepFloydStageModel(unet, noise), config.objective.learned_variance == "learn")
    if config.model.noise:
        raise ValueError(
            f"`model.noise` is {config.model.noise}, but {type(unet).__name__} says itself what it was trained on; leave "
            "it out."
        )
    return ImagenTask(unet.noise_process)


def deepfloyd_noise(unet: DeepFloydUNet2DConditionModel, given: Mapping[str, Any]) -> dict[str, Any]:
    """Give the noise of a U-Net of DeepFloyd IF: what is given, and for the rest that of the released ones."""
    enlarges = unet.config.class_embed_type == "timestep"
    return {**NOISE, **({"low_res": LOW_RES_NOISE} if enlarges else {}), **given}
