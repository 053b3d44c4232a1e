# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""What imagen-pytorch's U-Net makes of noise levels and texts. Called by the U-Net, once per forward pass.

Legend: B batch, L text tokens, P places for text, S tokens in all, E encoder width, D token width, T width of the
conditioning vector.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diffusers_imagen.models.unet_imagen_pytorch_attention import (
    AttentionShape,
    FeedForward,
    GainLayerNorm,
    Similarities,
    split_heads,
)

# Of every text resampler in every release.
_RESAMPLER_DEPTH = 2
_RESAMPLER_FEED_FORWARD_MULT = 4
_MEAN_LATENTS = 4
RESAMPLER_MAX_LENGTH = 512


class LearnedSinusoids(nn.Module):
    """A number, and its sines and cosines at learned frequencies."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.frequencies = nn.Parameter(torch.randn(dim // 2))
        self.width = dim + 1

    def forward(self, value: Tensor) -> Tensor:
        """Return (B, dim + 1) for `value` (B,)."""
        angles = 2 * math.pi * value[:, None] * self.frequencies
        return torch.cat([value[:, None], angles.sin(), angles.cos()], dim=-1)


class FixedSinusoids(nn.Module):
    """The sines and cosines of a step number at fixed frequencies, without weights."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.num_frequencies = dim // 2
        self.width = dim

    def forward(self, value: Tensor) -> Tensor:
        """Return (B, dim) for `value` (B,)."""
        exponents = torch.arange(self.num_frequencies, device=value.device) * -(
            math.log(10000) / (self.num_frequencies - 1)
        )
        angles = value[:, None] * exponents.exp()
        return torch.cat([angles.sin(), angles.cos()], dim=-1)


class NoiseEmbedding(nn.Module):
    """A noise level as a conditioning vector and as tokens.

    Args:
        sinusoids: what embeds the number.
        conditioning_dim: T.
        num_tokens: how many tokens.
        token_dim: D.
    """

    def __init__(
        self, sinusoids: LearnedSinusoids | FixedSinusoids, conditioning_dim: int, num_tokens: int, token_dim: int
    ) -> None:
        super().__init__()
        self.sinusoids = sinusoids
        self.hidden = nn.Linear(sinusoids.width, conditioning_dim)
        self.to_vector = nn.Linear(conditioning_dim, conditioning_dim)
        self.to_tokens = nn.Linear(conditioning_dim, num_tokens * token_dim)
        self.num_tokens = num_tokens

    def forward(self, value: Tensor) -> tuple[Tensor, Tensor]:
        """Return the vector (B, T) and the tokens (B, num_tokens, D) of `value` (B,), float32 at least."""
        dtype = self.hidden.weight.dtype
        sinusoids = self.sinusoids(value.to(torch.promote_types(dtype, torch.float32)))
        hidden = F.silu(self.hidden(sinusoids.to(dtype)))
        return self.to_vector(hidden), self.to_tokens(hidden).unflatten(-1, (self.num_tokens, -1))


class ResamplerAttention(nn.Module):
    """Attention from latents to text tokens and to themselves."""

    def __init__(self, dim: int, shape: AttentionShape) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.norm_latents = nn.LayerNorm(dim)
        self.to_q = nn.Linear(dim, shape.inner_dim, bias=False)
        self.to_kv = nn.Linear(dim, 2 * shape.inner_dim, bias=False)
        self.similarities = Similarities(shape)
        self.to_out = nn.Linear(shape.inner_dim, dim, bias=False)
        self.norm_out = nn.LayerNorm(dim)

    def forward(self, tokens: Tensor, latents: Tensor) -> Tensor:
        """Return (B, latents, D) for `tokens` (B, P, D) and `latents` (B, latents, D)."""
        heads = self.similarities.shape.heads
        latents = self.norm_latents(latents)
        pair = self.to_kv(torch.cat([self.norm(tokens), latents], dim=1)).chunk(2, dim=-1)
        key, value = (split_heads(part, heads) for part in pair)
        return self.norm_out(self.to_out(self.similarities(split_heads(self.to_q(latents), heads), key, value)))


class ResamplerLayer(nn.Module):
    """Resampler attention and a feed-forward."""

    def __init__(self, dim: int, shape: AttentionShape) -> None:
        super().__init__()
        self.attention = ResamplerAttention(dim, shape)
        self.feed_forward = FeedForward(dim, _RESAMPLER_FEED_FORWARD_MULT)

    def forward(self, tokens: Tensor, latents: Tensor) -> Tensor:
        """Return (B, latents, D)."""
        latents = self.attention(tokens, latents) + latents
        return self.feed_forward(latents) + latents


class TextResampler(nn.Module):
    """Read all places for text into a few latents (Perceiver resampler, arXiv:2204.14198)."""

    def __init__(self, dim: int, num_latents: int, shape: AttentionShape) -> None:
        super().__init__()
        self.positions = nn.Embedding(RESAMPLER_MAX_LENGTH, dim)
        self.latents = nn.Parameter(torch.randn(num_latents, dim))
        self.mean_norm = GainLayerNorm(dim)
        self.mean_to_latents = nn.Linear(dim, _MEAN_LATENTS * dim)
        self.layers = nn.ModuleList([ResamplerLayer(dim, shape) for _ in range(_RESAMPLER_DEPTH)])

    def forward(self, tokens: Tensor) -> Tensor:
        """Return (B, 4 + latents, D) for `tokens` (B, P, D)."""
        mean = self.mean_to_latents(self.mean_norm(tokens.mean(dim=1))).unflatten(-1, (_MEAN_LATENTS, -1))
        latents = torch.cat([mean, self.latents.expand(len(tokens), -1, -1)], dim=1)
        placed = tokens + self.positions.weight[: tokens.shape[1]]
        for layer in self.layers:
            latents = layer(placed, latents)
        return latents


class TextVector(nn.Module):
    """A text's tokens as one conditioning vector: their mean, through norm and two linear layers."""

    def __init__(self, token_dim: int, conditioning_dim: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(token_dim)
        self.proj_in = nn.Linear(token_dim, conditioning_dim)
        self.proj_out = nn.Linear(conditioning_dim, conditioning_dim)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return (B, T) for `tokens` (B, S, D)."""
        return self.proj_out(F.silu(self.proj_in(self.norm(tokens.mean(dim=1)))))


def placed_tokens(tokens: Tensor, mask: Tensor, null_tokens: Tensor) -> Tensor:
    """Put tokens into all places for text; where there is none, the place's learned one.

    So the length of the padding does not matter.

    Args:
        tokens: (B, L, D); what is beyond the last place is cut.
        mask: (B, L) bool, True where a token is real.
        null_tokens: (1, P, D), learned.

    Returns:
        (B, P, D).
    """
    places = null_tokens.shape[1]
    tokens, mask = tokens[:, :places], mask[:, :places]
    missing = places - tokens.shape[1]
    return torch.where(F.pad(mask, (0, missing))[..., None], F.pad(tokens, (0, 0, 0, missing)), null_tokens)
