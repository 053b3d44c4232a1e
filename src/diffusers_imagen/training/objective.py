# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""Turn a batch into the training loss of a stage: add noise, ask the U-Net, compare, weight.

Nothing random happens here: a batch brings its times and its noise along. Called by the training loop.
"""

from dataclasses import dataclass, fields, replace
from typing import NamedTuple

import torch
from torch import Tensor, nn

from diffusers_imagen.data.transforms import crop_at, flip_some, low_res_of, to_unit_range
from diffusers_imagen.diffusion.noise import add_noise
from diffusers_imagen.diffusion.prediction import target
from diffusers_imagen.diffusion.resize import resize
from diffusers_imagen.diffusion.weighting import loss_weight
from diffusers_imagen.training.config import DataConfig, ObjectiveConfig
from diffusers_imagen.training.tasks import TrainingTask


@dataclass(frozen=True)
class TrainingBatch:
    """Hold B samples and everything that was drawn for them.

    Args:
        pictures: Whole pictures (B, 3, H, W), uint8.
        text: Hidden states of the captions (B, L, D).
        text_mask: Which of them are tokens (B, L), bool; a row of False is a dropped caption.
        t: Times in [0, 1], (B,).
        eps: Standard normal noise (B, 3, crop, crop).
        flip: Which pictures are mirrored (B,), bool.
        top: First row of each crop (B,), int64.
        left: First column of each crop (B,), int64.
        noise_level: Noise on the low resolution, in [0, 1], (B,); None for a base stage.
        low_res_eps: Standard normal noise for it (B, 3, crop, crop); None for a base stage.
        low_res: Whole small pictures (B, 3, h, w), uint8; None where they are to be made by shrinking.
        weight: How much each sample counts (B,); None for all alike.
    """

    pictures: Tensor
    text: Tensor
    text_mask: Tensor
    t: Tensor
    eps: Tensor
    flip: Tensor
    top: Tensor
    left: Tensor
    noise_level: Tensor | None = None
    low_res_eps: Tensor | None = None
    low_res: Tensor | None = None
    weight: Tensor | None = None

    def to(self, device: torch.device) -> "TrainingBatch":
        """Give the batch on a device."""
        tensors = {part.name: getattr(self, part.name) for part in fields(self)}
        moved = {name: tensor.to(device, non_blocking=True) for name, tensor in tensors.items() if tensor is not None}
        return replace(self, **moved)


class Loss(NamedTuple):
    """Hold the loss of a batch, a scalar, and of each sample (B,) with its log_snr (B,)."""

    mean: Tensor
    per_sample: Tensor
    log_snr: Tensor


def diffusion_loss(
    unet: nn.Module, task: TrainingTask, batch: TrainingBatch, data: DataConfig, objective: ObjectiveConfig
) -> Loss:
    """Compute the weighted denoising loss of a batch.

    Args:
        unet: The U-Net, wrapped for training or not.
        task: What the U-Net is trained to do.
        batch: The samples, on the U-Net's device.
        data: Crop and low resolution.
        objective: The weighting.

    Returns:
        The loss in float32; its mean over pixels is per sample, so all pictures count alike.

    Imagen (arXiv:2205.11487), equation 1; for enlargement stages with the noise of section 2.4 on the low resolution.
    Where the U-Net learns a variance, its bound is added under the same weight.
    """
    x_0, low_res = _images(batch, data, task)
    log_snr, alpha, sigma = task.noise_at(batch.t)
    x_t = add_noise(x_0, batch.eps, alpha, sigma)
    text = batch.text.to(x_0.dtype)
    prediction = task.predict(unet, x_t, batch.t, text, batch.text_mask, low_res, batch.noise_level)
    error = prediction.value.float() - target(x_0, batch.eps, alpha, sigma, task.prediction_type)
    weight = loss_weight(log_snr, task.prediction_type, objective.weighting, objective.gamma, objective.bias)
    if batch.weight is not None:
        weight = weight * batch.weight
    per_sample = error.square().flatten(1).mean(1)
    variance_loss = task.variance_loss(prediction, x_0, x_t, batch.t)
    if variance_loss is not None:
        per_sample = per_sample + variance_loss
    per_sample = weight * per_sample
    return Loss(per_sample.mean(), per_sample.detach(), log_snr)


def _images(batch: TrainingBatch, data: DataConfig, task: TrainingTask) -> tuple[Tensor, Tensor | None]:
    """Give the crops that are trained on and, for an enlargement stage, their noised low resolution."""
    whole = flip_some(to_unit_range(batch.pictures), batch.flip)
    x_0 = _crop(whole, batch, data)
    if batch.noise_level is None or batch.low_res_eps is None:
        return x_0, None
    if batch.low_res is None:
        low_res = low_res_of(whole, data.low_res_factor, data.low_res_resize)
    else:
        small = flip_some(to_unit_range(batch.low_res), batch.flip)
        low_res = resize(small, (whole.shape[-2], whole.shape[-1]), data.low_res_resize)
    return x_0, task.noise_low_res(_crop(low_res, batch, data), batch.noise_level, batch.low_res_eps)


def _crop(whole: Tensor, batch: TrainingBatch, data: DataConfig) -> Tensor:
    return whole if data.crop is None else crop_at(whole, batch.top, batch.left, data.crop)
