# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""The enlargements of the cascade: a small picture and its text to a larger picture."""

# Diffusers finds the loading methods of a component by this name in the component's own module.
from diffusers import ModelMixin as ModelMixin
from diffusers.configuration_utils import register_to_config

from diffusers_imagen.models.unet import ImagenUNet


class EfficientUNet2DConditionModel(ImagenUNet):
    """Imagen's Efficient U-Net for super-resolution: blocks after the downsampling, few of them at high resolution.

    The defaults are a small model of the paper's shape (arXiv:2205.11487, appendix F.2); `presets` has its sizes.

    Args:
        sample_size: pixels, the side of the pictures that it is trained on; other sizes run too.
        in_channels: colour channels of the noisy image.
        out_channels: colour channels of the prediction.
        low_res_channels: colour channels of the smaller picture that is enlarged; 0 for a base model.
        patch_size: pixels, side of the patches that the stem folds into channels; 1 for none.
        stem_channels: channels after the first convolution; `None` for the first level's.
        block_out_channels: channels of each level, the finest first.
        layers_per_block: residual blocks of each level (ADM's order adds one on the way up).
        attention_types: for each level "none", "cross" (to the text) or "self" (to the image and the text).
        block_order: "before_downsample" (ADM) or "after_downsample" (Efficient U-Net).
        attention_head_dim: channels of an attention head.
        feed_forward_mult: width of the feed-forward after attention over its input's; 0 for none.
        norm_num_groups: groups of every group norm; on CPUs, 16 channels a group or more keep small maps fast.
        dropout: probability, in the residual blocks.
        conditioning_dim: width of the vector that carries time, pooled text and noise level.
        encoder_hid_dim: width of the text encoder's hidden states.
        num_text_layers: how many of the encoder's layers are given side by side.
        cross_attention_dim: width of the text tokens inside the U-Net.
        text_adapter_layers: small transformer layers over the text tokens inside the U-Net.
        text_max_length: tokens, the longest text.
        prediction_type: "epsilon", "v_prediction", "sample" or "flow_prediction": what is predicted.
        noise_schedule: "cosine" or "linear", from which times are drawn in training.
        log_snr_min: natural logarithm of alpha^2 / sigma^2 at the noisy end.
        log_snr_max: the same at the clean end.
        flow_map: whether `target_timestep` is taken, for few-step sampling.
        format_version: layout of the weights; older ones stay loadable.
        log_snr_shift: moves the noise schedule; 2 ln(64 / sample_size) is simple diffusion's (arXiv:2301.11093).

    Raises:
        ValueError: a combination that no U-Net can be made from.
    """

    @register_to_config
    def __init__(  # noqa: PLR0913 (the configuration is the signature: Diffusers saves what it reads here)
        self,
        sample_size: int = 256,
        in_channels: int = 3,
        out_channels: int = 3,
        low_res_channels: int = 3,
        patch_size: int = 1,
        stem_channels: int | None = None,
        block_out_channels: tuple[int, ...] = (64, 128, 256, 512),
        layers_per_block: tuple[int, ...] = (2, 2, 4, 4),
        attention_types: tuple[str, ...] = ("none", "none", "none", "self"),
        block_order: str = "after_downsample",
        attention_head_dim: int = 64,
        feed_forward_mult: int = 2,
        norm_num_groups: int = 32,
        dropout: float = 0.0,
        conditioning_dim: int = 512,
        encoder_hid_dim: int = 768,
        num_text_layers: int = 1,
        cross_attention_dim: int = 512,
        text_adapter_layers: int = 0,
        text_max_length: int = 256,
        prediction_type: str = "v_prediction",
        noise_schedule: str = "cosine",
        log_snr_min: float = -15.0,
        log_snr_max: float = 15.0,
        flow_map: bool = False,
        format_version: int = 1,
        log_snr_shift: float = 0.0,
    ) -> None:
        super().__init__()
        self._build()
