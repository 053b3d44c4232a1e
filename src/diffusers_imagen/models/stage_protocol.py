# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""The one interface through which the sampling loop asks any U-Net; `stage_model.py` chooses who answers."""

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from diffusers_imagen.diffusion.noise import NoiseProcess


@dataclass(frozen=True)
class Prediction:
    """What a U-Net says: (B, C, H, W) of its prediction type, and a learned variance of the same shape if it has one."""

    value: Tensor
    variance: Tensor | None = None


class StageModel(Protocol):
    """A U-Net as the sampling loop sees it."""

    @property
    def noise_process(self) -> NoiseProcess:
        """What the U-Net was trained on."""

    @property
    def predicts_variance(self) -> bool:
        """Whether predictions carry a learned variance."""

    def predict(
        self,
        x_t: Tensor,
        log_snr: Tensor,
        text: Tensor,
        text_mask: Tensor,
        low_res: Tensor | None = None,
        noise_level: Tensor | None = None,
    ) -> Prediction:
        """Predict for noisy images of unit variance.

        Args:
            x_t: (B, C, H, W), alpha * x_0 + sigma * eps with alpha^2 + sigma^2 = 1.
            log_snr: (B,), within the range that the model was trained on.
            text: (B, L, D) text encoder states.
            text_mask: (B, L) bool, True where a token is real.
            low_res: (B, C, H, W), resized and noised, for enlargements.
            noise_level: (B,) in [0, 1], the noise of `low_res`.

        Returns:
            The prediction in float32.
        """
