# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""The U-Net that both public classes share: Imagen's (arXiv:2205.11487, appendix F), in two block orders.

Legend: B batch, C channels, H W height and width, L text tokens, D_text = stacked encoder layers * their width,
T width of the conditioning vector.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from diffusers.configuration_utils import ConfigMixin
from diffusers.models.attention import AttentionMixin
from diffusers.models.unets.unet_2d_condition import UNet2DConditionOutput
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from diffusers_imagen.diffusion.noise import NoiseProcess, NoiseSchedule
from diffusers_imagen.models.adapter_model import AdapterModel
from diffusers_imagen.models.attention import ImagenAttentionBlock, TextKeys
from diffusers_imagen.models.blocks import Downsample, ImagenBlock, ImagenResBlock, Upsample
from diffusers_imagen.models.embeddings import ScalarEmbedding, TextAdapter
from diffusers_imagen.models.initialisation import zeroed
from diffusers_imagen.models.packed_model import PackableModel
from diffusers_imagen.models.repeated_blocks import RepeatedBlocksModel
from diffusers_imagen.models.stored_model import StoredModel
from diffusers_imagen.models.unet_config import check_unet_config

SKIP_SCALE = 1 / math.sqrt(2)


@dataclass
class TextMemo:
    """What a U-Net has made of one text, which all steps of a run share: give each new text a new one.

    Args:
        adapted: tokens (B, L, D), their mask (B, L) and the pooled text (B, T); `None` until the first call.
        keys: each block's attention keys and values.
    """

    adapted: tuple[Tensor, Tensor, Tensor] | None = None
    keys: dict[nn.Module, TextKeys] = field(default_factory=dict)


class ImagenUNet(PackableModel, RepeatedBlocksModel, StoredModel, AttentionMixin, ConfigMixin, AdapterModel):
    """Predict the noise process' target from a noisy image, its noise level and a text.

    The constructor's arguments belong to the public subclasses, since Diffusers saves what it reads in their
    signatures. `block_order` names the paper's two arrangements:

    - `"before_downsample"`: ADM's. Each residual block may have attention and is a skip connection; a level's
      blocks run, then the image is halved. Two blocks with attention stand in the middle.
    - `"after_downsample"`: the Efficient U-Net's. The image is halved, then the blocks run; attention follows a
      level's last block and each level is one skip connection.
    """

    _supports_gradient_checkpointing = True
    _supports_group_offloading = True
    # Lists of lists, of which only the blocks are called: a hook on a level would never bring its weights back.
    _group_offload_block_modules = ["down_levels", "up_levels"]  # noqa: RUF012 (the host reads class attributes)
    _no_split_modules = ["ImagenBlock", "TextAdapter"]  # noqa: RUF012 (the host reads class attributes)
    _repeated_blocks = ["ImagenBlock"]  # noqa: RUF012
    _skip_layerwise_casting_patterns = ["norm", "embedding", "text_adapter", "feed_forward"]  # noqa: RUF012

    def _build(self) -> None:
        """Make the layers that `self.config` describes."""
        config = self.config
        check_unet_config(config)
        channels = list(config.block_out_channels)
        T = config.conditioning_dim
        self.gradient_checkpointing = False

        self.time_embedding = ScalarEmbedding(T)
        self.target_embedding = ScalarEmbedding(T, zero_init=True) if config.flow_map else None
        self.noise_level_embedding = ScalarEmbedding(T) if config.low_res_channels else None
        self.text_adapter = TextAdapter(
            config.encoder_hid_dim,
            config.num_text_layers,
            config.cross_attention_dim,
            T,
            config.text_adapter_layers,
            config.text_max_length,
        )

        patch_area = config.patch_size**2
        stem = channels[0] if config.stem_channels is None else config.stem_channels
        self.conv_in = nn.Conv2d((config.in_channels + config.low_res_channels) * patch_area, stem, 3, padding=1)
        if config.block_order == "before_downsample":
            out = self._build_before_downsample(stem, channels)
        else:
            out = self._build_after_downsample(stem, channels)
        self.norm_out = nn.GroupNorm(config.norm_num_groups, out)
        self.conv_out = zeroed(nn.Conv2d(out, config.out_channels * patch_area, 3, padding=1))

    def _block(self, in_channels: int, level: int, with_attention: bool) -> ImagenBlock:
        config = self.config
        out_channels = config.block_out_channels[level]
        kind = config.attention_types[level]
        resnet = ImagenResBlock(
            in_channels, out_channels, config.conditioning_dim, config.norm_num_groups, config.dropout
        )
        attention = None
        if with_attention and kind != "none":
            attention = ImagenAttentionBlock(
                out_channels,
                config.cross_attention_dim,
                config.attention_head_dim,
                config.norm_num_groups,
                attend_image=kind == "self",
                feed_forward_mult=config.feed_forward_mult,
            )
        return ImagenBlock(resnet, attention)

    def _build_before_downsample(self, stem: int, channels: list[int]) -> int:
        last = len(channels) - 1
        skips, width = [stem], stem
        self.down_levels, self.downsamplers = nn.ModuleList(), nn.ModuleList()
        for level, out in enumerate(channels):
            blocks = nn.ModuleList()
            for _ in range(self.config.layers_per_block[level]):
                blocks.append(self._block(width, level, True))
                width = out
                skips.append(width)
            self.down_levels.append(blocks)
            if level < last:
                self.downsamplers.append(Downsample(width, width))
                skips.append(width)
        self.mid_blocks = nn.ModuleList([self._block(width, last, True), self._block(width, last, False)])
        self.up_levels, self.upsamplers = nn.ModuleList(), nn.ModuleList()
        for level in reversed(range(len(channels))):
            blocks = nn.ModuleList()
            for _ in range(self.config.layers_per_block[level] + 1):
                blocks.append(self._block(width + skips.pop(), level, True))
                width = channels[level]
            self.up_levels.append(blocks)
            if level > 0:
                self.upsamplers.append(Upsample(width, width))
        return width

    def _build_after_downsample(self, stem: int, channels: list[int]) -> int:
        self.down_levels, self.downsamplers = nn.ModuleList(), nn.ModuleList()
        self.up_levels, self.upsamplers = nn.ModuleList(), nn.ModuleList()
        width, last = stem, len(channels) - 1
        for level, out in enumerate(channels):
            depth = self.config.layers_per_block[level]
            self.downsamplers.append(Downsample(width, out))
            self.down_levels.append(nn.ModuleList([self._block(out, level, i == depth - 1) for i in range(depth)]))
            width = out
        self.mid_blocks = nn.ModuleList()
        for level in reversed(range(len(channels))):
            depth, out = self.config.layers_per_block[level], channels[level]
            # The deepest level's output is what the way up starts from: only the others are skips.
            widths = [out if level == last else 2 * out] + [out] * (depth - 1)
            self.up_levels.append(nn.ModuleList([self._block(w, level, i == depth - 1) for i, w in enumerate(widths)]))
            self.upsamplers.append(Upsample(out, channels[level - 1] if level else stem))
        return 2 * stem

    @property
    def noise_process(self) -> NoiseProcess:
        """What this model was trained on: prediction type, noise schedule and log-SNR range."""
        config = self.config
        schedule = NoiseSchedule(config.noise_schedule, config.log_snr_min, config.log_snr_max, config.log_snr_shift)
        return NoiseProcess(config.prediction_type, schedule)

    def forward(
        self,
        sample: Tensor,
        timestep: Tensor | float,
        encoder_hidden_states: Tensor,
        encoder_attention_mask: Tensor | None = None,
        low_res: Tensor | None = None,
        noise_level: Tensor | None = None,
        target_timestep: Tensor | float | None = None,
        text_memo: TextMemo | None = None,
        return_dict: bool = True,
    ) -> UNet2DConditionOutput | tuple[Tensor]:
        """Predict this model's target for a noisy image.

        Args:
            sample: (B, C, H, W), noisy images of unit variance, `alpha * x_0 + sigma * eps`. H and W must be
                multiples of `size_multiple`.
            timestep: (B,) or one number in [0, 1000]: 1000 times the place on this model's own noise schedule,
                0 clean, 1000 noise. Any real number, not only integers.
            encoder_hidden_states: (B, L, num_text_layers * encoder_hid_dim), text encoder states, the chosen
                layers side by side.
            encoder_attention_mask: (B, L) bool, True where a token is real; `None` for everywhere. A row that is
                False throughout gets the learned null text.
            low_res: (B, low_res_channels, H, W) in [-1, 1] before noising, the smaller picture, already resized to
                H x W and noised; only for super-resolution models, which need it.
            noise_level: (B,) in [0, 1], how much noise `low_res` carries; `None` for none.
            target_timestep: as `timestep`, the place that a flow map jumps to; only with `flow_map=True`.
            text_memo: for sampling, what earlier calls made of the very same text; filled by the first one.
            return_dict: whether to return an output object instead of a tuple.

        Returns:
            The prediction, (B, out_channels, H, W), of the kind `config.prediction_type`.

        Raises:
            ValueError: a size that cannot be halved often enough, or a condition that is missing or unknown.
        """
        self._check_inputs(sample, encoder_hidden_states, low_res, target_timestep)
        B = sample.shape[0]
        # A norm's, since layerwise casting stores the weights of convolutions and linear layers in another type.
        dtype = self.norm_out.weight.dtype
        text, text_mask, pooled = self._adapt_text(encoder_hidden_states.to(dtype), encoder_attention_mask, text_memo)
        conditioning = pooled + self.time_embedding(self._noise_position(timestep, B, sample.device), dtype)
        if self.noise_level_embedding is not None:
            level = torch.zeros(B, device=sample.device) if noise_level is None else noise_level.expand(B)
            conditioning = conditioning + self.noise_level_embedding(level, dtype)
        if self.target_embedding is not None and target_timestep is not None:
            target = self._noise_position(target_timestep, B, sample.device)
            conditioning = conditioning + self.target_embedding(target, dtype)
        conditioning = F.silu(conditioning)

        image = sample if low_res is None else torch.cat([sample, low_res.to(sample.dtype)], dim=1)
        h = self.conv_in(F.pixel_unshuffle(image.to(dtype), self.config.patch_size))
        run = self._runner(conditioning, text, text_mask, text_memo)
        if self.config.block_order == "before_downsample":
            h = self._forward_before_downsample(h, run)
        else:
            h = self._forward_after_downsample(h, run)
        h = self.conv_out(F.silu(self.norm_out(h)))
        output = F.pixel_shuffle(h, self.config.patch_size).to(sample.dtype)
        return UNet2DConditionOutput(sample=output) if return_dict else (output,)

    def _forward_before_downsample(self, h: Tensor, run: Callable[[nn.Module, Tensor], Tensor]) -> Tensor:
        skips = [h]
        for level, blocks in enumerate(self.down_levels):
            for block in blocks.children():
                h = run(block, h)
                skips.append(h)
            if level < len(self.downsamplers):
                h = self.downsamplers[level](h)
                skips.append(h)
        for block in self.mid_blocks:
            h = run(block, h)
        for level, blocks in enumerate(self.up_levels):
            for block in blocks.children():
                h = run(block, torch.cat([h, skips.pop() * SKIP_SCALE], dim=1))
            if level < len(self.upsamplers):
                h = self.upsamplers[level](h)
        return h

    def _forward_after_downsample(self, h: Tensor, run: Callable[[nn.Module, Tensor], Tensor]) -> Tensor:
        skips = [h]
        for downsample, blocks in zip(self.downsamplers, self.down_levels, strict=True):
            h = downsample(h)
            for block in blocks.children():
                h = run(block, h)
            skips.append(h)
        skips.pop()
        for upsample, blocks in zip(self.upsamplers, self.up_levels, strict=True):
            for block in blocks.children():
                h = run(block, h)
            h = torch.cat([upsample(h), skips.pop() * SKIP_SCALE], dim=1)
        return h

    def _adapt_text(self, states: Tensor, mask: Tensor | None, memo: TextMemo | None) -> tuple[Tensor, Tensor, Tensor]:
        if memo is None:
            return self.text_adapter(states, mask)
        if memo.adapted is None:
            memo.adapted = self.text_adapter(states, mask)
        return memo.adapted

    def _runner(
        self, conditioning: Tensor, text: Tensor, text_mask: Tensor, memo: TextMemo | None
    ) -> Callable[[nn.Module, Tensor], Tensor]:
        """Bind what every block gets; recompute blocks in the backward pass if checkpointing is on."""
        if self.gradient_checkpointing and torch.is_grad_enabled():
            return lambda block, h: checkpoint(block, h, conditioning, text, text_mask, use_reentrant=False)
        if memo is None:
            return lambda block, h: block(h, conditioning, text, text_mask)
        return lambda block, h: block(h, conditioning, text, text_mask, memo.keys.setdefault(block, []))

    def _noise_position(self, timestep: Tensor | float, batch: int, device: torch.device) -> Tensor:
        """Return (B,) in [0, 1]: where the timestep's log-SNR lies between the trained ends, 1 at the noisy one."""
        t = torch.as_tensor(timestep, dtype=torch.float32, device=device).expand(batch) / 1000
        schedule = self.noise_process.schedule
        return (schedule.log_snr_max - schedule.log_snr(t)) / (schedule.log_snr_max - schedule.log_snr_min)

    @property
    def size_multiple(self) -> int:
        """Height and width that the model takes are multiples of this."""
        return self.config.patch_size * 2 ** len(self.downsamplers)

    def _check_inputs(self, sample: Tensor, text: Tensor, low_res: Tensor | None, target: Any) -> None:
        multiple = self.size_multiple
        if sample.shape[-2] % multiple or sample.shape[-1] % multiple:
            raise ValueError(
                f"`sample` is {sample.shape[-2]} x {sample.shape[-1]} pixels, but this U-Net takes multiples of "
                f"{multiple}; resize or pad it."
            )
        width = self.config.num_text_layers * self.config.encoder_hid_dim
        if text.shape[-1] != width or text.shape[1] > self.config.text_max_length:
            raise ValueError(
                f"`encoder_hidden_states` has shape {tuple(text.shape)}, but this U-Net takes at most "
                f"{self.config.text_max_length} tokens of width {width} (num_text_layers * encoder_hid_dim); use the "
                "text encoder, layers and max_length that it was trained with."
            )
        if (low_res is None) != (self.config.low_res_channels == 0):
            need = "needs" if self.config.low_res_channels else "takes no"
            raise ValueError(f"`low_res` is {'missing' if low_res is None else 'given'}, but this U-Net {need} one.")
        if target is not None and not self.config.flow_map:
            raise ValueError("`target_timestep` is given, but this U-Net was made with `flow_map=False`.")
