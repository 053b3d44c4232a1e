# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""The one interface through which the sampling loop asks any U-Net for its prediction."""

from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from diffusers_imagen.diffusion.noise import NoiseProcess
from diffusers_imagen.models.unet import ImagenUNet, TextMemo


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


class ImagenStageModel:
    """Asks one of this package's U-Nets, which reads each text once in the life of this object."""

    predicts_variance = False

    def __init__(self, unet: ImagenUNet) -> None:
        self._unet = unet
        # The tensors are kept beside the memo, so that no other can come to their identity.
        self._memos: dict[tuple[int, int], tuple[TextMemo, Tensor, Tensor]] = {}
        self.noise_process = unet.noise_process

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
        dtype = self._unet.dtype
        output = self._unet(
            x_t.to(dtype),
            1000 * self.noise_process.schedule.t(log_snr),
            text.to(dtype),
            encoder_attention_mask=text_mask,
            low_res=None if low_res is None else low_res.to(dtype),
            noise_level=noise_level,
            text_memo=self._memo_of(text, text_mask),
            return_dict=False,
        )
        return Prediction(output[0].to(torch.float32))

    def _memo_of(self, text: Tensor, text_mask: Tensor) -> TextMemo | None:
        if torch.is_grad_enabled():
            return None
        return self._memos.setdefault((id(text), id(text_mask)), (TextMemo(), text, text_mask))[0]


def stage_model_for(unet: Any, noise: NoiseProcess | None = None) -> StageModel:
    """Return the adapter for a U-Net.

    Args:
        unet: a U-Net of this package.
        noise: the noise process of a U-Net whose configuration does not say what it was trained on.

    Raises:
        ValueError: a U-Net of a family that no adapter knows.
    """
    if isinstance(unet, ImagenUNet):
        if noise is not None:
            raise ValueError(
                f"`noise` is {noise}, but {type(unet).__name__} says in its own config what it was trained on; leave it."
            )
        return ImagenStageModel(unet)
    raise ValueError(
        f"`unet` is a {type(unet).__name__}, which cannot be driven; use ImagenUNet2DConditionModel for the base and "
        "EfficientUNet2DConditionModel for enlargements."
    )
