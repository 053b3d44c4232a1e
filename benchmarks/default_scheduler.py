# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""Which scheduler reaches the quality of 250 DDPM steps on a checkpoint with the fewest steps, for each stage.

python benchmarks/default_scheduler.py base --suite runs/dev_suite
python benchmarks/default_scheduler.py sr --suite runs/dev_suite
python benchmarks/default_scheduler.py table

The base draws a category of an evaluation suite, the same prompts and seeds for every candidate: hits by the suite's
judge, and the kernel distance of its features from the suite's real pictures. The enlargement is given real pictures made
small: its distance is that of tiles of the pictures at full resolution, which the judge would otherwise shrink.
"""

import argparse
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from diffusers.utils import logging
from PIL import Image
from torch import Tensor

from diffusers_imagen import ImagenCascadePipeline
from diffusers_imagen.cli.scheduler_option import make_scheduler
from diffusers_imagen.diffusion.resize import resize
from diffusers_imagen.evaluation.claims import give_verdict
from diffusers_imagen.evaluation.distances import kernel_distance
from diffusers_imagen.evaluation.features import JudgeFeatures
from diffusers_imagen.evaluation.intervals import paired_difference, wilson_rate
from diffusers_imagen.evaluation.seen_scene import look
from diffusers_imagen.evaluation.suite import Suite, SuitePrompt, read_suite

BATCH = 20
# Fewer hits than this below the reference are taken for the same quality.
MARGIN = 0.05


@dataclass(frozen=True)
class Candidate:
    """A scheduler with its options; what is not given comes from the checkpoint's own."""

    name: str
    scheduler: str
    options: dict[str, Any] = field(default_factory=dict)
    calls_a_step: int = 1


REFERENCE = Candidate("DDPM", "DDPMScheduler", {"timestep_spacing": "trailing"})
REFERENCE_STEPS = 250
_PLAIN: dict[str, Any] = {"use_exponential_sigmas": False, "use_karras_sigmas": False, "use_beta_sigmas": False}
CANDIDATES = (
    Candidate("DPM++ 2M, exponential", "DPMSolverMultistepScheduler", {**_PLAIN, "use_exponential_sigmas": True}),
    Candidate("DPM++ 2M, trailing", "DPMSolverMultistepScheduler", {**_PLAIN, "timestep_spacing": "trailing"}),
    Candidate("DPM++ 2M, karras", "DPMSolverMultistepScheduler", {**_PLAIN, "use_karras_sigmas": True}),
    Candidate("UniPC, trailing", "UniPCMultistepScheduler", {**_PLAIN, "timestep_spacing": "trailing"}),
    Candidate("DDIM, trailing", "DDIMScheduler", {"timestep_spacing": "trailing"}),
    Candidate("Euler, trailing", "EulerDiscreteScheduler", {"timestep_spacing": "trailing"}),
    Candidate("Heun, trailing", "HeunDiscreteScheduler", {"timestep_spacing": "trailing"}, calls_a_step=2),
    Candidate("FlowMatchEuler", "FlowMatchEulerDiscreteScheduler"),
    Candidate("Euler ancestral, trailing", "EulerAncestralDiscreteScheduler", {"timestep_spacing": "trailing"}),
    Candidate(
        "SDE DPM++ 2M, trailing",
        "DPMSolverMultistepScheduler",
        {**_PLAIN, "timestep_spacing": "trailing", "algorithm_type": "sde-dpmsolver++"},
    ),
    Candidate("DDPM, trailing", "DDPMScheduler", {"timestep_spacing": "trailing"}),
)
STEPS = {"base": (4, 6, 8, 12), "sr": (1, 2, 4, 8)}


class Stage:
    """One stage of a checkpoint with what it is measured on.

    Args:
        stage: "base" or "sr".
        checkpoint: Whose stage it is.
        suite: Prompts with real pictures.
    """

    def __init__(self, stage: str, checkpoint: str, suite: Suite) -> None:
        self.stage, self.suite = stage, suite
        self.pipe = ImagenCascadePipeline.from_pretrained(checkpoint)
        self.pipe.set_progress_bar_config(disable=True)
        self.present = self.pipe.scheduler
        self.features = JudgeFeatures(suite.judge)
        self.real = self._real_pictures()
        self.real_features = self.features_of(self.real)

    def measure(self, candidate: Candidate, steps: int) -> dict[str, Any]:
        """Draw all prompts and say how good the pictures are."""
        scheduler = make_scheduler(candidate.scheduler, candidate.options, self.present)
        started = time.process_time()
        pictures = torch.cat([self._draw(scheduler, steps, part) for part in _batches(len(self.suite.prompts))])
        found = {
            "name": candidate.name,
            "steps": steps,
            "calls": steps * candidate.calls_a_step,
            "seconds": time.process_time() - started,
            "distance": kernel_distance(self.features_of(pictures), self.real_features),
        }
        if self.stage == "base":
            found["hits"] = self.hits(pictures)
        else:
            # Of the pictures in [-1, 1], to the real ones.
            found["rms"] = float((pictures.float() - self.real.float()).div(127.5).square().mean().sqrt())
        return found

    def _draw(self, scheduler: Any, steps: int, part: range) -> Tensor:
        """Return uint8 pictures (B, 3, H, W)."""
        prompts = [self.suite.prompts[i] for i in part]
        generators = [torch.Generator().manual_seed(prompt.seed) for prompt in prompts]
        given: dict[str, Any] = {"generator": generators, "output_type": "pt"}
        if self.stage == "base":
            self.pipe.scheduler = scheduler
            given |= {"num_inference_steps": steps, "stop_stage": "base"}
        else:
            self.pipe.sr_scheduler_1 = scheduler
            small = self.real[part.start : part.stop].float() / 127.5 - 1
            side = self.pipe.unet.config.sample_size
            given |= {"num_inference_steps": {"sr_1": steps}, "start_stage": "sr_1", "stop_stage": "sr_1"}
            given |= {"image": resize(small, (side, side)) / 2 + 0.5}
        return (self.pipe([prompt.prompt for prompt in prompts], **given).images * 255).round().to(torch.uint8)

    def _real_pictures(self) -> Tensor:
        side = (self.pipe.unet if self.stage == "base" else self.pipe.sr_unet_1).config.sample_size
        return torch.cat([_real_picture(prompt, side) for prompt in self.suite.prompts])

    def features_of(self, pictures: Tensor) -> Tensor:
        """Give the judge's features of the pictures; of an enlargement's, those of tiles as large as it sees."""
        if self.stage == "sr":
            side = self.features.judge.config.sample_size
            tiles = pictures.unfold(2, side, side).unfold(3, side, side).permute(0, 2, 3, 1, 4, 5)
            pictures = tiles.flatten(0, 2)
        return torch.cat([self.features(part) for part in pictures.split(BATCH)])

    def hits(self, pictures: Tensor) -> list[bool]:
        """Say for each picture (B, 3, H, W), uint8, whether the judge sees what its prompt asks for."""
        images = [Image.fromarray(picture.permute(1, 2, 0).numpy()) for picture in pictures]
        seen = look(self.suite.judge, [images[part.start : part.stop] for part in _batches(len(images))])
        return [
            give_verdict(prompt.claims, scene).hit
            for prompt, scene in zip(self.suite.prompts, seen.scenes, strict=True)
        ]


def _real_picture(prompt: SuitePrompt, side: int) -> Tensor:
    if prompt.reference is None:
        raise ValueError(f"`suite` has no real picture of {prompt.id}.")
    with Image.open(prompt.reference) as image:
        small = image.convert("RGB").resize((side, side), Image.Resampling.LANCZOS)
    return torch.frombuffer(bytearray(small.tobytes()), dtype=torch.uint8).view(1, side, side, 3).permute(0, 3, 1, 2)


def _batches(count: int) -> Iterator[range]:
    return (range(start, min(start + BATCH, count)) for start in range(0, count, BATCH))


def measure(arguments: argparse.Namespace) -> None:
    """Measure all candidates of a stage; what is there already is kept."""
    suite = read_suite(arguments.suite)
    chosen = tuple(prompt for prompt in suite.prompts if prompt.category == arguments.category)[: arguments.prompts]
    stage = Stage(arguments.verb, arguments.checkpoint, Suite(suite.name, chosen, suite.judge, suite.baselines))
    results = json.loads(arguments.results.read_text()) if arguments.results.is_file() else {}
    found = results.setdefault(arguments.verb, [])
    done = {(one["name"], one["steps"]) for one in found}
    wanted = [(REFERENCE, REFERENCE_STEPS)]
    wanted += [(candidate, steps) for steps in STEPS[arguments.verb] for candidate in CANDIDATES]
    for candidate, steps in wanted:
        if (candidate.name, steps) in done:
            continue
        one = stage.measure(candidate, steps)
        found.append(one)
        summary = f"{sum(one['hits'])} hits" if "hits" in one else f"rms {one['rms']:.4f}"
        print(
            f"{candidate.name:24}{steps:4}  {summary}  distance {one['distance']:.4f}  {one['seconds']:.0f} s",
            flush=True,
        )
        arguments.results.write_text(json.dumps(results) + "\n", encoding="utf-8")


def table(arguments: argparse.Namespace) -> None:
    """Print the tables in Markdown, the fewest calls of the U-Net first."""
    results = json.loads(arguments.results.read_text(encoding="utf-8"))
    for stage, found in results.items():
        reference = next(one for one in found if one["steps"] == REFERENCE_STEPS)
        print(f"\n{stage}: N = {len(reference.get('hits', [])) or arguments.prompts}\n")
        extra = "hits | less the reference's" if stage == "base" else "RMS to the real picture"
        print(
            f"| scheduler | steps | calls | kernel distance | {extra} |\n|---|---|---|---|---|{'---|' * (stage == 'base')}"
        )
        for one in sorted(found, key=lambda one: (one["calls"], one["distance"])):
            cells = [one["name"], one["steps"], one["calls"], f"{one['distance']:.3f}"]
            if stage == "base":
                cells += [wilson_rate(sum(one["hits"]), len(one["hits"])), _difference(one, reference)]
            else:
                cells.append(f"{one['rms']:.4f}")
            print(f"| {' | '.join(map(str, cells))} |")


def _difference(one: dict[str, Any], reference: dict[str, Any]) -> str:
    found = paired_difference(one["hits"], reference["hits"])
    return f"{found}{' as good' if found.low > -MARGIN else ''}"


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("verb", choices=("base", "sr", "table"))
    parser.add_argument("--suite", type=Path, help="folder of examples/emoji/make_suite.py")
    parser.add_argument("--category", default="single", help="category of the suite's prompts")
    parser.add_argument("--prompts", type=int, default=200, help="how many of them at most")
    parser.add_argument("--checkpoint", default="imagen-emoji")
    parser.add_argument("--results", type=Path, default=Path("benchmarks/results/default_scheduler.json"))
    arguments = parser.parse_args()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    torch.set_grad_enabled(False)
    if arguments.verb == "table":
        table(arguments)
        return
    if arguments.suite is None:
        parser.error(f"{arguments.verb} needs --suite")
    torch.set_num_threads(1)
    measure(arguments)


if __name__ == "__main__":
    main()
