# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""What `torch.compile` gives our U-Nets and what it costs to warm up, and what gradient checkpointing gives and costs.

python benchmarks/compiled.py [--only forward,training,checkpointing] [--quick] [--threads 1]

Eager and compiled run in turns in one process, on one thread by default, whose processor time other programs do not
lengthen. The warm-up is the processor time of the first call, with that of the C++ compiler, less that of a later one.
"""

import argparse
import copy
import json
import os
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

# One compiling process, this one: what others take would not be counted. And no cache of earlier runs.
os.environ.update({"TORCHINDUCTOR_COMPILE_THREADS": "1", "TORCHINDUCTOR_FORCE_DISABLE_CACHES": "1"})
os.environ.update({"HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error"})

import torch
import torch.nn.functional as F
from candidates import PACKED, PLAIN, Variant, apply, build
from inputs import make_inputs
from intervals import median_interval, ratios
from memory import peak_over_model
from processes import run_alone
from results import RESULTS, machine_facts
from scale import SCALES, Scale
from timing import interleave
from torch import nn

TRAINING = Variant("bf16 autocast channels_last", autocast=True, channels_last=True)
SIDES = ("paper", "fast")
COMPILED = ("fast",)


def forward(scale: Scale, _: int) -> dict[str, Any]:
    """Compare passes at batch 1: eager, eager with packed weights, blocks compiled one by one, compiled as a whole."""
    found = {}
    for side in COMPILED:
        for stage in ("base", "sr"):
            inputs = make_inputs(stage, scale.pixels(stage), 1).to(PLAIN.dtype)
            unets = {"eager": _unet(side, stage, scale, PLAIN), "packed": _unet(side, stage, scale, PACKED)}
            for how in ("blocks", "whole"):
                unets[how] = _unet(side, stage, scale, PLAIN)
                _compile(unets[how], how)

            def passes(unet: nn.Module, inputs: Any = inputs) -> Callable[[], object]:
                def run() -> object:
                    with torch.inference_mode():
                        return unet(inputs)

                return run

            found[f"{side} {stage}"] = _compare({how: passes(unet) for how, unet in unets.items()}, scale)
    return found


def training(scale: Scale, _: int) -> dict[str, Any]:
    """Compare training steps, without noise and averaged weights, which are no part of the U-Net."""
    found = {}
    for side in COMPILED:
        unets = {how: _unet(side, "base", scale, TRAINING).train() for how in ("eager", "blocks", "whole")}
        for how in ("blocks", "whole"):
            _compile(unets[how], how)
        steps = {how: training_step(unet, scale.training_pixels, scale.training_batch) for how, unet in unets.items()}
        found[side] = _compare(steps, scale)
    return found


def checkpointing(scale: Scale, threads: int) -> dict[str, Any]:
    """Compare training steps at the base's full size with and without gradient checkpointing: time and peak memory."""
    found = {}
    for side in SIDES:
        plain = _unet(side, "base", scale, TRAINING).train()
        again = copy.deepcopy(plain)
        again.unet.enable_gradient_checkpointing()
        unets = {"eager": plain, "checkpointed": again}
        steps = {how: training_step(unet, scale.base, scale.training_batch) for how, unet in unets.items()}
        found[side] = _compare(steps, scale)
        for how in unets:
            arguments = ["--memory-of", side, how, "--threads", str(threads)]
            quick = ["--quick"] if scale.name == "quick" else []
            found[side][how]["mib"] = run_alone("compiled.py", [*arguments, *quick], threads)["mib"]
    return found


def training_step(unet: nn.Module, pixels: int, batch: int) -> Callable[[], object]:
    """Make a step: forward, backward, fused AdamW."""
    inputs = make_inputs("base", pixels, batch)
    optimizer = torch.optim.AdamW(unet.parameters(), lr=1e-4, fused=True)

    def step() -> None:
        with torch.autocast("cpu", torch.bfloat16):
            prediction = unet(inputs)
        F.mse_loss(prediction[:, :3].float(), inputs.x).backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def _unet(side: str, stage: str, scale: Scale, variant: Variant) -> nn.Module:
    unet = build(side, stage, scale)
    apply(variant, unet)
    return unet


def _compile(unet: nn.Module, how: str) -> None:
    # Graphs that other U-Nets have left would count against the limit of recompilations.
    torch._dynamo.reset()
    if how == "blocks":
        unet.unet.compile_repeated_blocks(dynamic=False)
    else:
        unet.unet.compile(dynamic=False)


def _compare(functions: dict[str, Callable[[], object]], scale: Scale) -> dict[str, Any]:
    """Time in turns; a ratio above 1 is faster than eager."""
    first = {}
    for how, function in functions.items():
        begin = sum(os.times()[:4])
        function()
        first[how] = sum(os.times()[:4]) - begin
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    seconds = interleave(functions, scale.forward, clock)
    found: dict[str, Any] = {}
    for how, values in seconds.items():
        faster = median_interval(ratios(seconds["eager"], values))
        middle = median_interval(values).median
        found[how] = {"ms": 1000 * middle, "faster": faster._asdict(), "warm_up_s": first[how] - middle}
        print(
            f"  {how:13} {1000 * middle:8.1f} ms  {faster.median:.2f}x [{faster.low:.2f}, {faster.high:.2f}] of eager"
            f"  warm-up {first[how] - middle:.1f} s",
            flush=True,
        )
    return found


def _memory_of(side: str, how: str, scale: Scale) -> float:
    """Measure a process of its own: the peak of three steps over what lies in memory before the U-Net is made, MiB."""

    def make() -> Callable[[], object]:
        unet = _unet(side, "base", scale, TRAINING).train()
        if how == "checkpointed":
            unet.unet.enable_gradient_checkpointing()
        return training_step(unet, scale.base, scale.training_batch)

    return peak_over_model(make)


PARTS = {"forward": forward, "training": training, "checkpointing": checkpointing}


def main() -> None:
    """Measure the parts and save what was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join(PARTS), help=f"parts, with commas: {', '.join(PARTS)}")
    parser.add_argument("--quick", action="store_true", help="tiny models, no figures worth keeping")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--memory-of", nargs=2, metavar=("SIDE", "HOW"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore")
    torch.set_num_threads(arguments.threads)
    scale = SCALES["quick" if arguments.quick else "full"]
    if arguments.memory_of:
        print(json.dumps({"mib": _memory_of(*arguments.memory_of, scale)}))
        return
    file = RESULTS / ("quick" if arguments.quick else "") / "compiled.json"
    results = json.loads(file.read_text()) if file.is_file() else {}
    for name in arguments.only.split(","):
        if name not in PARTS:
            sys.exit(f"no part {name}; there is {', '.join(PARTS)}")
        print(name, flush=True)
        results[name] = PARTS[name](scale, arguments.threads)
        results["machine"] = machine_facts(arguments.threads)
        file.parent.mkdir(parents=True, exist_ok=True)
        Path(file).write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
