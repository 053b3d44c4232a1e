# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""Peak memory of the base stage at batch 4 over the interpreter's with everything imported: inference and training.

python benchmarks/memory.py SIDE VARIANT WORK SCALE THREADS    one process' work; prints JSON

Linux only: the peak is the kernel's own high-water mark of resident memory, set back once the U-Net is made. The peers
run in float32; ours with bf16 weights in inference and with bf16 autocast on float32 weights in training.
"""

import argparse
import ctypes
import gc
import json
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from candidates import PACKED, PLAIN, VARIANTS, Variant, apply, build
from inputs import Inputs, make_inputs
from processes import run_alone
from results import OURS, PEERS, Measurement, Row
from scale import SCALES, Scale
from torch import nn
from training import autocast

BATCH = 4
TRAINING = Variant("bf16 autocast channels_last", autocast=True, channels_last=True)
_VARIANTS = {
    "inference": {**dict.fromkeys(OURS, (PLAIN, PACKED)), **{side: VARIANTS[side][:1] for side in PEERS}},
    "training": {**dict.fromkeys(OURS, (TRAINING,)), **{side: VARIANTS[side][:1] for side in PEERS}},
}


def measure(scale: Scale, threads: int) -> list[Row]:
    """Measure every side, each variant in processes of its own."""
    rows = []
    for work, sides in _VARIANTS.items():
        measurements = []
        for side, variants in sides.items():
            for variant in variants if scale.every_variant else variants[:1]:
                arguments = [side, variant.name, work, scale.name, str(threads)]
                found = [run_alone("memory.py", arguments, threads) for _ in range(min(3, scale.processes))]
                values = [one["mib"] for one in found]
                measurements.append(Measurement(side, variant.name, variant.precision, values))
        title = f"peak memory, base {scale.base} px, batch {BATCH}: {work}"
        rows.append(Row(f"memory_{work}", title, "MiB", False, measurements))
    return rows


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def _peak() -> int:
    line = next(one for one in Path("/proc/self/status").read_text().splitlines() if one.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


def _forget_peak() -> None:
    """Give freed memory back and set the high-water mark to what is left."""
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")


def peak_over_model(make: Callable[[], Callable[[], object]]) -> float:
    """Return the peak of three calls of what `make` gives over what lay in memory before `make`, in MiB."""
    _forget_peak()
    before = _resident()
    step = make()
    _forget_peak()
    for _ in range(3):
        step()
    return (_peak() - before) / 2**20


def _work(side: str, variant: Variant, work: str, scale: Scale) -> float:
    if side == "imagen-pytorch":
        build(side, "base", SCALES["quick"])  # so that its import counts as the interpreter's, as the others' do

    def make() -> Callable[[], object]:
        unet = build(side, "base", scale)
        apply(variant, unet)
        inputs = make_inputs("base", scale.base, BATCH).to(variant.dtype)
        return _inference(unet, inputs, variant) if work == "inference" else _training(unet, inputs, variant)

    return peak_over_model(make)


def _inference(unet: nn.Module, inputs: Inputs, variant: Variant) -> Callable[[], object]:
    def run() -> object:
        with torch.inference_mode(), autocast(variant):
            return unet(inputs)

    return run


def _training(unet: nn.Module, inputs: Inputs, variant: Variant) -> Callable[[], object]:
    optimizer = torch.optim.AdamW(unet.train().parameters(), lr=1e-4, fused=True)

    def run() -> None:
        with autocast(variant):
            prediction = unet(inputs)
        F.mse_loss(prediction[:, :3].float(), inputs.x).backward()
        optimizer.step()
        optimizer.zero_grad()

    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("side", choices=VARIANTS)
    parser.add_argument("variant")
    parser.add_argument("work", choices=_VARIANTS)
    parser.add_argument("scale", choices=SCALES)
    parser.add_argument("threads", type=int)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    variant = next(one for one in _VARIANTS[arguments.work][arguments.side] if one.name == arguments.variant)
    print(json.dumps({"mib": _work(arguments.side, variant, arguments.work, SCALES[arguments.scale])}))


if __name__ == "__main__":
    main()
