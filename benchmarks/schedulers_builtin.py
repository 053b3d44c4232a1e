# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""Every Diffusers scheduler on the built-in cascade's base.

python benchmarks/schedulers_builtin.py sheet --out docs/schedulers.jpg      # scheduler x steps, one prompt, one seed
python benchmarks/schedulers_builtin.py distances                            # 50 steps against the same class at 250
python benchmarks/schedulers_builtin.py range                                # bf16: the largest unguided |x_0|
python benchmarks/schedulers_builtin.py draw --stochastic --prompts P --out O    # for recognise.py score, a folder a class
"""

import argparse
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from diffusers.utils import logging
from PIL import Image, ImageDraw
from torch import Tensor

from diffusers_imagen import ImagenCascadePipeline
from diffusers_imagen.cli.scheduler_option import make_scheduler
from diffusers_imagen.diffusion.noise import alpha_sigma
from diffusers_imagen.diffusion.prediction import to_x_0
from diffusers_imagen.models.stage_model import Prediction, StageModel
from diffusers_imagen.pipelines.denoise_stage import StageCondition, StepControl, denoise_stage
from diffusers_imagen.pipelines.stage_settings import StageSettings
from diffusers_imagen.schedulers.bridge import bridge_for
from diffusers_imagen.schedulers.catalogue import SCHEDULERS, Driven

PROMPT = "a cat wearing a hat"
STEPS = (4, 8, 16, 32)
# Where a class's own defaults are for another kind of model; the rest comes from the cascade's scheduler.
OPTIONS: dict[str, dict[str, Any]] = {
    "CogVideoXDDIMScheduler": {"snr_shift_scale": 1.0},
    "CogVideoXDPMScheduler": {"snr_shift_scale": 1.0, "timestep_spacing": "trailing"},
    "CosineDPMSolverMultistepScheduler": {"sigma_min": 0.006, "sigma_max": 80.0},
    "DDIMParallelScheduler": {"timestep_spacing": "trailing"},
    "DDIMScheduler": {"timestep_spacing": "trailing"},
    "DDPMParallelScheduler": {"timestep_spacing": "trailing"},
    "DDPMScheduler": {"timestep_spacing": "trailing"},
    "MiniMaxH3Scheduler": {"shift": 1.0},
}
# They draw new noise as they go, so that more steps make another picture.
STOCHASTIC = {
    "CMStochasticIterativeScheduler",
    "CogVideoXDPMScheduler",
    "CosineDPMSolverMultistepScheduler",
    "DDPMParallelScheduler",
    "DDPMScheduler",
    "DDPMWuerstchenScheduler",
    "DPMSolverSDEScheduler",
    "EulerAncestralDiscreteScheduler",
    "FlowMatchLCMScheduler",
    "KDPM2AncestralDiscreteScheduler",
    "LCMScheduler",
    "LTXEulerAncestralRFScheduler",
    "SASolverScheduler",
    "SCMScheduler",
    "ScoreSdeVeScheduler",
    "TCDScheduler",
    "UnCLIPScheduler",
}


def pipelines(only: str) -> Iterator[tuple[str, ImagenCascadePipeline]]:
    """Give the built-in cascade with each driven scheduler in turn at its base."""
    pipe = ImagenCascadePipeline.from_pretrained("imagen-emoji")
    pipe.set_progress_bar_config(disable=True)
    before = pipe.scheduler
    for name, verdict in SCHEDULERS.items():
        if isinstance(verdict, Driven) and name.startswith(only):
            pipe.scheduler = make_scheduler(name, OPTIONS.get(name, {}), before)
            yield name, pipe


def base_picture(pipe: ImagenCascadePipeline, steps: int, seed: int, output_type: str = "pil") -> Any:
    """Draw the prompt with the base alone."""
    generator = torch.Generator().manual_seed(seed)
    return pipe(
        PROMPT, num_inference_steps=steps, stop_stage="base", generator=generator, output_type=output_type
    ).images[0]


def sheet(arguments: argparse.Namespace) -> None:
    """Write the contact sheet: two columns of classes, each with a picture for each number of steps."""
    side, gap, text = 64, 4, 216
    names = [name for name, verdict in SCHEDULERS.items() if isinstance(verdict, Driven)]
    rows = -(-len(names) // 2)
    width, header = text + len(STEPS) * (side + gap) + 3 * gap, 16
    canvas = Image.new("RGB", (2 * width, header + rows * (side + gap)), "white")
    write = ImageDraw.Draw(canvas).text
    for number, (name, pipe) in enumerate(pipelines("")):
        left, top = number // rows * width, header + number % rows * (side + gap)
        write((left + gap, top + side // 2 - 6), name.removesuffix("Scheduler"), fill="black")
        for column, steps in enumerate(STEPS):
            place = (left + text + column * (side + gap), top)
            write((place[0] + side // 2 - 6, 2), str(steps), fill="black")
            picture = base_picture(pipe, steps, arguments.seed)
            canvas.paste(picture.resize((side, side), Image.Resampling.LANCZOS), place)
        print(name, flush=True)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    canvas.save(arguments.out, quality=90)


def distances(arguments: argparse.Namespace) -> None:
    """Print how far 10, 20 and 50 steps are from 250 of the same deterministic class, from the same noise."""
    counts = (10, 20, 50)
    print(
        f"RMS distance from 250 steps, pictures in [-1, 1]{''.join(f'{steps:>8}' for steps in counts)}  seconds (50)"
    )
    for name, pipe in pipelines(arguments.only):
        if name in STOCHASTIC:
            continue
        target = base_picture(pipe, 250, arguments.seed, "latent")
        figures = []
        for steps in counts:
            started = time.perf_counter()
            figures.append(
                float((base_picture(pipe, steps, arguments.seed, "latent") - target).square().mean().sqrt())
            )
        print(f"{name:48}{''.join(f'{v:8.3f}' for v in figures)}{time.perf_counter() - started:10.1f}", flush=True)


class Watcher:
    """A stage's model that notes the largest |x_0| that it predicted."""

    def __init__(self, model: StageModel) -> None:
        self.model, self.largest = model, 0.0
        self.noise_process, self.predicts_variance = model.noise_process, model.predicts_variance

    def predict(self, x_t: Tensor, log_snr: Tensor, *condition: Any) -> Prediction:
        """Predict, and look at the result."""
        prediction = self.model.predict(x_t, log_snr, *condition)
        x_0 = to_x_0(prediction.value, x_t, *alpha_sigma(log_snr), self.noise_process.prediction_type)
        self.largest = max(self.largest, float(x_0.abs().max()))
        return prediction

    def after(self, x_0: Tensor) -> "Watcher":
        """Go on as before."""
        return self


def largest_x_0(arguments: argparse.Namespace) -> None:
    """Print the largest |x_0| before thresholding over all steps, unguided, with bfloat16 weights."""
    from diffusers_imagen.models.stage_model import stage_model_for

    print("largest unguided |x_0|, bfloat16 weights, 20 steps")
    for name, pipe in pipelines(arguments.only):
        text = pipe.encode_prompt(PROMPT)
        pipe.unet.to(torch.bfloat16)
        watcher = Watcher(stage_model_for(pipe.unet))
        bridge = bridge_for(pipe.scheduler)
        timesteps = bridge.set_timesteps(20, "cpu")
        generator = torch.Generator().manual_seed(arguments.seed)
        side = pipe.unet.config.sample_size
        noise = torch.randn(1, 3, side, side, generator=generator) * bridge.init_noise_sigma
        control = StepControl(lambda: 1.0, lambda index, timestep, sample: sample, lambda: False)
        settings = StageSettings(guidance_scale=1.0)
        denoise_stage(watcher, bridge, timesteps, noise, StageCondition(*text), settings, control, generator)
        print(f"{name:40}{watcher.largest:8.2f}{'' if watcher.largest <= 1.5 else '  OUT OF LIMITS'}", flush=True)


def draw(arguments: argparse.Namespace) -> None:
    """Draw all prompts with each class into an image folder of its own, for `examples/emoji/recognise.py score`."""
    lines = [json.loads(line) for line in arguments.prompts.read_text(encoding="utf-8").splitlines()]
    for name, pipe in pipelines(arguments.only):
        if arguments.stochastic and name not in STOCHASTIC:
            continue
        folder = arguments.out / f"{name}-{arguments.steps}"
        folder.mkdir(parents=True, exist_ok=True)
        rows = [{**line, "text": line["text"][0], "file_name": f"{i:05d}.png"} for i, line in enumerate(lines)]
        started = time.perf_counter()
        for first in range(0, len(rows), 16):
            part = rows[first : first + 16]
            generators = [torch.Generator().manual_seed(arguments.seed + first + i) for i in range(len(part))]
            texts = [row["text"] for row in part]
            images = pipe(texts, num_inference_steps=arguments.steps, generator=generators).images
            for row, image in zip(part, images, strict=True):
                image.save(folder / row["file_name"])
        written = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        (folder / "metadata.jsonl").write_text(written, encoding="utf-8")
        print(f"{folder}: {len(rows)} pictures in {time.perf_counter() - started:.0f} s", flush=True)


def main() -> None:
    verbs: dict[str, Callable[[argparse.Namespace], None]] = {
        "sheet": sheet,
        "distances": distances,
        "range": largest_x_0,
        "draw": draw,
    }
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("verb", choices=verbs)
    parser.add_argument("--only", default="", help="only classes whose name begins so")
    parser.add_argument("--stochastic", action="store_true", help="draw: only classes that draw new noise as they go")
    parser.add_argument("--out", type=Path, default=Path("docs/schedulers.jpg"), help="file of the sheet, or folder")
    parser.add_argument("--prompts", type=Path, help="a file of examples/emoji/recognise.py prompts")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    if arguments.verb == "draw" and arguments.prompts is None:
        parser.error("draw needs --prompts")
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    torch.set_grad_enabled(False)
    verbs[arguments.verb](arguments)


if __name__ == "__main__":
    main()
