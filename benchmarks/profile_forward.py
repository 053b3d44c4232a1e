# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""Where a forward pass of the fast layout spends its time: the profile behind the targets that are missed.

python benchmarks/profile_forward.py [--threads 2] [--quick]

For each work: its time, what its convolutions reach, the time of each kind of operation, and two floors: the operations
at the machine's best convolution rate, and the weights read from memory once.
"""

import argparse
import time
from collections import defaultdict
from collections.abc import Callable

import torch
from candidates import PACKED, apply, build
from flops import count_gflop
from inputs import make_inputs
from limits import measure_limits
from scale import SCALES, Scale
from torch.profiler import ProfilerActivity, profile

WORKS = (("base", 1), ("base", 4), ("sr", 1), ("large", 1))
RUNS = 10
# The first name that an operation's own contains decides; what no name takes is counted as other.
KINDS = {
    "convolutions": ("convolution",),
    "linear layers": ("linear", "addmm"),
    "attention": ("attention", "bmm", "softmax"),
    "norms": ("norm",),
    "activations": ("silu", "gelu"),
    "copies and layout": ("copy", "cat", "pixel_", "upsample", "contiguous", "clone"),
}


def profile_work(stage: str, batch: int, scale: Scale, conv_rate: float) -> None:
    """Print the times of one work."""
    unet = build("fast", stage, scale)
    inputs = make_inputs(stage, scale.pixels(stage), batch)
    gflop = count_gflop(lambda: unet(inputs))
    weights = 2 * sum(parameter.numel() for parameter in unet.parameters())
    apply(PACKED, unet)
    inputs = inputs.to(PACKED.dtype)

    def run() -> None:
        with torch.inference_mode():
            unet(inputs)

    seconds = _fastest(run)
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        for _ in range(RUNS):
            run()
    kinds: dict[str, float] = defaultdict(float)
    for event in profiler.key_averages():
        kinds[_kind(event.key)] += event.self_cpu_time_total / RUNS / 1e3
    total = sum(kinds.values())
    print(f"\n{stage}, batch {batch}: {gflop:.1f} GFLOP in {1e3 * seconds:.1f} ms, {gflop / seconds:.0f} GFLOP/s")
    print(
        f"  floors: {1e3 * gflop / conv_rate:.1f} ms of operations, {1e3 * _reading_time(weights):.1f} ms of weights"
    )
    for kind, milliseconds in sorted(kinds.items(), key=lambda item: -item[1]):
        print(f"  {kind:20}{milliseconds:7.2f} ms{100 * milliseconds / total:5.0f} %")


def _kind(name: str) -> str:
    return next((kind for kind, parts in KINDS.items() if any(part in name for part in parts)), "other")


def _fastest(run: Callable[[], object]) -> float:
    """Return the seconds of the best of the runs after three to warm up."""
    times = []
    for _ in range(3 + 2 * RUNS):
        started = time.perf_counter()
        run()
        times.append(time.perf_counter() - started)
    return min(times[3:])


def _reading_time(size: int) -> float:
    """Return the seconds that reading `size` bytes takes when they are not in a cache."""
    parts = torch.zeros(max(4, 2**28 // size), size // 4)
    turn = iter(range(10**6))
    return _fastest(lambda: parts[next(turn) % len(parts)].sum())


def main() -> None:
    """Read the command line and profile every work."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--quick", action="store_true", help="tiny models, to see that it runs")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    conv_rate = measure_limits()["conv bf16"]
    print(f"best bf16 convolution rate {conv_rate:.0f} GFLOP/s, {arguments.threads} threads")
    for stage, batch in WORKS:
        profile_work(stage, batch, SCALES["quick" if arguments.quick else "full"], conv_rate)


if __name__ == "__main__":
    main()
