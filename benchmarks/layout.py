# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""Which layout learns most in the same time: the paper's order or patch stems, at equal parameters.

Every layout is trained with every seed on the same batches, in turns of a few seconds of one core's CPU time, until
each has had the same training time. Then their averaged weights predict x_0 for pictures that were held out, at fixed
noise levels.

python benchmarks/layout.py base --folder runs/data/singles_128 --encoder runs/encoder --minutes 5 --out base.json
"""

import argparse
import json
import statistics
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from layouts import LAYOUTS
from torch import Tensor, nn

from diffusers_imagen.data.folder import ImageFolder
from diffusers_imagen.diffusion.weighting import loss_weight
from diffusers_imagen.text.cache import TextEmbeddingCache
from diffusers_imagen.text.loading import load_text_encoder
from diffusers_imagen.training.batches import BatchMaker
from diffusers_imagen.training.config import (
    DataConfig,
    ModelConfig,
    ObjectiveConfig,
    OptimizerConfig,
    TextConfig,
    TrainConfig,
)
from diffusers_imagen.training.ema import ExponentialAverage
from diffusers_imagen.training.objective import diffusion_loss
from diffusers_imagen.training.optimizers import make_optimizer
from diffusers_imagen.training.state import learning_rate, make_unet
from diffusers_imagen.training.tasks import ImagenTask

SLICE_SECONDS = 15.0
SCHEDULE_TICKS = 10_000
LOG_SNRS = (-8.0, -5.0, -3.0, -1.0, 1.0, 3.0)
MILESTONES = (0.5, 1.0)


class Run:
    """One layout trained with one seed."""

    def __init__(self, name: str, config: TrainConfig, maker: BatchMaker) -> None:
        torch.manual_seed(config.seed)
        self.name, self.config, self.maker = name, config, maker
        self.unet = make_unet(config.model).to(memory_format=torch.channels_last)
        self.called: nn.Module = self.unet
        self.task = ImagenTask(self.unet.noise_process)
        self.optimizer = make_optimizer(self.unet, config.optimizer)
        self.ema: ExponentialAverage[Any] = ExponentialAverage(self.unet, 0.995)
        self.steps, self.seconds = 0, 0.0

    def train_for(self, seconds: float, budget: float) -> None:
        """Train until `seconds` of CPU time are used in all; making batches does not count: in training, threads do."""
        while self.seconds < seconds:
            batch = self.maker.batch(self.steps)
            started = time.process_time()
            tick = int(self.seconds / budget * SCHEDULE_TICKS)
            for group in self.optimizer.param_groups:
                group["lr"] = learning_rate(self.config.optimizer, tick, SCHEDULE_TICKS)
            with torch.autocast("cpu", torch.bfloat16):
                loss = diffusion_loss(self.called, self.task, batch, self.config.data, self.config.objective).mean
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self.unet.parameters(), 1.0)
            self.optimizer.step()
            self.optimizer.zero_grad()
            self.ema.update(self.unet, self.steps)
            self.steps += 1
            self.seconds += time.process_time() - started


class HeldOut:
    """Pictures never trained on, with fixed noise."""

    def __init__(self, maker: BatchMaker, count: int, batch_size: int) -> None:
        self.batches = [maker.batch(number) for number in range(count // batch_size)]

    @torch.inference_mode()
    def errors(self, run: Run) -> list[list[float]]:
        """Give the mean squared error of x_0 for each noise level and picture."""
        schedule = run.unet.noise_process.schedule
        rows = []
        for log_snr in LOG_SNRS:
            row: list[float] = []
            for batch in self.batches:
                t = schedule.t(torch.tensor(log_snr)).expand(len(batch.t))
                objective = replace(run.config.objective, weighting="uniform")
                with torch.autocast("cpu", torch.bfloat16):
                    moved = replace(batch, t=t)
                    loss = diffusion_loss(run.ema.model, run.task, moved, run.config.data, objective)
                row += loss.per_sample.tolist()
            rows.append(row)
        return rows


def train_config(stage: str, name: str, seed: int, arguments: argparse.Namespace) -> TrainConfig:
    """Describe one run as the trainer would be told."""
    base = stage == "base"
    return TrainConfig(
        data=DataConfig(
            folder=arguments.folder,
            size=64 if base else 128,
            crop=None if base else 64,
            workers=1,
            in_memory=False,
            validation_fraction=0.05,
        ),
        model=ModelConfig(model_class="base" if base else "super_resolution", config=LAYOUTS[stage][name]),
        text=TextConfig(folder=arguments.encoder, layers=(7, 12), prefix="query: ", max_length=64),
        objective=ObjectiveConfig(weighting="min_snr", noise_level_max=0.5),
        optimizer=OptimizerConfig(lr=5e-4, warmup_steps=300, schedule="cosine"),
        output_dir="unused",
        max_steps=1,
        batch_size=16,
        seed=seed,
    )


def prepare(arguments: argparse.Namespace) -> tuple[list[Run], HeldOut]:
    """Make all runs, which share pictures and text, and what they are judged by."""
    stage = arguments.stage
    names = arguments.layouts or list(LAYOUTS[stage])
    config = train_config(stage, names[0], 0, arguments)
    sets = [
        ImageFolder.open(arguments.folder, config.data.size, validation_fraction=0.05, held_out=held_out)
        for held_out in (False, True)
    ]
    tokenizer, encoder = load_text_encoder(arguments.encoder)
    captions = sets[0].captions | sets[1].captions
    text = TextEmbeddingCache.build(
        captions, tokenizer, encoder, config.text.settings, Path(arguments.out).with_suffix(".text_cache")
    )
    runs = []
    for seed in range(arguments.seeds):
        for name in names:
            own = train_config(stage, name, seed, arguments)
            runs.append(Run(name, own, BatchMaker(own, sets[0], text)))
    held_out = BatchMaker(replace(config, objective=replace(config.objective, caption_drop=0.0)), sets[1], text)
    return runs, HeldOut(held_out, arguments.held_out, config.batch_size)


def describe(run: Run, held_out: HeldOut) -> dict[str, Any]:
    """Give what a run has reached, with the weighted loss that it is trained on."""
    errors = held_out.errors(run)
    levels = torch.tensor(LOG_SNRS)
    weights: Tensor = loss_weight(levels, run.unet.noise_process.prediction_type, "min_snr")
    by_level = [statistics.fmean(row) for row in errors]
    return {
        "layout": run.name,
        "seed": run.config.seed,
        "parameters": sum(weight.numel() for weight in run.unet.parameters()),
        "seconds": run.seconds,
        "samples": run.steps * run.config.batch_size,
        "log_snr": list(LOG_SNRS),
        "x_0_error": by_level,
        "loss": statistics.fmean((weights * torch.tensor(by_level)).tolist()),
        "x_0_error_per_picture": errors,
    }


def main() -> None:
    """Train all, write the results after each milestone."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("stage", choices=sorted(LAYOUTS))
    parser.add_argument("--folder", required=True, help="pictures with captions")
    parser.add_argument("--encoder", required=True, help="folder with tokenizer and text_encoder")
    parser.add_argument("--layouts", nargs="*", help="some of the stage's layouts; all by default")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--minutes", type=float, default=6.0, help="training time of each run on one core")
    parser.add_argument("--held-out", type=int, default=192, help="pictures that the loss is taken over")
    parser.add_argument("--weights", help="folder for each run's averaged weights")
    parser.add_argument("--out", required=True)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    runs, held_out = prepare(arguments)
    budget = 60 * arguments.minutes
    results: dict[str, Any] = {}
    for milestone in MILESTONES:
        turns = max(1, round(budget * milestone / SLICE_SECONDS))
        for turn in range(1, turns + 1):
            for run in runs:
                run.train_for(min(turn * SLICE_SECONDS, budget * milestone), budget)
        for run in runs:
            run.train_for(budget * milestone, budget)
        results[str(milestone)] = [describe(run, held_out) for run in runs]
        for entry in results[str(milestone)]:
            print(milestone, entry["layout"], entry["seed"], entry["samples"], f"{entry['loss']:.5f}", flush=True)
        Path(arguments.out).write_text(json.dumps(results), encoding="utf-8")
    if arguments.weights:
        for run in runs:
            run.ema.model.save_pretrained(Path(arguments.weights) / f"{run.name}_{run.config.seed}")


if __name__ == "__main__":
    main()
