# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""Dynamic thresholding of one 1024 x 1024 picture against torch.quantile, interleaved in one process.

python benchmarks/thresholding.py
"""

import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor

from diffusers_imagen.diffusion.thresholding import dynamic_threshold

ROUNDS = 15


def with_quantile(x_0: Tensor) -> Tensor:
    """Threshold as schedulers do it, s by torch.quantile."""
    s = torch.quantile(x_0.abs().flatten(1), 0.995, dim=1).clamp(min=1).view(-1, 1, 1, 1)
    return x_0.clamp(-s, s) / s


def milliseconds(function: Callable[[Tensor], Tensor], x_0: Tensor) -> float:
    started = time.perf_counter()
    function(x_0)
    return 1000 * (time.perf_counter() - started)


def main() -> None:
    print(f"{torch.get_num_threads()} threads, medians of {ROUNDS} interleaved rounds, 1 x 3 x 1024 x 1024 float32")
    print("share above 1   ours ms   quantile ms   ratio   largest difference")
    generator = torch.Generator().manual_seed(0)
    for spread in (0.3, 0.5, 0.8, 1.5):
        x_0 = spread * torch.randn(1, 3, 1024, 1024, generator=generator)
        times = [(milliseconds(dynamic_threshold, x_0), milliseconds(with_quantile, x_0)) for _ in range(ROUNDS)]
        ours, theirs = (statistics.median(column) for column in zip(*times, strict=True))
        ratio = statistics.median(b / a for a, b in times)
        difference = (dynamic_threshold(x_0) - with_quantile(x_0)).abs().max().item()
        share = (x_0.abs() > 1).float().mean().item()
        print(f"{share:13.1%} {ours:9.1f} {theirs:13.1f} {ratio:7.1f} {difference:20.1e}")


if __name__ == "__main__":
    main()
