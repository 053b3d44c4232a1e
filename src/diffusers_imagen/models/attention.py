# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""Attention over image tokens and text tokens, behind Diffusers' attention dispatch.

Legend: B batch, C channels, H W height and width of a level, N = H * W image tokens, L text tokens,
D text width.
"""

from typing import Any

import torch
from diffusers.models.attention import AttentionModuleMixin
from diffusers.models.attention_dispatch import dispatch_attention_fn
from torch import Tensor, nn

from diffusers_imagen.models.cpu_attention import matmul_attention, prefers_matmul
from diffusers_imagen.models.initialisation import zeroed

# What an attention layer has made of a text, its keys and values (B, L, C): empty until the layer has seen it.
TextKeys = list[tuple[Tensor, Tensor]]


class ImagenAttnProcessor:
    """Attend from image tokens to image and text tokens in one softmax, or to text tokens alone."""

    # Read and set by Diffusers' `set_attention_backend` and context parallelism.
    _attention_backend: Any = None
    _parallel_config: Any = None

    def __call__(
        self, attn: "ImagenAttention", tokens: Tensor, text: Tensor, text_mask: Tensor, memo: TextKeys | None = None
    ) -> Tensor:
        """Return (B, N, C) for `tokens` (B, N, C), `text` (B, L, D), `text_mask` (B, L) and the text's `memo`."""
        B, N, C = tokens.shape
        heads = (attn.heads, C // attn.heads)
        query = attn.to_q(tokens).view(B, N, *heads)
        # Text keys come last: image tokens are always visible, so their part of the mask is constant.
        keys, values = [], []
        if attn.to_k is not None and attn.to_v is not None:
            keys, values = [attn.to_k(tokens)], [attn.to_v(tokens)]
            text_mask = torch.cat([text_mask.new_ones(B, N), text_mask], dim=1)
        text_key, text_value = self._text_keys(attn, text, memo)
        keys = [key.view(B, -1, *heads) for key in [*keys, text_key]]
        values = [value.view(B, -1, *heads) for value in [*values, text_value]]
        if self._attention_backend is None and prefers_matmul(query, text_mask.shape[1]):
            attended = matmul_attention(query, keys, values, text_mask)
        else:
            attended = dispatch_attention_fn(
                query,
                torch.cat(keys, dim=1),
                torch.cat(values, dim=1),
                attn_mask=text_mask[:, None, None, :],
                backend=self._attention_backend,
                parallel_config=self._parallel_config,
            )
        return attn.to_out[0](attended.reshape(B, N, C))

    @staticmethod
    def _text_keys(attn: "ImagenAttention", text: Tensor, memo: TextKeys | None) -> tuple[Tensor, Tensor]:
        if memo is None:
            return attn.add_k_proj(text), attn.add_v_proj(text)
        if not memo:
            memo.append((attn.add_k_proj(text), attn.add_v_proj(text)))
        return memo[0]


class ImagenAttention(nn.Module, AttentionModuleMixin):
    """Multi-head attention whose keys are the image's and the text's (Imagen, appendix D.3.1), or the text's only.

    Args:
        dim: C, width of the image tokens.
        text_dim: D, width of the text tokens.
        head_dim: width of a head; C must be a multiple of it.
        attend_image: whether image tokens are keys too; without them this is plain cross-attention.
    """

    _default_processor_cls = ImagenAttnProcessor
    _available_processors = [ImagenAttnProcessor]  # noqa: RUF012 (the host reads it as a class attribute)
    _supports_qkv_fusion = False

    def __init__(self, dim: int, text_dim: int, head_dim: int, attend_image: bool) -> None:
        super().__init__()
        self.heads = dim // head_dim
        self.to_q = nn.Linear(dim, dim, bias=False)
        self.to_k = nn.Linear(dim, dim, bias=False) if attend_image else None
        self.to_v = nn.Linear(dim, dim, bias=False) if attend_image else None
        self.add_k_proj = nn.Linear(text_dim, dim, bias=False)
        self.add_v_proj = nn.Linear(text_dim, dim, bias=False)
        self.to_out = nn.ModuleList([zeroed(nn.Linear(dim, dim))])
        self.processor = ImagenAttnProcessor()
        self._is_foreign = False

    def set_processor(self, processor: ImagenAttnProcessor) -> None:
        """Exchange how attention is computed.

        Args:
            processor: an `ImagenAttnProcessor`, or one that is called as it is. Diffusers' own, which know neither texts
                nor masks of this layer, are refused when they are to compute.
        """
        self._is_foreign = type(processor).__module__.startswith("diffusers.")
        super().set_processor(processor)

    def forward(self, tokens: Tensor, text: Tensor, text_mask: Tensor, memo: TextKeys | None = None) -> Tensor:
        """Return (B, N, C), to be added to `tokens` (B, N, C).

        Raises:
            ValueError: a processor of Diffusers' own.
        """
        if self._is_foreign:
            raise ValueError(
                f"`processor` is a {type(self.processor).__name__}, which does not fit these layers; derive one from "
                "ImagenAttnProcessor, or choose a kernel with `set_attention_backend`."
            )
        return self.processor(self, tokens, text, text_mask, memo)


class ImagenAttentionBlock(nn.Module):
    """Norm, attention, residual; then an optional feed-forward of `feed_forward_mult` times the width."""

    def __init__(
        self,
        dim: int,
        text_dim: int,
        head_dim: int,
        num_groups: int,
        attend_image: bool,
        feed_forward_mult: int,
    ) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(num_groups, dim)
        self.attn = ImagenAttention(dim, text_dim, head_dim, attend_image)
        self.feed_forward = None
        if feed_forward_mult:
            hidden = feed_forward_mult * dim
            self.feed_forward = nn.Sequential(
                nn.LayerNorm(dim), nn.Linear(dim, hidden), nn.GELU(), zeroed(nn.Linear(hidden, dim))
            )

    def forward(self, x: Tensor, text: Tensor, text_mask: Tensor, memo: TextKeys | None = None) -> Tensor:
        """Return (B, C, H, W) for `x` (B, C, H, W), `text` (B, L, D), `text_mask` (B, L) and the text's `memo`."""
        B, C, H, W = x.shape
        tokens = x.flatten(2).transpose(1, 2)  # (B, N, C); a view where x is channels_last
        normed = self.norm(x).flatten(2).transpose(1, 2)
        tokens = tokens + self.attn(normed, text, text_mask, memo)
        if self.feed_forward is not None:
            tokens = tokens + self.feed_forward(tokens)
        return tokens.transpose(1, 2).view(B, C, H, W)
