# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""The levels of imagen-pytorch's U-Net: what runs at one resolution on the way down and up. Called by the U-Net.

Legend: B batch, C channels, H W height and width of a level, T width of the conditioning vector, S tokens, D their width.
"""

from typing import Any

import torch
from torch import Tensor, nn

from diffusers_imagen.models.unet_imagen_pytorch_attention import (
    AttentionShape,
    CrossAttention,
    Similarity,
    Transformer,
)
from diffusers_imagen.models.unet_imagen_pytorch_blocks import (
    NearestUpsample,
    ResBlock,
    ShuffleUpsample,
    StridedDownsample,
    UnshuffleDownsample,
    WidenConv,
)
from diffusers_imagen.models.unet_imagen_pytorch_linear import LinearCrossAttention, LinearTransformer

# Of the blocks in the middle, whatever the heads elsewhere.
_MIDDLE_HEADS, _MIDDLE_HEAD_DIM = 8, 64
_MIDDLE_FEED_FORWARD_MULT = 2.0


class DownLevel(nn.Module):
    """One resolution on the way down: a block that attends to text, plain blocks, a transformer, and halving.

    Args:
        config: the U-Net's.
        level: its number, 0 the finest.
        in_channels: of the map that comes in.
        conditioning_dim: T.
    """

    def __init__(self, config: Any, level: int, in_channels: int, conditioning_dim: int) -> None:
        super().__init__()
        out_channels = config.block_out_channels[level]
        is_last = level == len(config.block_out_channels) - 1
        halve = UnshuffleDownsample if config.downsample_type == "unshuffle" else StridedDownsample
        width, self.downsample_first, self.downsample_last = in_channels, None, None
        if config.memory_efficient:
            self.downsample_first = halve(in_channels, out_channels)
            width = out_channels
        self.attending_block, self.blocks = level_blocks(config, level, width, width, conditioning_dim)
        self.transformer = level_transformer(config, level, width)
        if not config.memory_efficient:
            self.downsample_last = (WidenConv if is_last else halve)(in_channels, out_channels)
        self.skip_channels = width

    def forward(self, x: Tensor, conditioning: Tensor, tokens: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Return the map for the next level and this level's skip connections."""
        skips = []
        if self.downsample_first is not None:
            x = self.downsample_first(x)
        x = self.attending_block(x, conditioning, tokens)
        for block in self.blocks:
            x = block(x, conditioning)
            skips.append(x)
        if self.transformer is not None:
            x = self.transformer(x, tokens)
        skips.append(x)
        return x if self.downsample_last is None else self.downsample_last(x), skips


class UpLevel(nn.Module):
    """One resolution on the way up: the same with skip connections, and doubling.

    Args:
        config: the U-Net's.
        level: its number, 0 the finest.
        skip_channels: of each skip connection.
        out_channels: of the map for the next level.
        conditioning_dim: T.
    """

    def __init__(self, config: Any, level: int, skip_channels: int, out_channels: int, conditioning_dim: int) -> None:
        super().__init__()
        width = config.block_out_channels[level]
        self.attending_block, self.blocks = level_blocks(config, level, width + skip_channels, width, conditioning_dim)
        self.transformer = level_transformer(config, level, width)
        double = ShuffleUpsample if config.pixel_shuffle_upsample else NearestUpsample
        self.upsample = double(width, out_channels) if level > 0 or config.memory_efficient else None
        self.skip_scale = 2**-0.5 if config.scale_skips else 1.0
        self.num_skips = 1 + len(self.blocks)

    def forward(self, x: Tensor, conditioning: Tensor, tokens: Tensor, skips: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Return the map for the next level and this level's own; `skips` are `num_skips`, the last one used first."""
        last, *others = reversed(skips)
        x = self.attending_block(self._with_skip(x, last), conditioning, tokens)
        for block, skip in zip(self.blocks, others, strict=True):
            x = block(self._with_skip(x, skip), conditioning)
        if self.transformer is not None:
            x = self.transformer(x, tokens)
        return x if self.upsample is None else self.upsample(x), x

    def _with_skip(self, x: Tensor, skip: Tensor) -> Tensor:
        return torch.cat([x, skip * self.skip_scale], dim=1)


def level_blocks(
    config: Any, level: int, in_channels: int, out_channels: int, conditioning_dim: int
) -> tuple[ResBlock, nn.ModuleList]:
    """Return a level's block that may attend to text and time, and its plain blocks."""
    num_groups = groups_of(config, level)
    attention = None
    kind = config.cross_attention_types[level]
    if kind != "none":
        shape = AttentionShape(config.cross_attention_heads, config.cross_attention_head_dim, config.similarity)
        attention_class = CrossAttention if kind == "softmax" else LinearCrossAttention
        attention = attention_class(out_channels, shape, config.cross_attention_dim)
    first = ResBlock(in_channels, out_channels, conditioning_dim, num_groups, attention)
    rest = [
        ResBlock(in_channels, out_channels, conditioning_dim, num_groups, global_context=config.global_context)
        for _ in range(config.layers_per_block[level])
    ]
    return first, nn.ModuleList(rest)


def level_transformer(config: Any, level: int, channels: int) -> Transformer | LinearTransformer | None:
    """Return a level's transformer, if it has one."""
    kind = config.attention_types[level]
    if kind == "none":
        return None
    shape = AttentionShape(config.attention_heads, config.attention_head_dim, config.similarity)
    context_dim = config.cross_attention_dim if config.attend_to_text else None
    transformer_class = Transformer if kind == "self" else LinearTransformer
    depth = config.transformer_layers_per_block[level]
    return transformer_class(channels, depth, shape, context_dim, config.feed_forward_mult)


def middle_block(config: Any, conditioning_dim: int) -> ResBlock:
    """Return one of the two blocks in the middle, which always attend to text and time."""
    channels = config.block_out_channels[-1]
    # Cosine similarity was never passed on to the middle.
    similarity: Similarity = "rms" if config.similarity == "rms" else "dot"
    shape = AttentionShape(_MIDDLE_HEADS, _MIDDLE_HEAD_DIM, similarity)
    attention = CrossAttention(channels, shape, config.cross_attention_dim)
    return ResBlock(channels, channels, conditioning_dim, groups_of(config, -1), attention)


def middle_transformer(config: Any) -> Transformer | None:
    """Return the transformer in the middle, if there is one."""
    if config.mid_transformer_layers == 0:
        return None
    shape = AttentionShape(config.attention_heads, config.attention_head_dim, config.similarity)
    mult = _MIDDLE_FEED_FORWARD_MULT if config.mid_feed_forward else None
    return Transformer(config.block_out_channels[-1], config.mid_transformer_layers, shape, None, mult)


def groups_of(config: Any, level: int) -> int | None:
    """Return the groups of a level's norms; `None` for norms over channels."""
    return None if config.norm_num_groups is None else config.norm_num_groups[level]
