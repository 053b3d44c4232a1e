# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""An enlargement trained on its task against one trained as the public scripts train theirs.

The scripts that fine-tune DeepFloyd IF's second stage give the U-Net its own noisy target where the small picture
should be, and the time where the noise level should be. Both ways train the same U-Net from the same weights on the
same batches for the same CPU time, in turns; then both enlarge what the built-in base draws, and real pictures.

python benchmarks/sr_recipe.py --folder runs/data/singles_128 --encoder runs/encoder --suite runs/suite --out OUT
"""

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from diffusers.utils import logging
from enlargement import Enlargements, chosen_prompts, save_sheet
from layout import SLICE_SECONDS, Run, train_config
from torch import Tensor, nn

from diffusers_imagen.data.folder import ImageFolder
from diffusers_imagen.evaluation.intervals import paired_difference, wilson_rate
from diffusers_imagen.text.cache import TextEmbeddingCache
from diffusers_imagen.text.loading import load_text_encoder
from diffusers_imagen.training.batches import BatchMaker

LAYOUT = "thin"
NOISE_LEVELS = (0.05, 0.25)


class OwnTarget(nn.Module):
    """The public scripts' task: the noisy target as its own condition, its time as the condition's noise level."""

    def __init__(self, unet: nn.Module) -> None:
        super().__init__()
        self.unet = unet

    def forward(self, sample: Tensor, timestep: Tensor, text: Tensor, **given: Any) -> Any:
        """Predict without ever seeing the small picture."""
        return self.unet(sample, timestep, text, **{**given, "low_res": sample, "noise_level": timestep / 1000})


def train(arguments: argparse.Namespace) -> dict[str, list[Run]]:
    """Train both ways, each with every seed."""
    config = train_config("super_resolution", LAYOUT, 0, arguments)
    pictures = ImageFolder.open(arguments.folder, config.data.size, validation_fraction=0.05, held_out=False)
    tokenizer, encoder = load_text_encoder(arguments.encoder)
    cache = arguments.out.with_suffix(".text_cache")
    text = TextEmbeddingCache.build(pictures.captions, tokenizer, encoder, config.text.settings, cache)
    runs: dict[str, list[Run]] = {"ours": [], "public": []}
    for seed in range(arguments.seeds):
        own = train_config("super_resolution", LAYOUT, seed, arguments)
        for way, group in runs.items():
            run = Run(way, own, BatchMaker(own, pictures, text))
            if way == "public":
                run.called = OwnTarget(run.unet)
            group.append(run)
    budget = 60 * arguments.minutes
    for turn in range(1, round(budget / SLICE_SECONDS) + 1):
        for run in [run for group in runs.values() for run in group]:
            run.train_for(turn * SLICE_SECONDS, budget)
    return runs


def measure(runs: dict[str, list[Run]], arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Enlarge with every run and describe the results; the noise level is the better of two for each way."""
    enlargements = Enlargements("imagen-emoji", chosen_prompts(arguments.suite, "single", arguments.prompts))
    rows = []
    for source in enlargements.small:
        rows.append({"way": "bicubic", "source": source})
        rows[-1] |= enlargements.describe(enlargements.bicubic(source), source)
        for way, group in runs.items():
            for run in group:
                for level in NOISE_LEVELS:
                    pictures = enlargements.enlarge(source, run.ema.model.eval(), level)
                    rows.append({"way": way, "seed": run.config.seed, "source": source, "noise_level": level})
                    rows[-1] |= enlargements.describe(pictures, source)
                    sheet = arguments.out.with_name(
                        f"{arguments.out.stem}_{source}_{way}_{run.config.seed}_{level}.png"
                    )
                    save_sheet([pictures[:8]], sheet)
    return rows


def table(rows: list[dict[str, Any]]) -> None:
    """Print the results as a Markdown table."""
    print(
        "| low resolution | way | seed | noise level | hits | distance to real | unfaithful | RMS to the real picture |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for row in rows:
        cells = [row["source"], row["way"], row.get("seed", ""), row.get("noise_level", "")]
        cells += [wilson_rate(sum(row["hits"]), len(row["hits"])), f"{row['kernel_distance']:.4f}"]
        cells += [f"{row['unfaithful']:.4f}", f"{row['rms']:.4f}" if "rms" in row else ""]
        print(f"| {' | '.join(map(str, cells))} |")
    for source in ("generated", "real"):
        best = {
            way: max(
                (row for row in rows if (row["way"], row["source"]) == (way, source)), key=lambda r: sum(r["hits"])
            )
            for way in ("ours", "public")
        }
        difference = paired_difference(best["ours"]["hits"], best["public"]["hits"])
        print(f"\n{source}: ours less public, each at its best, {difference}")


def main() -> None:
    """Train, measure, print and save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", required=True, help="captioned pictures to train on")
    parser.add_argument("--encoder", required=True, help="folder with tokenizer and text_encoder")
    parser.add_argument("--suite", type=Path, required=True, help="folder of examples/emoji/make_suite.py")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--minutes", type=float, default=8.0, help="training time of each run on one core")
    parser.add_argument("--prompts", type=int, default=200)
    parser.add_argument("--out", type=Path, required=True, help="JSON; sheets and the text cache go beside it")
    arguments = parser.parse_args()
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    torch.set_num_threads(1)
    runs = train(arguments)
    torch.set_grad_enabled(False)
    rows = measure(runs, arguments)
    arguments.out.write_text(json.dumps(rows) + "\n", encoding="utf-8")
    table(rows)


if __name__ == "__main__":
    main()
