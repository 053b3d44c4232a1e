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


@dataclass(frozen=True)
class StageShape:
    """What goes into a U-Net and comes out of it.

    Args:
        channels: of a picture.
        enlarges: whether it takes a smaller picture.
        text_length: tokens of the longest text.
        text_width: of the text states, all layers of the encoder together.
    """

    channels: int
    enlarges: bool
    text_length: int
    text_width: int


class StageModel(Protocol):
    """A U-Net as the sampling loop sees it."""

    @property
    def noise_process(self) -> NoiseProcess:
        """What the U-Net was trained on."""

    @property
    def predicts_variance(self) -> bool:
        """Whether predictions carry a learned variance."""

    @property
    def shape(self) -> StageShape:
        """What goes in and comes out."""

    @property
    def draws_start_first(self) -> bool:
        """Whether a generator gives the starting noise before the smaller picture's, or after it."""

    def noise_low_res(self, low_res: Tensor, level: Tensor, noise: Tensor) -> Tensor:
        """Noise resized smaller pictures (B, C, H, W) by `level` (B,) in [0, 1] as the U-Net was trained on them."""

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

    def after(self, x_0: Tensor) -> "StageModel":
        """Return the model as it goes on after it has said `x_0`, guided and thresholded: itself, if that is the same.

        A self-conditioned U-Net (Chen et al. 2022, arXiv:2208.04202) gets its last clean pictures as an input.

        Args:
            x_0: (B, C, H, W), for the pictures of the predictions that follow.
        """
