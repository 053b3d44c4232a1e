# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""Diffusers' guiders on the built-in cascade's base: a sheet of guider x prompt, one seed.

python benchmarks/guiders_builtin.py --out docs/guiders.jpg
"""

import argparse
import copy
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers import DPMSolverMultistepScheduler, guiders
from diffusers.hooks import LayerSkipConfig
from diffusers.hooks.smoothed_energy_guidance_utils import SmoothedEnergyGuidanceConfig
from diffusers.utils import is_kornia_available, logging
from PIL import Image, ImageDraw

from diffusers_imagen import ImagenCascadePipeline, UNetAutoGuidance

PROMPTS = (
    "a cat wearing a hat",
    "a red apple",
    "two dogs",
    "a blue bird on a yellow background",
    "an owl holding a flower",
    "一只熊猫",
)
STRONG = 10.0
SIDE, LABEL = 96, 190
SKIP = {"indices": [0], "fqn": "mid_blocks"}


def rows(pipe: ImagenCascadePipeline) -> Mapping[str, Callable[[], Any]]:
    """Return what makes each row's guider, by its label."""
    scale = pipe.config.stages["base"]["guidance_scale"]
    made: dict[str, Callable[[], Any]] = {
        "no guidance": lambda: guiders.ClassifierFreeGuidance(1.0),
        f"CFG {scale:g} (the default)": lambda: guiders.ClassifierFreeGuidance(scale),
        f"CFG {STRONG:g}": lambda: guiders.ClassifierFreeGuidance(STRONG),
        f"CFG {STRONG:g}, steps 20-80 %": lambda: guiders.ClassifierFreeGuidance(STRONG, start=0.2, stop=0.8),
        "APG 5, eta 0, norm 2.5": lambda: guiders.AdaptiveProjectedGuidance(5.0, None, 2.5, eta=0.0),
        f"APG {STRONG:g}, eta 0, norm 2.5": lambda: guiders.AdaptiveProjectedGuidance(STRONG, None, 2.5, eta=0.0),
        "APG mix, CFG 3, then 5": lambda: guiders.AdaptiveProjectedMixGuidance(
            3.0,
            adaptive_projected_guidance_scale=5.0,
            adaptive_projected_guidance_momentum=None,
            adaptive_projected_guidance_rescale=2.5,
        ),
        f"CFG-Zero* {STRONG:g}": lambda: guiders.ClassifierFreeZeroStarGuidance(STRONG),
        f"TCFG {STRONG:g}": lambda: guiders.TangentialClassifierFreeGuidance(STRONG),
        f"MAMBO-G {STRONG:g}, alpha 8": lambda: guiders.MagnitudeAwareGuidance(STRONG, 8.0),
        f"skip layer, CFG {scale:g} + 2": lambda: guiders.SkipLayerGuidance(
            scale, 2.0, 0.0, 1.0, skip_layer_config=dict(SKIP)
        ),
        f"PAG, CFG {scale:g} + 2": lambda: guiders.PerturbedAttentionGuidance(
            scale,
            2.0,
            0.0,
            1.0,
            perturbed_guidance_config=LayerSkipConfig(
                [0], "mid_blocks", skip_attention=False, skip_attention_scores=True
            ),
        ),
        f"SEG, CFG {scale:g} + 2": lambda: guiders.SmoothedEnergyGuidance(
            scale, 2.0, seg_guidance_config=SmoothedEnergyGuidanceConfig([0], "mid_blocks")
        ),
        f"AutoGuidance {scale:g} (skipping)": lambda: guiders.AutoGuidance(scale, auto_guidance_config=dict(SKIP)),
        f"UNetAutoGuidance {scale:g}": lambda: UNetAutoGuidance(rounded(pipe.unet), scale),
    }
    if is_kornia_available():
        made[f"FDG {scale:g} fine, {STRONG:g} coarse"] = lambda: guiders.FrequencyDecoupledGuidance([scale, STRONG])
    return made


def rounded(unet: Any) -> Any:
    """Return a worse version of a U-Net: every weight rounded to one of 63 values in each output channel."""
    worse = copy.deepcopy(unet)
    with torch.no_grad():
        for weight in worse.parameters():
            step = (weight.flatten(1) if weight.ndim > 1 else weight[None]).abs().amax(1).clamp(min=1e-12) / 31
            step = step.view(-1, *(1,) * (weight.ndim - 1))
            weight.copy_((weight / step).round() * step)
    return worse


def sheet(pipe: ImagenCascadePipeline, steps: int, seed: int) -> Image.Image:
    """Draw every prompt with every guider, from the same noise."""
    made = rows(pipe)
    canvas = Image.new("RGB", (LABEL + SIDE * len(PROMPTS), 16 + SIDE * len(made)), "white")
    pen = ImageDraw.Draw(canvas)
    for column, prompt in enumerate(PROMPTS):
        pen.text((LABEL + column * SIDE + 2, 2), prompt[:16] if prompt.isascii() else "a panda (Chinese)", "black")
    for row, (label, make) in enumerate(made.items()):
        pen.text((4, 16 + row * SIDE + SIDE // 2), label, "black")
        images = pipe(
            list(PROMPTS),
            guider=make(),
            num_inference_steps=steps,
            stop_stage="base",
            generator=[torch.Generator().manual_seed(seed) for _ in PROMPTS],
        ).images
        for column, image in enumerate(images):
            canvas.paste(
                image.resize((SIDE, SIDE), Image.Resampling.NEAREST), (LABEL + column * SIDE, 16 + row * SIDE)
            )
        print(label)
    return canvas


def main() -> None:
    """Draw and save the sheet."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--checkpoint", default="imagen-emoji")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("docs/guiders.jpg"))
    arguments = parser.parse_args()
    logging.set_verbosity_error()
    pipe = ImagenCascadePipeline.from_pretrained(arguments.checkpoint)
    pipe.set_progress_bar_config(disable=True)
    # New noise in each step would hide what the guiders do differently.
    pipe.scheduler = DPMSolverMultistepScheduler.from_config(pipe.scheduler.config, use_exponential_sigmas=True)
    temporary = arguments.out.with_suffix(".tmp")
    sheet(pipe, arguments.steps, arguments.seed).save(temporary, format="JPEG", quality=88)
    temporary.replace(arguments.out)


if __name__ == "__main__":
    main()
