# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""Score what a LoRA taught the built-in cascade: is the moffle recognised, and is everything else as it was?

python examples/emoji/score_character.py judge --art runs/art --out runs/moffle_judge
python examples/emoji/score_character.py score --lora runs/moffle/lora --judge runs/moffle_judge --out runs/moffle_score
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import captions
import torch
import yaml
from art import ArtLibrary
from character import sample_moffle
from diffusers.utils import logging
from judge import NounJudge, load_judge, rank_nouns, save_judge, shrink, to_tensor
from judge_training import compose_set, examine, nouns_with_art, train_judge
from make_character import captions_for
from nouns import NOUNS
from PIL import Image, ImageDraw

from diffusers_imagen import ImagenCascadePipeline
from diffusers_imagen.evaluation.intervals import paired_difference, wilson_rate

_STYLES = ["fluent-3d"]
_LORA_FILE = "pytorch_lora_weights.safetensors"
# Seeds that neither the training nor its pictures of what is to be kept were drawn from.
_FIRST_SEED = 70_000
_SHEET = ("a moffle", "a moffle on a blue background", "一只莫弗怪", "a moffle wearing a hat", "a cat", "an apple")


def train_character_judge(art: ArtLibrary, out: Path, per_noun: int) -> None:
    """Teach a judge the nouns and the moffle as one more, from real pictures of all of them."""
    names = [noun.singular for noun in nouns_with_art(art, _STYLES)]
    sets = []
    for seed, count in (("train", per_noun), ("unseen", 12)):
        pixels, labels = compose_set(art, _STYLES, count, seed=seed)
        moffles = [shrink(sample_moffle(f"judge {seed}/{number}", 128)[0]) for number in range(count)]
        labels = torch.cat([labels, torch.full((count,), len(names))])
        sets.append((torch.cat([pixels, to_tensor(moffles)]), labels))
    names.append("moffle")
    judge = train_judge(*sets[0], len(names), epochs=5)
    card = examine(judge, *sets[1], names, _STYLES)
    save_judge(out, judge, card)
    right = rank_nouns(judge, sets[1][0][-12:])[:, 0] == len(names) - 1
    print(
        f"new real pictures: {wilson_rate(round(card.top1 * card.num_unseen), card.num_unseen)}, of which moffles",
        end=" ",
    )
    print(wilson_rate(int(right.sum()), 12))


def character_prompts(count: int) -> list[str]:
    """Give prompts for the moffle, in both languages, on white and on every plain background in turn."""
    backgrounds = ["white", "blue", "white", "yellow", "white", "green", "white", "pink"]
    return [captions_for(backgrounds[i // 2 % len(backgrounds)])[i % 2] for i in range(count)]


def other_prompts(kept: Sequence[str]) -> list[tuple[str, str]]:
    """Give a prompt and its noun for every noun that was not among the pictures that kept the model from forgetting."""
    plain = [(captions.single(noun)[0], noun.singular) for noun in NOUNS]
    others = [(caption, name) for caption, name in plain if not {caption.english, caption.chinese} & set(kept)]
    return [(caption.english if i % 2 else caption.chinese, name) for i, (caption, name) in enumerate(others)]


def draw(pipe: Any, prompts: Sequence[str], first_seed: int, batch_size: int = 16) -> list[Image.Image]:
    """Draw the base's picture of each prompt, from consecutive seeds: the adapter is the base's."""
    images: list[Image.Image] = []
    for start in range(0, len(prompts), batch_size):
        part = list(prompts[start : start + batch_size])
        generators = [torch.Generator().manual_seed(first_seed + start + i) for i in range(len(part))]
        images += pipe(part, generator=generators, stop_stage="base").images
        print(f"{len(images)} of {len(prompts)} drawn", flush=True)
    return images


def recognised(
    judge: NounJudge, names: Sequence[str], images: Sequence[Image.Image], asked: Sequence[str]
) -> list[bool]:
    """Say of each picture whether the judge names what was asked for."""
    seen = rank_nouns(judge, to_tensor([shrink(image) for image in images]))[:, 0].tolist()
    return [names[index] == noun for index, noun in zip(seen, asked, strict=True)]


def write_sheet(columns: Sequence[Sequence[Image.Image]], path: Path, cell: int = 128, each: int = 3) -> None:
    """Write final pictures before and after the adapter, a row for each prompt and `each` columns for either."""
    width = 2 * each * cell + 24
    sheet = Image.new("RGB", (width, len(_SHEET) * cell + 20), "white")
    pen = ImageDraw.Draw(sheet)
    for place, title in enumerate(("before", "after")):
        left = place * (each * cell + 24)
        pen.text((left + 4, 4), title, fill="black")
        for number, image in enumerate(columns[place]):
            sheet.paste(image, (left + number % each * cell, 20 + number // each * cell))
    sheet.save(path)


def score(arguments: argparse.Namespace) -> dict[str, Any]:
    """Draw before and after, ask the judge, write the sheet, and return the figures."""
    judge, card = load_judge(arguments.judge)
    kept = yaml.safe_load(arguments.config.read_text(encoding="utf-8"))["prior"]["prompts"]
    prompts = [(prompt, "moffle") for prompt in character_prompts(arguments.num_images)] + other_prompts(kept)
    pipe = ImagenCascadePipeline.from_pretrained("imagen-emoji")
    pipe.set_progress_bar_config(disable=True)
    hits, sheets = [], []
    for adapted in (False, True):
        if adapted:
            pipe.unet.load_lora_adapter(arguments.lora, weight_name=_LORA_FILE, prefix=None)
        drawn = draw(pipe, [prompt for prompt, _ in prompts], _FIRST_SEED)
        hits.append(recognised(judge, card.nouns, drawn, [noun for _, noun in prompts]))
        rows = [prompt for prompt in _SHEET for _ in range(3)]
        generators = [torch.Generator().manual_seed(_FIRST_SEED - 100 + i) for i in range(len(rows))]
        sheets.append(pipe(rows, generator=generators).images)
    arguments.out.mkdir(parents=True, exist_ok=True)
    write_sheet(sheets, arguments.out / "before_after.png")
    split = arguments.num_images
    before, after = ([wilson_rate(sum(part), len(part)) for part in (hit[:split], hit[split:])] for hit in hits)
    return {
        "moffle before": str(before[0]),
        "moffle after": str(after[0]),
        "others before": str(before[1]),
        "others after": str(after[1]),
        "others, after less before": str(paired_difference(hits[1][split:], hits[0][split:])),
        "judge on new real pictures": f"{card.top1:.1%} (N = {card.num_unseen})",
    }


def main() -> None:
    """Read the command line and train the judge, or score."""
    parser = argparse.ArgumentParser(description="Score a LoRA of the moffle.")
    commands = parser.add_subparsers(dest="command", required=True)
    teach = commands.add_parser("judge", help="train a judge that knows the moffle beside the nouns")
    teach.add_argument("--art", type=Path, required=True, help="folder of fluent-3d.parquet")
    teach.add_argument("--out", type=Path, required=True, help="folder to write the judge to")
    teach.add_argument("--per-noun", type=int, default=60, help="pictures composed of each noun")
    scoring = commands.add_parser("score", help="draw before and after and count")
    scoring.add_argument("--lora", type=Path, required=True, help="folder `lora` of the run")
    scoring.add_argument("--judge", type=Path, required=True, help="folder of the judge")
    scoring.add_argument("--out", type=Path, required=True, help="folder for before_after.png and score.json")
    scoring.add_argument("--config", type=Path, default=Path(__file__).with_name("character.yaml"))
    scoring.add_argument("--num-images", type=int, default=100, help="pictures of the moffle")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    logging.disable_progress_bar()
    try:
        if arguments.command == "judge":
            train_character_judge(ArtLibrary(arguments.art, _STYLES), arguments.out, arguments.per_noun)
            return
        figures = score(arguments)
    except ValueError as error:
        parser.error(str(error))
    for name, value in figures.items():
        print(f"{name:28} {value}")
    text = json.dumps(figures, ensure_ascii=False, indent=1) + "\n"
    (arguments.out / "score.json").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
