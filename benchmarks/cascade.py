# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""The whole cascade, text states given, to a PIL picture: each side through its own pipeline, with guidance.

All take the same number of steps, of one evaluation each, in both stages, and guide both. Ours runs in bfloat16. The
peers run in float32, as they come, in both memory layouts; a second row has them in the half precision that is fastest
for them, too.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import torch
from candidates import PACKED, PLAIN, VARIANTS, Variant, apply, build
from diffusers import DPMSolverMultistepScheduler
from flops import count_gflop
from inputs import make_inputs
from peer_if import IFCascade
from peer_imagen_pytorch import make_imagen, sample
from results import OURS, PEERS, Measurement, Row
from scale import Scale
from timing import interleave
from torch import nn
from training import autocast

from diffusers_imagen import ImagenCascadePipeline

GUIDANCE = 5.0
STAGES = ("base", "sr")


def measure(scale: Scale) -> list[Row]:
    """Time whole pictures, in turns."""
    text = make_inputs("base", scale.base).text
    runs: dict[str, Callable[[], Any]] = {}
    known: dict[str, Measurement] = {}
    for side in (*OURS, *PEERS):
        for variant in _variants(side):
            unets = [build(side, stage, scale) for stage in STAGES]
            parameters = sum(weight.numel() for unet in unets for weight in unet.parameters())
            gflop = _gflop(unets, scale)
            for unet in unets:
                apply(variant, unet)
            name = f"{side} / {variant.name}"
            runs[name] = _in_precision(variant, _pipeline(side, [unet.unet for unet in unets], scale, text, variant))
            known[name] = Measurement(side, variant.name, variant.precision, [], parameters, round(gflop, 3))
    seconds = interleave(runs, scale.whole)
    found = [dataclasses.replace(known[name], values=values) for name, values in seconds.items()]
    title = f"cascade {scale.base} -> {scale.enlarged} px, {scale.steps} + {scale.steps} steps, guided"
    in_float32 = [one for one in found if one.side in OURS or one.precision == "fp32"]
    return [
        Row("cascade", f"{title}, peers in fp32", "s", True, in_float32),
        Row("cascade_best", f"{title}, all in their best precision", "s", True, found),
    ]


def _variants(side: str) -> tuple[Variant, ...]:
    if side in OURS:
        return PLAIN, PACKED
    # Of those in half precision, single passes are fastest in the one for each side.
    half = "bf16 channels_last" if side == "IF" else "bf16 autocast channels_last"
    return tuple(variant for variant in VARIANTS[side] if variant.precision == "fp32" or variant.name == half)


def _in_precision(variant: Variant, draw_one: Callable[[], Any]) -> Callable[[], Any]:
    def run() -> Any:
        with autocast(variant):
            return draw_one()

    return run


def _gflop(unets: list[nn.Module], scale: Scale) -> float:
    """Count both stages' passes, with and without text, of all steps."""
    passes = 2 * scale.steps
    inputs = [make_inputs(stage, scale.pixels(stage)) for stage in STAGES]
    return passes * sum(count_gflop(lambda u=u, i=i: u(i)) for u, i in zip(unets, inputs, strict=True))


def _pipeline(
    side: str, unets: list[nn.Module], scale: Scale, text: torch.Tensor, variant: Variant
) -> Callable[[], Any]:
    if side == "IF":
        both, given = IFCascade(*unets), text.to(variant.dtype)
        return lambda: both(given, scale.steps, GUIDANCE)
    if side == "imagen-pytorch":
        imagen = make_imagen(unets, [scale.base, scale.enlarged], scale.steps).eval()
        return lambda: sample(imagen, text, GUIDANCE)
    pipe = our_cascade(*unets)
    return lambda: draw(pipe, text, scale.steps)


def our_cascade(base: nn.Module, enlargement: nn.Module) -> ImagenCascadePipeline:
    """Make a cascade of two of our U-Nets without a text encoder."""
    schedulers = [
        DPMSolverMultistepScheduler(beta_schedule="squaredcos_cap_v2", timestep_spacing="trailing") for _ in STAGES
    ]
    pipe = ImagenCascadePipeline(
        tokenizer=None,
        text_encoder=None,
        unet=base,
        scheduler=schedulers[0],
        sr_unet_1=enlargement,
        sr_scheduler_1=schedulers[1],
        sr_unet_2=None,
        sr_scheduler_2=None,
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


def draw(pipe: ImagenCascadePipeline, text: torch.Tensor, steps: int) -> Any:
    """Draw one picture for each row of `text`, as PIL, both stages guided."""
    return pipe(
        prompt_embeds=text,
        num_inference_steps={"base": steps, "sr_1": steps},
        guidance_scale={"base": GUIDANCE, "sr_1": GUIDANCE},
        noise_level={"sr_1": 0.25},
    ).images
