# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""The attention of imagen-pytorch's U-Net: over pixels, and to text and time. Its linear forms are beside this file.

How queries and keys are compared has changed twice between its releases; `AttentionShape` says how. Called by the
U-Net's levels and its text resampler.

Legend: B batch, N queries, M keys, C width, S tokens of text and time, D their width.
"""

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Similarity = Literal["rms", "cosine", "dot"]
# Factor before the softmax; "dot" takes the usual 1 / sqrt(head_dim).
_SCALES: dict[str, float | None] = {"rms": 8.0, "cosine": 16.0, "dot": None}


@dataclass(frozen=True)
class AttentionShape:
    """Heads of an attention and how it compares queries with keys.

    Args:
        heads: their number.
        head_dim: width of each.
        similarity: "rms" (unit vectors with learned scales, since 1.22), "cosine" (unit vectors) or "dot".
    """

    heads: int
    head_dim: int
    similarity: Similarity

    @property
    def inner_dim(self) -> int:
        """Width of all heads together."""
        return self.heads * self.head_dim


def norm_eps(x: Tensor) -> float:
    """Return what imagen-pytorch adds to variances, more in half precision."""
    return 1e-3 if x.dtype.itemsize < 4 else 1e-5


class GainLayerNorm(nn.Module):
    """Layer norm over the last axis with a gain and no bias."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(dim))

    def forward(self, x: Tensor) -> Tensor:
        """Return (..., C) for `x` of the same shape."""
        return F.layer_norm(x, self.gain.shape, self.gain, eps=norm_eps(x))


class Similarities(nn.Module):
    """Compare queries with keys and mix the values, in PyTorch's fused attention."""

    def __init__(self, shape: AttentionShape) -> None:
        super().__init__()
        self.shape = shape
        learned = shape.similarity == "rms"
        self.q_scale = nn.Parameter(torch.ones(shape.head_dim)) if learned else None
        self.k_scale = nn.Parameter(torch.ones(shape.head_dim)) if learned else None

    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Return (B, N, heads * head_dim) for `query` (B, heads, N, head_dim), `key` and `value` (B, heads, M, ...)."""
        if self.shape.similarity != "dot":
            query, key = F.normalize(query, dim=-1), F.normalize(key, dim=-1)
        if self.q_scale is not None and self.k_scale is not None:
            query, key = query * self.q_scale, key * self.k_scale
        mixed = F.scaled_dot_product_attention(query, key, value, scale=_SCALES[self.shape.similarity])
        return mixed.transpose(1, 2).flatten(2)


def split_heads(x: Tensor, heads: int) -> Tensor:
    """Return (B, heads, N, C / heads) for `x` (B, N, C)."""
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)


class SelfAttention(nn.Module):
    """Attention from pixels to text, a learned null token and pixels, with one key and value for all heads."""

    def __init__(self, dim: int, shape: AttentionShape, context_dim: int | None) -> None:
        super().__init__()
        self.norm = GainLayerNorm(dim)
        self.null_kv = nn.Parameter(torch.randn(2, shape.head_dim))
        self.to_q = nn.Linear(dim, shape.inner_dim, bias=False)
        self.to_kv = nn.Linear(dim, 2 * shape.head_dim, bias=False)
        self.context_norm = None if context_dim is None else nn.LayerNorm(context_dim)
        self.context_to_kv = None if context_dim is None else nn.Linear(context_dim, 2 * shape.head_dim)
        self.similarities = Similarities(shape)
        self.to_out = nn.Linear(shape.inner_dim, dim, bias=False)
        self.norm_out = GainLayerNorm(dim)

    def forward(self, x: Tensor, tokens: Tensor | None = None) -> Tensor:
        """Return (B, N, C) for `x` (B, N, C) and `tokens` (B, S, D), which are left out where none are taken."""
        shape = self.similarities.shape
        x = self.norm(x)
        keys_values = [self.null_kv.flatten().expand(len(x), 1, -1), self.to_kv(x)]
        if self.context_norm is not None and self.context_to_kv is not None:
            keys_values.insert(0, self.context_to_kv(self.context_norm(tokens)))
        key, value = torch.cat(keys_values, dim=1)[:, None].expand(-1, shape.heads, -1, -1).chunk(2, dim=-1)
        mixed = self.similarities(split_heads(self.to_q(x), shape.heads), key, value)
        return self.norm_out(self.to_out(mixed))


class CrossAttention(nn.Module):
    """Attention from pixels to text and time and a learned null token."""

    def __init__(self, dim: int, shape: AttentionShape, context_dim: int) -> None:
        super().__init__()
        self.norm = GainLayerNorm(dim)
        self.null_kv = nn.Parameter(torch.randn(2, shape.head_dim))
        self.to_q = nn.Linear(dim, shape.inner_dim, bias=False)
        self.to_kv = nn.Linear(context_dim, 2 * shape.inner_dim, bias=False)
        self.similarities = Similarities(shape)
        self.to_out = nn.Linear(shape.inner_dim, dim, bias=False)
        self.norm_out = GainLayerNorm(dim)

    def forward(self, x: Tensor, tokens: Tensor) -> Tensor:
        """Return (B, N, C) for `x` (B, N, C) and `tokens` (B, S, D)."""
        mixed = self._mix(*self._heads(x, tokens))
        return self.norm_out(self.to_out(mixed))

    def _heads(self, x: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        heads = self.similarities.shape.heads
        query = split_heads(self.to_q(self.norm(x)), heads)
        key, value = (split_heads(part, heads) for part in self.to_kv(tokens).chunk(2, dim=-1))
        null_key, null_value = (null.expand(len(x), heads, 1, -1) for null in self.null_kv)
        return query, torch.cat([null_key, key], dim=2), torch.cat([null_value, value], dim=2)

    def _mix(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        return self.similarities(query, key, value)


class FeedForward(nn.Module):
    """Norm, linear, GELU, norm, linear, without biases."""

    def __init__(self, dim: int, mult: float) -> None:
        super().__init__()
        hidden = int(dim * mult)
        self.norm_in = GainLayerNorm(dim)
        self.proj_in = nn.Linear(dim, hidden, bias=False)
        self.norm_hidden = GainLayerNorm(hidden)
        self.proj_out = nn.Linear(hidden, dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return (..., C) for `x` of the same shape."""
        return self.proj_out(self.norm_hidden(F.gelu(self.proj_in(self.norm_in(x)))))


class TransformerLayer(nn.Module):
    """Attention over pixels and, except in the middle of old releases, a feed-forward."""

    def __init__(
        self, dim: int, shape: AttentionShape, context_dim: int | None, feed_forward_mult: float | None
    ) -> None:
        super().__init__()
        self.attention = SelfAttention(dim, shape, context_dim)
        self.feed_forward = None if feed_forward_mult is None else FeedForward(dim, feed_forward_mult)

    def forward(self, x: Tensor, tokens: Tensor | None) -> Tensor:
        """Return (B, N, C) for `x` (B, N, C)."""
        x = self.attention(x, tokens) + x
        return x if self.feed_forward is None else self.feed_forward(x) + x


class Transformer(nn.Module):
    """Transformer layers over the pixels of a map."""

    def __init__(
        self,
        dim: int,
        depth: int,
        shape: AttentionShape,
        context_dim: int | None,
        feed_forward_mult: float | None,
    ) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            [TransformerLayer(dim, shape, context_dim, feed_forward_mult) for _ in range(depth)]
        )

    def forward(self, x: Tensor, tokens: Tensor | None = None) -> Tensor:
        """Return (B, C, H, W) for `x` (B, C, H, W) and `tokens` (B, S, D)."""
        B, C, H, W = x.shape
        pixels = x.flatten(2).transpose(1, 2)
        for layer in self.layers:
            pixels = layer(pixels, tokens)
        return pixels.transpose(1, 2).reshape(B, C, H, W)
