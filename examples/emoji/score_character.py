# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
r"""Score what a LoRA taught the built-in cascade: is the moffle recognised, and is everything else as it was?

python examples/emoji/score_character.py judge --art runs/art --out runs/moffle_judge
python examples/emoji/score_character.py draw --out runs/moffle_before
python examples/emoji/score_character.py draw --lora runs/moffle/lora --out runs/moffle_after
python examples/emoji/score_character.py score --judge runs/moffle_judge --before runs/moffle_before --after runs/moffle_after \
    --sheet runs/moffle.png
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

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
from PIL import Image

from diffusers_imagen import ImagenCascadePipeline
from diffusers_imagen.evaluation.intervals import paired_difference, wilson_rate

_STYLES = ["fluent-3d"]
_LORA_FILE = "pytorch_lora_weights.safetensors"
_BATCH = 16
# Prompts of the sheet, and pictures of each.
_EACH = 3
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
    """Give a prompt and its noun for every noun, in the language in which no prior picture was drawn, if there is one."""
    plain = [(captions.single(noun)[0], noun.singular) for noun in NOUNS]
    return [(caption.chinese if caption.english in kept else caption.english, name) for caption, name in plain]


def draw(arguments: argparse.Namespace) -> None:
    """Draw the base's picture of each prompt, since the adapter is the base's, and final pictures for the sheet."""
    kept = yaml.safe_load(arguments.config.read_text(encoding="utf-8"))["prior"]["prompts"]
    others = other_prompts(kept) * arguments.each_other
    rows = [(prompt, "moffle") for prompt in character_prompts(arguments.num_images)] + others
    shown = [(prompt, "") for prompt in _SHEET for _ in range(_EACH)]
    pipe = ImagenCascadePipeline.from_pretrained("imagen-emoji")
    pipe.set_progress_bar_config(disable=True)
    if arguments.lora is not None:
        pipe.unet.load_lora_adapter(arguments.lora, weight_name=_LORA_FILE, prefix=None)
    arguments.out.mkdir(parents=True, exist_ok=True)
    lines = []
    for stage, part, first_seed in (("base", rows, arguments.seed), ("sr_1", shown, arguments.seed - 100)):
        for start in range(0, len(part), _BATCH):
            batch = part[start : start + _BATCH]
            generators = [torch.Generator().manual_seed(first_seed + start + i) for i in range(len(batch))]
            prompts = [prompt for prompt, _ in batch]
            images = pipe(prompts, generator=generators, stop_stage=stage).images
            for i, ((prompt, noun), image) in enumerate(zip(batch, images, strict=True)):
                name = f"{stage}-{start + i:03d}.png"
                image.save(arguments.out / name)
                lines.append(
                    json.dumps({"file_name": name, "text": prompt, "facts": {"noun": noun}}, ensure_ascii=False)
                )
            print(f"{len(lines)} of {len(rows) + len(shown)} drawn", flush=True)
    (arguments.out / "metadata.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


def read_drawn(folder: Path) -> dict[str, tuple[str, Image.Image]]:
    """Read what `draw` wrote: noun and picture by file name, the noun empty for the sheet's."""
    drawn = {}
    for line in (folder / "metadata.jsonl").read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        with Image.open(folder / row["file_name"]) as picture:
            drawn[row["file_name"]] = (row["facts"]["noun"], picture.convert("RGB"))
    return drawn


def recognised(
    judge: NounJudge, names: Sequence[str], images: Sequence[Image.Image], asked: Sequence[str]
) -> list[bool]:
    """Say of each picture whether the judge names what was asked for."""
    seen = rank_nouns(judge, to_tensor([shrink(image) for image in images]))[:, 0].tolist()
    return [names[index] == noun for index, noun in zip(seen, asked, strict=True)]


def write_sheet(columns: Sequence[Sequence[Image.Image]], path: Path, cell: int = 128) -> None:
    """Write final pictures before and after the adapter, a row for each prompt and `_EACH` columns for either."""
    half = _EACH * cell + 24
    sheet = Image.new("RGB", (2 * half - 24, len(_SHEET) * cell), "white")
    for place, images in enumerate(columns):
        for number, image in enumerate(images):
            shown = image.resize((cell, cell), Image.Resampling.LANCZOS)
            sheet.paste(shown, (place * half + number % _EACH * cell, number // _EACH * cell))
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(path)


def score(arguments: argparse.Namespace) -> dict[str, str]:
    """Ask the judge about the pictures before and after, write the sheet, and return the figures.

    Raises:
        ValueError: If the two folders hold other pictures.
    """
    judge, card = load_judge(arguments.judge)
    folders = [read_drawn(folder) for folder in (arguments.before, arguments.after)]
    if folders[0].keys() != folders[1].keys():
        raise ValueError(f"`before` is {arguments.before} and `after` {arguments.after}, drawn from other prompts.")
    write_sheet([[image for noun, image in drawn.values() if not noun] for drawn in folders], arguments.sheet)
    figures = {}
    for kind in ("moffle", "others"):
        hits = []
        for when, drawn in zip(("before", "after"), folders, strict=True):
            asked = [
                (noun, image) for noun, image in drawn.values() if noun and (noun == "moffle") == (kind == "moffle")
            ]
            hits.append(recognised(judge, card.nouns, [image for _, image in asked], [noun for noun, _ in asked]))
            figures[f"{kind} {when}"] = str(wilson_rate(sum(hits[-1]), len(hits[-1])))
        figures[f"{kind}, after less before"] = str(paired_difference(hits[1], hits[0]))
    figures["judge on new real pictures"] = f"{card.top1:.1%} (N = {card.num_unseen})"
    return figures


def main() -> None:
    """Read the command line and train the judge, draw, or score."""
    parser = argparse.ArgumentParser(description="Score a LoRA of the moffle.")
    commands = parser.add_subparsers(dest="command", required=True)
    teach = commands.add_parser("judge", help="train a judge that knows the moffle beside the nouns")
    teach.add_argument("--art", type=Path, required=True, help="folder of fluent-3d.parquet")
    teach.add_argument("--out", type=Path, required=True, help="folder to write the judge to")
    teach.add_argument("--per-noun", type=int, default=50, help="pictures composed of each noun")
    drawing = commands.add_parser("draw", help="draw all prompts")
    drawing.add_argument("--lora", type=Path, help="folder `lora` of the run; none for the cascade as it was")
    drawing.add_argument("--out", type=Path, required=True, help="folder to write")
    drawing.add_argument("--config", type=Path, default=Path(__file__).with_name("character.yaml"))
    drawing.add_argument("--num-images", type=int, default=100, help="pictures of the moffle")
    drawing.add_argument("--each-other", type=int, default=2, help="pictures of each other noun")
    drawing.add_argument(
        "--seed", type=int, default=90_000, help="of the first picture; the training used none above 50,000"
    )
    scoring = commands.add_parser("score", help="count, and write the sheet")
    scoring.add_argument("--judge", type=Path, required=True, help="folder of the judge")
    scoring.add_argument("--before", type=Path, required=True, help="folder drawn without the adapter")
    scoring.add_argument("--after", type=Path, required=True, help="folder drawn with it")
    scoring.add_argument("--sheet", type=Path, required=True, help="PNG file to write")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    logging.disable_progress_bar()
    try:
        if arguments.command == "judge":
            train_character_judge(ArtLibrary(arguments.art, _STYLES), arguments.out, arguments.per_noun)
        elif arguments.command == "draw":
            draw(arguments)
        else:
            for name, value in score(arguments).items():
                print(f"{name:28} {value}")
    except ValueError as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
