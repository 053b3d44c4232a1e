# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""Ask imagen-pytorch's U-Net for its prediction at a log-SNR. Chosen by `stage_model.py`."""

import copy

import torch
from torch import Tensor

from diffusers_imagen.diffusion.augmentation import noise_low_res
from diffusers_imagen.models.stage_protocol import Prediction, StageModel, StageShape
from diffusers_imagen.models.unet_imagen_pytorch import EncodedText, ImagenPytorchUNet2DConditionModel
from diffusers_imagen.models.unet_imagen_pytorch_noise import (
    low_res_condition,
    noise_condition,
    preconditioned_input,
    preconditioned_output,
)


class ImagenPytorchStageModel:
    """Asks a converted U-Net, which reads each text once in the life of this object.

    Args:
        unet: the U-Net.
        shape: what goes into it and comes out of it.

    Raises:
        ValueError: a U-Net that needs a conditioning picture, which no cascade gives.
    """

    predicts_variance = False
    draws_start_first = False

    def __init__(self, unet: ImagenPytorchUNet2DConditionModel, shape: StageShape) -> None:
        if unet.config.condition_image_channels:
            raise ValueError(
                f"`condition_image_channels` of the U-Net is {unet.config.condition_image_channels}: it is conditioned "
                "on a picture that a cascade does not have; call the U-Net itself."
            )
        self._unet = unet
        self._last: Tensor | None = None
        self.shape = shape
        # The tensors are kept beside what was made of them, so that no other can come to their identity.
        self._encoded: dict[tuple[int, int], tuple[EncodedText | None, Tensor, Tensor]] = {}
        self.noise_process = unet.noise_process

    def noise_low_res(self, low_res: Tensor, level: Tensor, noise: Tensor) -> Tensor:
        """See `StageModel.noise_low_res`; a level of its own schedule is given as this package's."""
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
        unet, config = self._unet, self._unet.config
        level = torch.zeros_like(log_snr) if noise_level is None else noise_level
        network_input = x_t if config.sigma_data is None else preconditioned_input(x_t, log_snr, config.sigma_data)
        output = unet(
            network_input.to(unet.dtype),
            noise_condition(config, log_snr),
            low_res=None if low_res is None else low_res.to(unet.dtype),
            low_res_timestep=None if low_res is None else low_res_condition(config, level),
            self_condition=self._last_of(len(x_t)),
            encoded_text=self._encoded_text(text, text_mask),
            return_dict=False,
        )[0].to(torch.float32)
        if config.sigma_data is None:
            return Prediction(output)
        return Prediction(preconditioned_output(output, x_t, log_snr, config.sigma_data))

    def after(self, x_0: Tensor) -> StageModel:
        """See `StageModel.after`."""
        if not self._unet.config.self_condition:
            return self
        following = copy.copy(self)
        following._last = x_0
        return following

    def _last_of(self, batch_size: int) -> Tensor | None:
        """Return the last clean pictures for a batch, in which each may come with both texts."""
        if self._last is None:
            return None
        return self._last.to(self._unet.dtype).repeat(batch_size // len(self._last), 1, 1, 1)

    def _encoded_text(self, text: Tensor, text_mask: Tensor) -> EncodedText | None:
        key = (id(text), id(text_mask))
        if torch.is_grad_enabled() or key not in self._encoded:
            encoded = self._unet.encode_text(text.to(self._unet.dtype), text_mask)
            if torch.is_grad_enabled():
                return encoded
            self._encoded[key] = (encoded, text, text_mask)
        return self._encoded[key][0]
