# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""Attention in bfloat16 on CPUs by plain matrix products, faster there than PyTorch's fused kernel.

The fused CPU kernel multiplies bfloat16 hardly faster than float32; matrix products use the processor's bfloat16
instructions (`benchmarks/attention.py` prints both). Called by the attention processor, in front of Diffusers'
dispatch.

Legend: B batch, N query tokens, M key tokens, H heads, D width of a head.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

# Scores of one product, in float32.
_CHUNK_BYTES = 4 << 20
# Training keeps the scores of all chunks, in both precisions; above this the fused kernel's recomputation is cheaper.
_MAX_KEPT_BYTES = 128 << 20


def prefers_matmul(query: Tensor, num_keys: int) -> bool:
    """Say whether `matmul_attention` is the faster way for a query (B, N, H, D)."""
    if query.device.type != "cpu" or query.dtype != torch.bfloat16:
        return False
    B, N, H, _ = query.shape
    kept = 6 * B * H * N * num_keys if torch.is_grad_enabled() and query.requires_grad else 0
    return kept <= _MAX_KEPT_BYTES


def matmul_attention(query: Tensor, keys: Sequence[Tensor], values: Sequence[Tensor], mask: Tensor) -> Tensor:
    """Compute softmax(query key^T / sqrt(D)) value, the softmax in float32.

    Args:
        query: (B, N, H, D).
        keys: parts (B, M_i, H, D), which are joined.
        values: the same.
        mask: (B, M) bool, False for keys that nobody may see; every sample needs a True.

    Returns:
        (B, N, H, D).
    """
    B, N, H, D = query.shape
    M = mask.shape[1]
    query = query.transpose(1, 2).reshape(B * H, N, D)
    # Heads before tokens, as the products read them: joining and reordering are one copy.
    key, value = (
        torch.cat([part.transpose(1, 2) for part in parts], dim=2).view(B * H, M, D) for parts in (keys, values)
    )
    # A look at the mask would break a compiled graph in two.
    is_plain = not torch.compiler.is_compiling() and bool(mask.all())
    bias = None if is_plain else torch.zeros(B, 1, 1, M).masked_fill_(~mask[:, None, None], float("-inf"))
    unused = query.new_empty(1, 1, 1)
    attended = []
    for rows in query.split(max(32, _CHUNK_BYTES // (4 * B * H * M)), dim=1):
        scores = torch.baddbmm(unused, rows, key.transpose(1, 2), beta=0, alpha=D**-0.5).float()
        if bias is not None:
            scores = (scores.view(B, H, -1, M) + bias).view(B * H, -1, M)
        attended.append(torch.bmm(scores.softmax(-1).to(value.dtype), value))
    return torch.cat(attended, dim=1).view(B, H, N, D).transpose(1, 2)
