# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""Attention in bfloat16 by matrix products against PyTorch's fused kernel on one core, in turns in one process.

The products need room for the scores. A fresh process gets that anew from the system in every call, which takes longer
than the products; a process that has held larger buffers, as any whole U-Net, has it. So the table is printed twice.

python benchmarks/attention.py
"""

import statistics
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from diffusers_imagen.models.cpu_attention import matmul_attention
from diffusers_imagen.training.allocator import keep_freed_memory

ROUNDS = 15
# Pictures, heads, image tokens, text tokens, width of a head.
SHAPES = ((1, 8, 64, 77, 64), (2, 8, 64, 77, 64), (1, 8, 256, 77, 64), (2, 8, 256, 77, 64), (1, 4, 1024, 77, 64))


def milliseconds(function: Callable[[], Tensor]) -> float:
    """Take processor time, which other programs on the machine do not lengthen."""
    started = time.process_time()
    function()
    return 1000 * (time.process_time() - started)


@torch.inference_mode()
def main() -> None:
    """Print the table of a fresh process, then that of one that keeps its memory."""
    torch.set_num_threads(1)
    print("memory from the system in every call:")
    compare()
    if keep_freed_memory():
        print("memory kept:")
        compare()


def compare() -> None:
    """Print medians of both ways and of their ratio for each shape."""
    for B, H, N, L, D in SHAPES:
        query, key, value = (torch.randn(B, tokens, H, D, dtype=torch.bfloat16) for tokens in (N, N + L, N + L))
        mask = torch.ones(B, N + L, dtype=torch.bool)

        def products(q: Tensor = query, k: Tensor = key, v: Tensor = value, m: Tensor = mask) -> Tensor:
            return matmul_attention(q, [k], [v], m)

        def fused(q: Tensor = query, k: Tensor = key, v: Tensor = value, m: Tensor = mask) -> Tensor:
            heads_first = (part.transpose(1, 2) for part in (q, k, v))
            return F.scaled_dot_product_attention(*heads_first, attn_mask=m[:, None, None]).transpose(1, 2)

        difference = (products().float() - fused().float()).abs().max().item()
        pairs = [(milliseconds(products), milliseconds(fused)) for _ in range(ROUNDS)]
        ours, theirs = (statistics.median(column) for column in zip(*pairs, strict=True))
        ratio = statistics.median(theirs / ours for ours, theirs in pairs)
        print(
            f"{B} x {H} heads x {N} + {L} tokens of {D}: {ours:.2f} ms, fused {theirs:.2f} ms, {ratio:.1f}x, ", end=""
        )
        print(f"largest difference {difference:.4f}")


if __name__ == "__main__":
    main()
