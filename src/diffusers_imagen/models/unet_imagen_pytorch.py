# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""imagen-pytorch's U-Net with the same maths, for converted weights: releases 1.0 to 2.1, and MinImagen's.

Its parts are in the files `unet_imagen_pytorch_*.py` beside this one; `conversion/imagen_pytorch.py` brings weights to
and fro. New models are better made from `ImagenUNet2DConditionModel`.

Legend: B batch, C channels, H W height and width, L text tokens, E encoder width, S tokens of text and time, D their
width, T width of the conditioning vector.
"""

from typing import Any

import torch
import torch.nn.functional as F

# Diffusers finds the loading methods of a component by this name in the component's own module.
from diffusers import ModelMixin as ModelMixin
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.unets.unet_2d_condition import UNet2DConditionOutput
from torch import Tensor, nn

from diffusers_imagen.diffusion.noise import NoiseProcess
from diffusers_imagen.models.adapter_model import AdapterModel
from diffusers_imagen.models.spared_memory import SparingModel
from diffusers_imagen.models.unet_imagen_pytorch_attention import AttentionShape
from diffusers_imagen.models.unet_imagen_pytorch_blocks import CrossEmbed, MapCombiner, ResBlock
from diffusers_imagen.models.unet_imagen_pytorch_conditioning import (
    FixedSinusoids,
    LearnedSinusoids,
    NoiseEmbedding,
    TextResampler,
    TextVector,
    placed_tokens,
)
from diffusers_imagen.models.unet_imagen_pytorch_config import check_config, check_inputs
from diffusers_imagen.models.unet_imagen_pytorch_levels import (
    DownLevel,
    UpLevel,
    groups_of,
    middle_block,
    middle_transformer,
)
from diffusers_imagen.models.unet_imagen_pytorch_noise import noise_process_of

EncodedText = tuple[Tensor, Tensor]
_COMBINER_GROUPS = 8


class ImagenPytorchUNet2DConditionModel(SparingModel, ConfigMixin, AdapterModel):
    """Predict noise, v or the clean picture as a U-Net that imagen-pytorch trained.

    Args:
        sample_size: pixels, the side of the pictures that it was trained on; other sizes run too.
        in_channels: colour channels of the noisy image.
        out_channels: colour channels of the prediction.
        low_res_channels: colour channels of the smaller picture that is enlarged; 0 for a base model.
        self_condition: whether its own last prediction is an input, too.
        condition_image_channels: channels of a picture that it is conditioned on; 0 for none.
        base_channels: imagen-pytorch's `dim`; the conditioning vector is 4 times as wide, 8 for enlargements.
        init_channels: channels after the first convolution.
        init_kernel_sizes: sides of the first convolutions.
        init_cross_embed: whether the first convolution is several side by side.
        stem_block: whether a residual block follows it.
        block_out_channels: channels of each level, the finest first.
        layers_per_block: plain residual blocks of each level, beside the one that attends to text.
        attention_types: transformer of each level: "none", "self" or "linear".
        transformer_layers_per_block: layers of each level's transformer.
        cross_attention_types: attention to text and time in each level's first block: "none", "softmax" or "linear".
        mid_transformer_layers: layers of the transformer in the middle; 0 for none.
        mid_feed_forward: whether those layers have a feed-forward.
        attention_heads: heads of all transformers and of the text resampler.
        attention_head_dim: channels of each.
        cross_attention_heads: heads of the attention to text and time in levels.
        cross_attention_head_dim: channels of each.
        similarity: how queries are compared with keys: "rms", "cosine" or "dot".
        attend_to_text: whether the levels' transformers attend to text and time as well.
        feed_forward_mult: width of the levels' feed-forwards over their input's.
        norm_num_groups: groups of each level's norms; `None` for norms over channels.
        memory_efficient: whether a level halves the map before its blocks, not after.
        downsample_type: "unshuffle" or "strided".
        pixel_shuffle_upsample: whether maps are doubled by pixel shuffle, not by repetition.
        scale_skips: whether skip connections are scaled by 1 / sqrt(2).
        global_context: whether plain blocks are gated by global context.
        combine_up_maps: whether all up levels' maps join before the last block.
        init_to_final_skip: whether the first convolution's map joins there, too.
        final_block: whether there is a last residual block.
        final_global_context: whether that one is gated.
        final_low_res: whether the smaller picture joins before the last convolution.
        final_kernel_size: side of the last convolution.
        cross_attention_dim: width of the tokens.
        num_time_tokens: tokens of each noise level.
        time_frequencies: learned sinusoids of the noise level, an even number; `None` for fixed ones.
        low_res_time_frequencies: the same of the smaller picture's noise level.
        encoder_hid_dim: width of the text encoder's hidden states.
        num_text_layers: how many of the encoder's layers are given side by side.
        text_conditioned: whether it takes text at all.
        text_max_length: places for text tokens.
        text_latents: latents of the text resampler; 0 for none.
        prediction_type: "epsilon", "v_prediction" or "sample".
        noise_schedule: "cosine" or "linear".
        log_snr_min: natural logarithm of alpha^2 / sigma^2 at the noisy end.
        log_snr_max: the same at the clean end.
        low_res_noise_schedule: schedule on which the smaller picture was noised in training.
        noise_condition: what it is told of noise: "log_snr" or "step".
        num_train_timesteps: steps of the discrete schedule, with "step".
        sigma_data: of EDM's preconditioning (`ElucidatedImagen`); `None` for none.
        source_release: the first release with the layout that the weights came in, for the way back.
        format_version: layout of the weights; older ones stay loadable.

    Raises:
        ValueError: a combination that no U-Net can be made from.
    """

    _supports_gradient_checkpointing = False
    _no_split_modules = ["ResBlock", "Transformer", "LinearTransformer", "TextResampler"]  # noqa: RUF012
    _skip_layerwise_casting_patterns = ["norm", "noise_embedding", "text_", "feed_forward"]  # noqa: RUF012

    @register_to_config
    def __init__(  # noqa: PLR0913 (the configuration is the signature: Diffusers saves what it reads here)
        self,
        sample_size: int = 64,
        in_channels: int = 3,
        out_channels: int = 3,
        low_res_channels: int = 0,
        self_condition: bool = False,
        condition_image_channels: int = 0,
        base_channels: int = 128,
        init_channels: int = 128,
        init_kernel_sizes: tuple[int, ...] = (3, 7, 15),
        init_cross_embed: bool = True,
        stem_block: bool = False,
        block_out_channels: tuple[int, ...] = (128, 256, 512, 1024),
        layers_per_block: tuple[int, ...] = (1, 1, 1, 1),
        attention_types: tuple[str, ...] = ("self", "self", "self", "self"),
        transformer_layers_per_block: tuple[int, ...] = (1, 1, 1, 1),
        cross_attention_types: tuple[str, ...] = ("softmax", "softmax", "softmax", "softmax"),
        mid_transformer_layers: int = 1,
        mid_feed_forward: bool = True,
        attention_heads: int = 8,
        attention_head_dim: int = 64,
        cross_attention_heads: int = 8,
        cross_attention_head_dim: int = 64,
        similarity: str = "rms",
        attend_to_text: bool = True,
        feed_forward_mult: float = 2.0,
        norm_num_groups: tuple[int, ...] | None = None,
        memory_efficient: bool = False,
        downsample_type: str = "unshuffle",
        pixel_shuffle_upsample: bool = True,
        scale_skips: bool = True,
        global_context: bool = True,
        combine_up_maps: bool = False,
        init_to_final_skip: bool = False,
        final_block: bool = True,
        final_global_context: bool = True,
        final_low_res: bool = True,
        final_kernel_size: int = 3,
        cross_attention_dim: int = 128,
        num_time_tokens: int = 2,
        time_frequencies: int | None = 16,
        low_res_time_frequencies: int | None = 16,
        encoder_hid_dim: int = 768,
        num_text_layers: int = 1,
        text_conditioned: bool = True,
        text_max_length: int = 256,
        text_latents: int = 32,
        prediction_type: str = "epsilon",
        noise_schedule: str = "cosine",
        log_snr_min: float = -33.89,
        log_snr_max: float = 8.77,
        low_res_noise_schedule: str = "linear",
        noise_condition: str = "log_snr",
        num_train_timesteps: int | None = None,
        sigma_data: float | None = None,
        source_release: str = "2.0",
        format_version: int = 1,
    ) -> None:
        super().__init__()
        check_config(self.config)
        self._build_conditioning()
        self._build_body()

    def _build_conditioning(self) -> None:
        config = self.config
        T, D = self.conditioning_dim, config.cross_attention_dim
        self.noise_embedding = self._noise_embedding(config.time_frequencies)
        self.low_res_noise_embedding = None
        if config.low_res_channels:
            self.low_res_noise_embedding = self._noise_embedding(config.low_res_time_frequencies)
        self.null_text_tokens = nn.Parameter(torch.randn(1, config.text_max_length, D))
        self.null_text_vector = nn.Parameter(torch.randn(1, T))
        self.text_proj, self.text_resampler, self.text_vector = None, None, None
        if config.text_latents:
            # imagen-pytorch makes it for models without text, too, which do not read it.
            shape = AttentionShape(config.attention_heads, config.attention_head_dim, config.similarity)
            self.text_resampler = TextResampler(D, config.text_latents, shape)
        if config.text_conditioned:
            self.text_proj = nn.Linear(config.num_text_layers * config.encoder_hid_dim, D)
            self.text_vector = TextVector(D, T)
        self.norm_tokens = nn.LayerNorm(D)

    def _noise_embedding(self, frequencies: int | None) -> NoiseEmbedding:
        config = self.config
        sinusoids = FixedSinusoids(config.base_channels) if frequencies is None else LearnedSinusoids(frequencies)
        return NoiseEmbedding(sinusoids, self.conditioning_dim, config.num_time_tokens, config.cross_attention_dim)

    def _build_body(self) -> None:
        config = self.config
        T, base, widths = self.conditioning_dim, config.base_channels, config.block_out_channels
        inputs = config.in_channels * (1 + config.self_condition)
        inputs += config.low_res_channels + config.condition_image_channels
        kernels = config.init_kernel_sizes
        self.conv_in: nn.Module
        if config.init_cross_embed:
            self.conv_in = CrossEmbed(inputs, config.init_channels, kernels)
        else:
            self.conv_in = nn.Conv2d(inputs, config.init_channels, kernels[0], padding=kernels[0] // 2)
        self.init_block = None
        if config.stem_block:
            self.init_block = ResBlock(
                config.init_channels, config.init_channels, T, groups_of(config, 0), None, config.global_context
            )
        incoming = [config.init_channels, *widths[:-1]]
        down_levels = [DownLevel(config, i, width, T) for i, width in enumerate(incoming)]
        self.down_levels = nn.ModuleList(down_levels)
        self.mid_block1 = middle_block(config, T)
        self.mid_transformer = middle_transformer(config)
        self.mid_block2 = middle_block(config, T)
        self.up_levels = nn.ModuleList(
            [UpLevel(config, i, down_levels[i].skip_channels, incoming[i], T) for i in reversed(range(len(widths)))]
        )
        combiner_groups = None if config.norm_num_groups is None else _COMBINER_GROUPS
        self.map_combiner = MapCombiner(widths[::-1], base, combiner_groups) if config.combine_up_maps else None
        joined = base * (1 + len(widths) * config.combine_up_maps + config.init_to_final_skip)
        self.last_block = None
        if config.final_block:
            self.last_block = ResBlock(joined, base, T, groups_of(config, 0), None, config.final_global_context)
            joined = base
        joined += config.low_res_channels if config.final_low_res else 0
        kernel = config.final_kernel_size
        self.conv_out = nn.Conv2d(joined, config.out_channels, kernel, padding=kernel // 2)

    @property
    def conditioning_dim(self) -> int:
        """T, width of the conditioning vector."""
        return self.config.base_channels * (8 if self.config.low_res_channels else 4)

    @property
    def noise_process(self) -> NoiseProcess:
        """What this model was trained on: prediction type, noise schedule and log-SNR range."""
        return noise_process_of(self.config)

    @property
    def size_multiple(self) -> int:
        """Height and width that the model takes are multiples of this."""
        levels = len(self.config.block_out_channels)
        return 2 ** (levels if self.config.memory_efficient else levels - 1)

    def encode_text(self, states: Tensor, mask: Tensor | None = None) -> EncodedText | None:
        """Return what `forward` makes of a text, to be passed to all its calls; `None` for a model without text.

        Args:
            states: (B, L, E) text encoder states.
            mask: (B, L) bool, True where a token is real; a row without one gets the learned null text.

        Returns:
            Tokens (B, S, D) and a vector (B, T).
        """
        if self.text_proj is None or self.text_vector is None:
            return None
        if mask is None:
            mask = torch.ones(states.shape[:2], dtype=torch.bool, device=states.device)
        tokens = placed_tokens(self.text_proj(states), mask, self.null_text_tokens)
        if self.text_resampler is not None:
            tokens = self.text_resampler(tokens)
        return tokens, torch.where(mask.any(dim=1, keepdim=True), self.text_vector(tokens), self.null_text_vector)

    def forward(
        self,
        sample: Tensor,
        timestep: Tensor | float,
        encoder_hidden_states: Tensor | None = None,
        encoder_attention_mask: Tensor | None = None,
        low_res: Tensor | None = None,
        low_res_timestep: Tensor | float | None = None,
        self_condition: Tensor | None = None,
        condition_image: Tensor | None = None,
        encoded_text: EncodedText | None = None,
        return_dict: bool = True,
    ) -> UNet2DConditionOutput | tuple[Tensor]:
        """Predict this model's target for a noisy image.

        Args:
            sample: (B, C, H, W); H and W must be multiples of `size_multiple`.
            timestep: (B,) or one number: what the model is told of the noise, as `noise_condition` of
                `unet_imagen_pytorch_noise` gives it.
            encoder_hidden_states: (B, L, E); `None` for no text at all, which is not the null text.
            encoder_attention_mask: (B, L) bool, True where a token is real; `None` for everywhere.
            low_res: (B, C, H, W), the smaller picture, resized and noised; enlargements need it.
            low_res_timestep: (B,) or one number, what the model is told of its noise.
            self_condition: (B, C, H, W), the last prediction of the clean picture; `None` for none yet.
            condition_image: (B, C', H', W') in [-1, 1].
            encoded_text: from `encode_text`, instead of `encoder_hidden_states`.
            return_dict: whether to return an output object instead of a tuple.

        Returns:
            The prediction, (B, out_channels, H, W).

        Raises:
            ValueError: a size that cannot be halved often enough, or an input that is missing or unknown.
        """
        check_inputs(self, sample, low_res, low_res_timestep, self_condition, condition_image)
        dtype = self.norm_tokens.weight.dtype
        conditioning, tokens = self.noise_embedding(_per_row(timestep, sample))
        if self.low_res_noise_embedding is not None and low_res_timestep is not None:
            vector, more = self.low_res_noise_embedding(_per_row(low_res_timestep, sample))
            conditioning, tokens = conditioning + vector, torch.cat([tokens, more], dim=1)
        if encoded_text is None and encoder_hidden_states is not None:
            encoded_text = self.encode_text(encoder_hidden_states.to(dtype), encoder_attention_mask)
        if encoded_text is not None:
            text_tokens, vector = encoded_text
            conditioning, tokens = conditioning + vector, torch.cat([tokens, text_tokens], dim=1)
        x = self._joined_inputs(sample, low_res, self_condition, condition_image).to(dtype)
        output = self._body(x, F.silu(conditioning), self.norm_tokens(tokens), low_res).to(sample.dtype)
        return UNet2DConditionOutput(sample=output) if return_dict else (output,)

    def _joined_inputs(
        self, sample: Tensor, low_res: Tensor | None, self_condition: Tensor | None, condition_image: Tensor | None
    ) -> Tensor:
        if self.config.self_condition and self_condition is None:
            self_condition = torch.zeros_like(sample)
        if condition_image is not None:
            condition_image = F.interpolate(condition_image, sample.shape[-2:], mode="nearest")
        parts = (condition_image, sample, self_condition, low_res)
        return torch.cat([part.to(sample.dtype) for part in parts if part is not None], dim=1)

    def _body(self, x: Tensor, conditioning: Tensor, tokens: Tensor, low_res: Tensor | None) -> Tensor:
        x = first = self.conv_in(x)
        if self.init_block is not None:
            x = self.init_block(x, conditioning)
        # Lists are returned, not filled: the hooks of offloading hand each level a copy of what it is given.
        skips: list[Tensor] = []
        level: Any
        for level in self.down_levels:
            x, more = level(x, conditioning, tokens)
            skips += more
        x = self.mid_block1(x, conditioning, tokens)
        if self.mid_transformer is not None:
            x = self.mid_transformer(x)
        x = self.mid_block2(x, conditioning, tokens)
        maps: list[Tensor] = []
        for level in self.up_levels:
            skips, own = skips[: -level.num_skips], skips[-level.num_skips :]
            x, level_map = level(x, conditioning, tokens, own)
            maps.append(level_map)
        if self.map_combiner is not None:
            x = self.map_combiner(x, maps)
        if self.config.init_to_final_skip:
            x = torch.cat([x, first], dim=1)
        if self.last_block is not None:
            x = self.last_block(x, conditioning)
        if self.config.final_low_res and low_res is not None:
            x = torch.cat([x, low_res.to(x.dtype)], dim=1)
        return self.conv_out(x)


def _per_row(value: Tensor | float, sample: Tensor) -> Tensor:
    """Return (B,) in float32."""
    return torch.as_tensor(value, dtype=torch.float32, device=sample.device).expand(len(sample))
