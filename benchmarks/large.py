# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""One step of the second enlargement, to 1024 px: each side in processes of its own, since some take gigabytes.

python benchmarks/large.py SIDE VARIANT SCALE THREADS    one process' work; prints JSON

Each process is warmed up on small pictures, then on large ones too where that takes no minutes. Each variant runs with
malloc's defaults and with settings that keep freed memory, and the better one counts: some sides spend a third of
their time on page faults otherwise.
"""

import argparse
import json
import time

import torch
from candidates import VARIANTS, Variant, candidate
from inputs import make_inputs
from processes import KEEP_FREED_MEMORY, run_alone
from results import Measurement, Row
from scale import SCALES, Scale

MALLOC = {"": {}, ", malloc keeps memory": KEEP_FREED_MEMORY}
# Half a minute a pass: only what has been best at smaller sizes, by a wide margin.
_IF_VARIANTS = ("fp32 channels_last", "bf16 channels_last")


def measure(scale: Scale, threads: int) -> list[Row]:
    """Time one forward pass at batch 1 of every side."""
    measurements = []
    malloc = MALLOC if scale.every_variant else {"": {}}
    for side in VARIANTS:
        for variant in _variants(side, scale):
            for label, environment in malloc.items():
                found = run_alone("large.py", [side, variant.name, scale.name, str(threads)], threads, environment)
                measurements.append(Measurement(**{**found, "variant": variant.name + label}))
    title = f"SR {scale.enlarged} -> {scale.large} px, one step, batch 1"
    return [Row("large", title, "s", False, measurements)]


def _variants(side: str, scale: Scale) -> list[Variant]:
    chosen = [one for one in VARIANTS[side] if side != "IF" or one.name in _IF_VARIANTS]
    return chosen if scale.every_variant else chosen[:1]


def _work(side: str, variant: Variant, scale: Scale) -> dict[str, object]:
    one = candidate(side, variant, "large", scale)
    small = make_inputs("large", scale.enlarged).to(variant.dtype)
    with torch.inference_mode():
        one.unet(small)
    passes = scale.large_passes[side]
    if passes > 1:
        one()
    seconds = []
    for _ in range(passes):
        begin = time.perf_counter()
        one()
        seconds.append(time.perf_counter() - begin)
    return vars(one.measurement(seconds))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("side", choices=VARIANTS)
    parser.add_argument("variant")
    parser.add_argument("scale", choices=SCALES)
    parser.add_argument("threads", type=int)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    variant = next(one for one in VARIANTS[arguments.side] if one.name == arguments.variant)
    print(json.dumps(_work(arguments.side, variant, SCALES[arguments.scale])))


if __name__ == "__main__":
    main()
