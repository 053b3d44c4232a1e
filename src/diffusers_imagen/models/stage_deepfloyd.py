# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""How the sampling loop asks DeepFloyd IF's U-Nets: timesteps, channels and learned variance.

Chosen by `stage_model.py`.
"""

from collections.abc import Mapping
from typing import Any

import torch
from diffusers import DDPMScheduler
from torch import Tensor

from diffusers_imagen.diffusion.noise import NoiseProcess, add_noise
from diffusers_imagen.diffusion.noise_table import NoiseTable
from diffusers_imagen.models.stage_protocol import Prediction, StageModel, StageShape
from diffusers_imagen.models.unet_deepfloyd import DeepFloydUNet2DConditionModel

TEXT_LENGTH = 77
"""Tokens of every text that IF was trained with, padding included."""

_NO_TABLE = ("prediction_type", "low_res", "sampling")
_BETAS = ("num_train_timesteps", "beta_schedule", "beta_start", "beta_end", "trained_betas")


def deepfloyd_shape(unet: DeepFloydUNet2DConditionModel) -> StageShape:
    """Return what goes into a U-Net and comes out of it."""
    config = unet.config
    enlarges = config.class_embed_type == "timestep"
    return StageShape(
        channels=config.in_channels // 2 if enlarges else config.in_channels,
        enlarges=enlarges,
        text_length=TEXT_LENGTH,
        text_width=config.encoder_hid_dim or config.cross_attention_dim,
    )


class DeepFloydStageModel:
    """Asks a U-Net of DeepFloyd IF, which was trained on a thousand timesteps.

    Args:
        unet: the U-Net.
        noise: what it was trained on: `prediction_type`, and what makes Diffusers' `DDPMScheduler` lay out its
            timesteps (`num_train_timesteps`, `beta_schedule`, `beta_start`, `beta_end`, `trained_betas`, all but the
            first two optional); for an enlargement `low_res` with the same for the noise on the smaller picture. What
            is under `sampling` says how the U-Net's own scheduler samples, and is not read here.

    Raises:
        ValueError: `noise` that is missing or incomplete.
    """

    draws_start_first = True

    def __init__(self, unet: DeepFloydUNet2DConditionModel, noise: Mapping[str, Any] | None) -> None:
        self._unet = unet
        self.shape = deepfloyd_shape(unet)
        needed = {"prediction_type", "beta_schedule"} | ({"low_res"} if self.shape.enlarges else set())
        if noise is None or not needed <= set(noise):
            raise ValueError(
                f"`noise` of the stage is {noise!r}, but {type(unet).__name__} does not say itself what it was trained "
                f"on; give {sorted(needed)} in the pipeline's `stages` (see `from_deepfloyd_if`)."
            )
        self._table = _table("noise", {name: noise[name] for name in noise if name not in _NO_TABLE})
        self._low_res_table = _table("noise['low_res']", noise["low_res"]) if self.shape.enlarges else None
        self.noise_process = NoiseProcess(noise["prediction_type"], self._table)
        # What each text's mask hides, if anything: the tensors are kept, so that no other can come to their identity.
        self._masks: dict[int, tuple[Tensor, bool]] = {}

    @property
    def predicts_variance(self) -> bool:
        """Whether the U-Net has twice as many channels out as a picture."""
        return bool(self._unet.config.out_channels == 2 * self.shape.channels)

    def noise_low_res(self, low_res: Tensor, level: Tensor, noise: Tensor) -> Tensor:
        """Noise smaller pictures (B, C, H, W) as their own noise schedule does at the timestep of `level` (B,)."""
        if self._low_res_table is None:
            raise ValueError("`low_res` is given to a base, which has no smaller picture.")
        alpha, sigma = self._low_res_table.alpha_sigma_at(self.low_res_timestep(level))
        return add_noise(low_res, noise, alpha, sigma).to(low_res.dtype)

    def predict(
        self,
        x_t: Tensor,
        log_snr: Tensor,
        text: Tensor,
        text_mask: Tensor,
        low_res: Tensor | None = None,
        noise_level: Tensor | None = None,
    ) -> Prediction:
        """See `StageModel.predict`."""
        sample = x_t if low_res is None else torch.cat([x_t, low_res], dim=1)
        output = self._unet(
            sample.to(self._unet.dtype),
            self._table.timestep(log_snr),
            text.to(self._unet.dtype),
            class_labels=None if noise_level is None else self.low_res_timestep(noise_level),
            encoder_attention_mask=text_mask if self._hides_something(text_mask) else None,
            return_dict=False,
        )[0].to(torch.float32)
        if not self.predicts_variance:
            return Prediction(output)
        value, variance = output.chunk(2, dim=1)
        return Prediction(value, variance)

    def after(self, x_0: Tensor) -> StageModel:
        """See `StageModel.after`; the same."""
        return self

    def low_res_timestep(self, level: Tensor) -> Tensor:
        """Give the timestep of the smaller picture's noise for levels (B,) in [0, 1]."""
        count = 1000 if self._low_res_table is None else self._low_res_table.last + 1
        return (level * count).round().long().clamp(0, count - 1)

    def _hides_something(self, text_mask: Tensor) -> bool:
        # Once for each text, not at each step: the answer has to come back from the accelerator.
        if id(text_mask) not in self._masks:
            self._masks[id(text_mask)] = (text_mask, not bool(text_mask.all()))
        return self._masks[id(text_mask)][1]


def _table(name: str, betas: Mapping[str, Any]) -> NoiseTable:
    """Return the table that Diffusers' DDPM lays out.

    Raises:
        ValueError: a setting that it does not know.
    """
    try:
        if "beta_schedule" not in betas or not set(betas) <= set(_BETAS):
            raise ValueError(f"its settings are {', '.join(_BETAS)}")
        return NoiseTable(DDPMScheduler(**betas).alphas_cumprod)
    except (ValueError, TypeError, NotImplementedError) as error:
        # The last is what DDPMScheduler raises for a schedule that it does not know.
        raise ValueError(f"`{name}` of the stage is {dict(betas)}, which makes no noise schedule: {error}.") from error
