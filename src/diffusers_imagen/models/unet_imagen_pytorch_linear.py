# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""The linear attention of imagen-pytorch's U-Net, whose cost grows with the pixels, not their square. Called by its levels.

Legend: B batch, N queries, M keys, C width, H W height and width, S tokens of text and time, D their width.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diffusers_imagen.models.unet_imagen_pytorch_attention import (
    AttentionShape,
    CrossAttention,
    norm_eps,
    split_heads,
)


class ChannelLayerNorm(nn.Module):
    """Layer norm over the channels of each pixel with a gain and no bias."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, C, H, W) for `x` of the same shape."""
        channels_last = x.movedim(1, -1)
        return F.layer_norm(channels_last, (len(self.gain),), self.gain.flatten(), eps=norm_eps(x)).movedim(-1, 1)


class LinearCrossAttention(CrossAttention):
    """The same weights, with softmax over queries' channels and over keys instead of their products.

    Its queries are scaled by a fixed factor; the learned scales of newer releases lie unused.
    """

    def _mix(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        shape = self.similarities.shape
        scale = {"rms": 8.0, "cosine": 1.0, "dot": shape.head_dim**-0.5}[shape.similarity]
        mixed = (query.softmax(dim=-1) * scale) @ (key.softmax(dim=-2).transpose(-1, -2) @ value)
        return mixed.transpose(1, 2).flatten(2)


class DepthwiseProjection(nn.Module):
    """A 1x1 convolution to the heads' width and a 3x3 convolution of each channel by itself."""

    def __init__(self, channels: int, inner_dim: int) -> None:
        super().__init__()
        self.pointwise = nn.Conv2d(channels, inner_dim, 1, bias=False)
        self.depthwise = nn.Conv2d(inner_dim, inner_dim, 3, padding=1, groups=inner_dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, inner, H, W) for `x` (B, C, H, W)."""
        return self.depthwise(self.pointwise(x))


class LinearAttention(nn.Module):
    """Attention over pixels whose cost grows with their number, not its square (arXiv:1812.01243)."""

    def __init__(self, dim: int, shape: AttentionShape, context_dim: int | None) -> None:
        super().__init__()
        self.shape = shape
        self.norm = ChannelLayerNorm(dim)
        self.to_q = DepthwiseProjection(dim, shape.inner_dim)
        self.to_k = DepthwiseProjection(dim, shape.inner_dim)
        self.to_v = DepthwiseProjection(dim, shape.inner_dim)
        self.context_norm = None if context_dim is None else nn.LayerNorm(context_dim)
        self.context_to_kv = None if context_dim is None else nn.Linear(context_dim, 2 * shape.inner_dim, bias=False)
        self.to_out = nn.Conv2d(shape.inner_dim, dim, 1, bias=False)
        self.norm_out = ChannelLayerNorm(dim)

    def forward(self, x: Tensor, tokens: Tensor | None = None) -> Tensor:
        """Return (B, C, H, W) for `x` (B, C, H, W) and `tokens` (B, S, D)."""
        H, W = x.shape[-2:]
        x = self.norm(x)
        query, key, value = (
            split_heads(project(x).flatten(2).transpose(1, 2), self.shape.heads)
            for project in (self.to_q, self.to_k, self.to_v)
        )
        if self.context_norm is not None and self.context_to_kv is not None:
            pair = self.context_to_kv(self.context_norm(tokens)).chunk(2, dim=-1)
            text_key, text_value = (split_heads(part, self.shape.heads) for part in pair)
            key, value = torch.cat([key, text_key], dim=2), torch.cat([value, text_value], dim=2)
        query = query.softmax(dim=-1) * self.shape.head_dim**-0.5
        mixed = query @ (key.softmax(dim=-2).transpose(-1, -2) @ value)
        mixed = mixed.transpose(2, 3).flatten(1, 2).unflatten(-1, (H, W))
        return self.norm_out(self.to_out(F.silu(mixed)))


class MapFeedForward(nn.Module):
    """The same on maps."""

    def __init__(self, channels: int, mult: float) -> None:
        super().__init__()
        hidden = int(channels * mult)
        self.norm_in = ChannelLayerNorm(channels)
        self.proj_in = nn.Conv2d(channels, hidden, 1, bias=False)
        self.norm_hidden = ChannelLayerNorm(hidden)
        self.proj_out = nn.Conv2d(hidden, channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, C, H, W) for `x` of the same shape."""
        return self.proj_out(self.norm_hidden(F.gelu(self.proj_in(self.norm_in(x)))))


class LinearTransformerLayer(nn.Module):
    """Linear attention over a map and a feed-forward."""

    def __init__(self, dim: int, shape: AttentionShape, context_dim: int | None, feed_forward_mult: float) -> None:
        super().__init__()
        self.attention = LinearAttention(dim, shape, context_dim)
        self.feed_forward = MapFeedForward(dim, feed_forward_mult)

    def forward(self, x: Tensor, tokens: Tensor | None) -> Tensor:
        """Return (B, C, H, W) for `x` (B, C, H, W)."""
        x = self.attention(x, tokens) + x
        return self.feed_forward(x) + x


class LinearTransformer(nn.Module):
    """Layers of linear attention over a map."""

    def __init__(
        self, dim: int, depth: int, shape: AttentionShape, context_dim: int | None, feed_forward_mult: float
    ) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            [LinearTransformerLayer(dim, shape, context_dim, feed_forward_mult) for _ in range(depth)]
        )

    def forward(self, x: Tensor, tokens: Tensor | None = None) -> Tensor:
        """Return (B, C, H, W) for `x` (B, C, H, W) and `tokens` (B, S, D)."""
        for layer in self.layers:
            x = layer(x, tokens)
        return x
