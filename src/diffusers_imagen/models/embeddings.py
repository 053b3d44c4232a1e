# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""Scalars and text to conditioning vectors. Called by the U-Net, once per forward pass.

Legend: B batch, L text tokens, S stacked encoder layers, E encoder width, D text width inside the U-Net,
T width of the conditioning vector.
"""

import torch
from diffusers.models.attention_dispatch import dispatch_attention_fn
from diffusers.models.embeddings import TimestepEmbedding, Timesteps
from torch import Tensor, nn

from diffusers_imagen.models.initialisation import zeroed

NUM_FREQUENCIES = 128


class ScalarEmbedding(nn.Module):
    """Embed a scalar in [0, 1] per sample: sinusoids, then a two-layer perceptron.

    The unit interval is stretched to [0, 1000], the range that sinusoidal time embeddings are made for.
    """

    def __init__(self, conditioning_dim: int, zero_init: bool = False) -> None:
        super().__init__()
        self.sinusoids = Timesteps(2 * NUM_FREQUENCIES, flip_sin_to_cos=True, downscale_freq_shift=0)
        self.mlp = TimestepEmbedding(2 * NUM_FREQUENCIES, conditioning_dim)
        if zero_init:
            zeroed(self.mlp.linear_2)

    def forward(self, value: Tensor, dtype: torch.dtype) -> Tensor:
        """Return (B, T) for `value` (B,); the sinusoids are made in float32, the rest in `dtype`."""
        return self.mlp(self.sinusoids(1000 * value.float()).to(dtype))


class TextTransformerLayer(nn.Module):
    """One pre-norm transformer layer over the text tokens; padding is never attended to."""

    def __init__(self, dim: int, head_dim: int = 64) -> None:
        super().__init__()
        self.num_heads = max(1, dim // head_dim)
        self.norm1 = nn.LayerNorm(dim)
        self.to_qkv = nn.Linear(dim, 3 * dim)
        self.to_out = nn.Linear(dim, dim)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = nn.Sequential(nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim))

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """Return (B, L, D) for `tokens` (B, L, D) and `mask` (B, L), True where a token is real."""
        B, L, D = tokens.shape
        qkv = self.to_qkv(self.norm1(tokens)).view(B, L, 3, self.num_heads, D // self.num_heads)
        attended = dispatch_attention_fn(*qkv.unbind(2), attn_mask=mask[:, None, None, :])
        tokens = tokens + self.to_out(attended.reshape(B, L, D))
        return tokens + self.mlp(self.norm2(tokens))


class TextPooling(nn.Module):
    """Pool text tokens into one vector by attention from their mean (Imagen, arXiv:2205.11487, appendix F)."""

    def __init__(self, dim: int, conditioning_dim: int, head_dim: int = 64) -> None:
        super().__init__()
        self.num_heads = max(1, dim // head_dim)
        self.to_q = nn.Linear(dim, dim)
        self.to_kv = nn.Linear(dim, 2 * dim)
        self.norm = nn.LayerNorm(dim)
        self.proj = nn.Linear(dim, conditioning_dim)

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """Return (B, T) for `tokens` (B, L, D); only tokens under `mask` (B, L) count."""
        B, L, D = tokens.shape
        weight = mask.to(tokens.dtype)[..., None]
        mean = (tokens * weight).sum(1, keepdim=True) / weight.sum(1, keepdim=True).clamp(min=1)
        query = self.to_q(mean).view(B, 1, self.num_heads, D // self.num_heads)
        key, value = self.to_kv(tokens).view(B, L, 2, self.num_heads, D // self.num_heads).unbind(2)
        pooled = dispatch_attention_fn(query, key, value, attn_mask=mask[:, None, None, :])
        return self.proj(self.norm(pooled.reshape(B, D) + mean[:, 0]))


class TextAdapter(nn.Module):
    """Turn a frozen encoder's hidden states into the U-Net's text tokens and a pooled vector.

    Each stacked encoder layer is normalised on its own, all are projected together, learned positions and
    `num_layers` small transformer layers follow. A row without a single real token becomes the learned null
    text: one token, which classifier-free guidance's unconditional half uses.
    """

    def __init__(
        self,
        encoder_dim: int,
        num_stacked: int,
        dim: int,
        conditioning_dim: int,
        num_layers: int,
        max_length: int,
    ) -> None:
        super().__init__()
        self.encoder_dim = encoder_dim
        self.norms_in = nn.ModuleList([nn.LayerNorm(encoder_dim) for _ in range(num_stacked)])
        self.proj_in = nn.Linear(num_stacked * encoder_dim, dim)
        self.null_text = nn.Parameter(0.02 * torch.randn(dim))
        self.positions = nn.Parameter(0.02 * torch.randn(max_length, dim))
        self.layers = nn.ModuleList([TextTransformerLayer(dim) for _ in range(num_layers)])
        self.norm_out = nn.LayerNorm(dim)
        self.pooling = TextPooling(dim, conditioning_dim)

    def forward(self, hidden_states: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Return tokens (B, L, D), their mask (B, L) and the pooled text (B, T).

        Args:
            hidden_states: (B, L, S * E), the encoder's chosen layers side by side.
            mask: (B, L) bool, True where a token is real; `None` means everywhere.
        """
        B, L, _ = hidden_states.shape
        if mask is None:
            mask = torch.ones(B, L, dtype=torch.bool, device=hidden_states.device)
        stacked = hidden_states.split(self.encoder_dim, dim=-1)
        normed = [norm(states) for norm, states in zip(self.norms_in, stacked, strict=True)]
        tokens = self.proj_in(torch.cat(normed, dim=-1))

        first = torch.arange(L, device=mask.device) == 0
        is_null = ~mask.any(dim=1, keepdim=True) & first  # (B, L): the first place of rows without text
        mask = mask | is_null
        tokens = torch.where(is_null[..., None], self.null_text, tokens) + self.positions[:L]
        for layer in self.layers:
            tokens = layer(tokens, mask)
        tokens = self.norm_out(tokens)
        return tokens, mask, self.pooling(tokens, mask)
