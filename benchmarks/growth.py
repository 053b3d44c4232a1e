# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""How our time grows with pixels, batch, steps and text length, in the fast layout."""

from collections.abc import Callable

import torch
from candidates import PACKED, Candidate, apply, build, candidate
from cascade import draw, our_cascade
from inputs import make_inputs
from results import Measurement, Row
from scale import Scale
from timing import interleave

SIDE = "fast"
TITLES = {
    "pixels": "pixels of a picture (SR forward)",
    "batch": "pictures of a batch (base forward)",
    "steps": "steps of each stage (guided cascade)",
    "text": "tokens of the text (base forward)",
}


def measure(scale: Scale) -> list[Row]:
    """Time each curve's points in turns."""
    rows = []
    for name, title in TITLES.items():
        functions = _CURVES[name](scale)
        seconds = interleave({str(x): function for x, function in functions.items()}, scale.growth)
        points = [Measurement(SIDE, x, "bf16", values) for x, values in seconds.items()]
        rows.append(Row(f"growth_{name}", f"growth with {title}", "s", True, points))
    return rows


def _forward(one: Candidate, pixels: int, batch: int = 1, tokens: int | None = None) -> Callable[[], object]:
    stage = "base" if one.inputs.low_res is None else "sr"
    inputs = make_inputs(stage, pixels, batch, **({} if tokens is None else {"tokens": tokens}))
    inputs = inputs.to(one.variant.dtype)

    def run() -> object:
        with torch.inference_mode():
            return one.unet(inputs)

    return run


# Every point has a U-Net of its own: weights are packed for one shape, and would be packed again at every turn.
def _with_pixels(scale: Scale) -> dict[int, Callable[[], object]]:
    sides = scale.growth_points["pixels"]
    return {side**2: _forward(candidate(SIDE, PACKED, "sr", scale, pixels=side), side) for side in sides}


def _with_batch(scale: Scale) -> dict[int, Callable[[], object]]:
    sizes = scale.growth_points["batch"]
    return {batch: _forward(candidate(SIDE, PACKED, "base", scale, batch), scale.base, batch) for batch in sizes}


def _with_text(scale: Scale) -> dict[int, Callable[[], object]]:
    unet = candidate(SIDE, PACKED, "base", scale)
    return {tokens: _forward(unet, scale.base, 1, tokens) for tokens in scale.growth_points["text"]}


def _with_steps(scale: Scale) -> dict[int, Callable[[], object]]:
    unets = []
    for stage in ("base", "sr"):
        unet = build(SIDE, stage, scale)
        apply(PACKED, unet)
        unets.append(unet.unet)
    pipe, text = our_cascade(*unets), make_inputs("base", scale.base).text
    return {steps: lambda steps=steps: draw(pipe, text, steps) for steps in scale.growth_points["steps"]}


_CURVES = {"pixels": _with_pixels, "batch": _with_batch, "steps": _with_steps, "text": _with_text}
