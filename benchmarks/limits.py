# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""The most that this machine does: matrix products and 3x3 convolutions of good shapes, in float32 and bfloat16.

A limit is the best single run of the best shape, since nothing can make a machine faster than it is, and noise only
slower. Floating-point operations are counted as multiplications and additions.
"""

import time
from collections.abc import Callable

import torch
import torch.nn.functional as F

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}
MATRICES = (1024, 2048)
CONVOLUTIONS = ((1, 256, 64), (4, 256, 32), (4, 128, 64), (1, 512, 32))  # batch, channels, pixels


def measure_limits(seconds: float = 0.4) -> dict[str, float]:
    """Return GFLOP/s by "gemm fp32", "conv bf16" and so on, spending about `seconds` on each shape."""
    limits = {}
    with torch.inference_mode():
        for name, dtype in PRECISIONS.items():
            limits[f"gemm {name}"] = max(_gemm(n, dtype, seconds) for n in MATRICES)
            limits[f"conv {name}"] = max(_convolution(*shape, dtype, seconds) for shape in CONVOLUTIONS)
    return limits


def _gemm(n: int, dtype: torch.dtype, seconds: float) -> float:
    a, b = torch.randn(n, n).to(dtype), torch.randn(n, n).to(dtype)
    return _best_rate(lambda: a @ b, 2 * n**3, seconds)


def _convolution(batch: int, channels: int, pixels: int, dtype: torch.dtype, seconds: float) -> float:
    x = torch.randn(batch, channels, pixels, pixels).to(dtype).contiguous(memory_format=torch.channels_last)
    weight = torch.randn(channels, channels, 3, 3).to(dtype).contiguous(memory_format=torch.channels_last)
    flop = 2 * batch * pixels**2 * channels**2 * 9
    return _best_rate(lambda: F.conv2d(x, weight, padding=1), flop, seconds)


def _best_rate(function: Callable[[], object], flop: int, seconds: float) -> float:
    """Return GFLOP/s of the fastest of the runs that fit into `seconds`, three at least."""
    function()
    best, runs, started = float("inf"), 0, time.perf_counter()
    while runs < 3 or time.perf_counter() - started < seconds:
        begin = time.perf_counter()
        function()
        best = min(best, time.perf_counter() - begin)
        runs += 1
    return flop / best / 1e9
