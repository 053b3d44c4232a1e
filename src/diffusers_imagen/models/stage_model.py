# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""Choose how a U-Net is asked for its prediction, and ask this package's own. Called by the pipeline."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from diffusers_imagen.diffusion.augmentation import noise_low_res
from diffusers_imagen.models.stage_deepfloyd import DeepFloydStageModel, deepfloyd_shape
from diffusers_imagen.models.stage_imagen_pytorch import ImagenPytorchStageModel
from diffusers_imagen.models.stage_protocol import Prediction, StageModel, StageShape
from diffusers_imagen.models.unet import ImagenUNet, TextMemo
from diffusers_imagen.models.unet_deepfloyd import DeepFloydUNet2DConditionModel
from diffusers_imagen.models.unet_imagen_pytorch import ImagenPytorchUNet2DConditionModel

__all__ = ["ImagenStageModel", "Prediction", "StageModel", "StageShape", "stage_model_for", "stage_shape"]


class ImagenStageModel:
    """Asks one of this package's U-Nets, which reads each text once in the life of this object."""

    predicts_variance = False
    draws_start_first = False

    def __init__(self, unet: ImagenUNet) -> None:
        self._unet = unet
        # The tensors are kept beside the memo, so that no other can come to their identity.
        self._memos: dict[tuple[int, int], tuple[TextMemo, Tensor, Tensor]] = {}
        self.noise_process = unet.noise_process
        self.shape = stage_shape(unet)

    def noise_low_res(self, low_res: Tensor, level: Tensor, noise: Tensor) -> Tensor:
        """See `StageModel.noise_low_res`; on the cosine schedule."""
        return noise_low_res(low_res, level, noise)

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

    def after(self, x_0: Tensor) -> StageModel:
        """See `StageModel.after`; the same."""
        return self

    def _memo_of(self, text: Tensor, text_mask: Tensor) -> TextMemo | None:
        if torch.is_grad_enabled():
            return None
        return self._memos.setdefault((id(text), id(text_mask)), (TextMemo(), text, text_mask))[0]


def stage_shape(unet: Any) -> StageShape:
    """Return what goes into a U-Net and comes out of it.

    Raises:
        ValueError: a U-Net of a family that no adapter knows.
    """
    model = uncompiled(unet)
    if isinstance(model, DeepFloydUNet2DConditionModel):
        return deepfloyd_shape(model)
    if isinstance(model, ImagenUNet | ImagenPytorchUNet2DConditionModel):
        config = model.config
        return StageShape(
            channels=config.in_channels,
            enlarges=config.low_res_channels > 0,
            text_length=config.text_max_length,
            text_width=config.num_text_layers * config.encoder_hid_dim,
        )
    raise ValueError(
        f"`unet` is a {type(unet).__name__}, which cannot be driven; use ImagenUNet2DConditionModel for the base and "
        "EfficientUNet2DConditionModel for enlargements, DeepFloydUNet2DConditionModel for DeepFloyd IF's, or converted "
        "ones."
    )


def stage_model_for(unet: Any, noise: Mapping[str, Any] | None = None) -> StageModel:
    """Return the adapter for a U-Net.

    Args:
        unet: a U-Net of this package, or what `torch.compile` makes of it.
        noise: the noise process of a U-Net whose configuration does not say what it was trained on, as its adapter
            takes it.

    Raises:
        ValueError: a U-Net of a family that no adapter knows.
    """
    shape, model = stage_shape(unet), uncompiled(unet)
    if isinstance(model, DeepFloydUNet2DConditionModel):
        return DeepFloydStageModel(unet, noise)
    if noise is not None:
        raise ValueError(
            f"`noise` is {noise}, but {type(model).__name__} says in its own config what it was trained on; leave it."
        )
    return ImagenStageModel(unet) if isinstance(model, ImagenUNet) else ImagenPytorchStageModel(unet, shape)


def uncompiled(unet: Any) -> Any:
    """Return the U-Net that `torch.compile(unet)` has wrapped, which is called through the wrapper."""
    return getattr(unet, "_orig_mod", unet)
