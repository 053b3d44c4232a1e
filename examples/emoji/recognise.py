# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""The recognition score: how often a classifier, taught on real pictures, names the noun that a picture was asked for.

python examples/emoji/recognise.py train --art DIR --out runs/judge
python examples/emoji/recognise.py prompts --out prompts.jsonl
python examples/emoji/recognise.py score --judge runs/judge --images DIR
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import captions
import torch
from art import ArtLibrary
from judge import JudgeCard, NounJudge, load_judge, rank_nouns, save_judge, shrink, to_tensor
from judge_training import compose_set, examine, nouns_with_art, train_judge
from nouns import NOUNS
from PIL import Image
from torch import Tensor

from diffusers_imagen.evaluation.intervals import Rate, wilson_rate


@dataclass(frozen=True)
class RecognitionReport:
    """Hold what a score found.

    Attributes:
        top1: Pictures whose noun is the judge's first guess.
        top5: Pictures whose noun is among its first five.
        chance: Expected top-1 rate of guessing.
        shuffled_top1: Mean top-1 rate when the prompts are dealt to the pictures at random.
        confusions: Most frequent mistakes: noun asked for, noun seen, how often.
    """

    top1: Rate
    top5: Rate
    chance: float
    shuffled_top1: float
    confusions: tuple[tuple[str, str, int], ...]


def shuffled_hit_rate(asked: Tensor, seen: Tensor, permutations: int = 1000) -> float:
    """Return the mean rate of asked == seen when `asked` is shuffled, both (B,)."""
    generator = torch.Generator().manual_seed(0)
    rates = [
        (asked[torch.randperm(len(asked), generator=generator)] == seen).float().mean() for _ in range(permutations)
    ]
    return torch.stack(rates).mean().item()


def noun_of(row: Mapping[str, object]) -> str:
    """Read the noun that a line of metadata asks for: `facts.noun`, or the name of the first of `facts.things`.

    Raises:
        ValueError: If the line names none.
    """
    facts = row.get("facts")
    if isinstance(facts, dict):
        noun, things = facts.get("noun"), facts.get("things")
        if isinstance(noun, str):
            return noun
        if isinstance(things, list) and things:
            return str(things[0]["name"])
    raise ValueError(f'`images` has the line {dict(row)}, whose facts name no noun: write "facts": {{"noun": "cat"}}.')


def read_pictures(folder: Path, nouns: Sequence[str]) -> tuple[Tensor, Tensor]:
    """Read the pictures of single nouns from an image folder.

    Lines with a kind other than "single" are left out.

    Returns:
        Pictures, uint8 (B, 3, 32, 32), and the index of the noun asked for (B,).

    Raises:
        ValueError: If the folder holds no such picture, or a line names no noun or an unknown one.
    """
    index_of = {noun: index for index, noun in enumerate(nouns)}
    images, asked = [], []
    for line in (folder / "metadata.jsonl").read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        if row.get("kind", "single") != "single":
            continue
        noun = noun_of(row)
        if noun not in index_of:
            raise ValueError(
                f"`images` asks for {noun!r}, which the judge does not know: it knows {len(nouns)} nouns."
            )
        with Image.open(folder / row["file_name"]) as picture:
            images.append(shrink(picture))
        asked.append(index_of[noun])
    if not images:
        raise ValueError(f"`images` is {folder}, whose metadata.jsonl has no picture of kind 'single'.")
    return to_tensor(images), torch.tensor(asked)


def score(judge: NounJudge, nouns: Sequence[str], pixels: Tensor, asked: Tensor) -> RecognitionReport:
    """Score pictures.

    Args:
        judge: The judge.
        nouns: Its classes.
        pixels: Pictures, uint8 (B, 3, 32, 32).
        asked: Index of the noun each was asked for (B,).

    Returns:
        The report.
    """
    ranks = rank_nouns(judge, pixels)
    seen = ranks[:, 0]
    top5 = (ranks[:, :5] == asked[:, None]).any(dim=1)
    wrong = seen != asked
    mistakes = Counter((nouns[int(a)], nouns[int(s)]) for a, s in zip(asked[wrong], seen[wrong], strict=True))
    return RecognitionReport(
        top1=wilson_rate(int((seen == asked).sum()), len(asked)),
        top5=wilson_rate(int(top5.sum()), len(asked)),
        chance=1 / len(nouns),
        shuffled_top1=shuffled_hit_rate(asked, seen),
        confusions=tuple((a, s, count) for (a, s), count in mistakes.most_common(10)),
    )


def _print_confusions(confusions: Sequence[tuple[str, str, int]]) -> None:
    for asked, seen, count in confusions:
        print(f"  {asked} -> {seen}: {count}")


def _print_report(report: RecognitionReport, card: JudgeCard) -> None:
    print(f"N                    {report.top1.trials}")
    print(f"top-1                {report.top1}")
    print(f"top-5                {report.top5}")
    print(f"chance               {report.chance:.2%}")
    print(f"prompts shuffled     {report.shuffled_top1:.2%} (mean of 1000 permutations)")
    print(f"judge on real, new   {card.top1:.1%} top-1, {card.top5:.1%} top-5 (N = {card.num_unseen})")
    print("asked -> seen, most frequent:")
    _print_confusions(report.confusions)


def _train(arguments: argparse.Namespace) -> None:
    torch.set_num_threads(arguments.threads)
    art = ArtLibrary(arguments.art, arguments.styles)
    nouns = [noun.singular for noun in nouns_with_art(art, arguments.styles)]
    pixels, labels = compose_set(art, arguments.styles, arguments.per_noun, seed="train")
    print(f"{len(pixels)} pictures of {len(nouns)} nouns composed", flush=True)
    judge = train_judge(pixels, labels, len(nouns), arguments.epochs)
    unseen_pixels, unseen_labels = compose_set(art, arguments.styles, 12, seed="unseen")
    card = examine(judge, unseen_pixels, unseen_labels, nouns, arguments.styles)
    save_judge(arguments.out, judge, card)
    hits = round(card.top1 * card.num_unseen)
    print(f"unseen real pictures: top-1 {wilson_rate(hits, card.num_unseen)}, top-5 {card.top5:.1%}, mistakes:")
    _print_confusions(card.confusions)
    print(f"judge written to {arguments.out}")


def _write_prompts(arguments: argparse.Namespace) -> None:
    rows = []
    for noun in NOUNS:
        plain = captions.single(noun)[0]
        text = [plain.english, plain.chinese]
        rows.append({"text": text, "kind": "single", "facts": {"noun": noun.singular}})
    lines = [json.dumps(row, ensure_ascii=False) for row in rows]
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(f"{len(lines)} prompts written to {arguments.out}")


def _score(arguments: argparse.Namespace) -> None:
    torch.set_num_threads(arguments.threads)
    judge, card = load_judge(arguments.judge)
    pixels, asked = read_pictures(arguments.images, card.nouns)
    report = score(judge, card.nouns, pixels, asked)
    _print_report(report, card)
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(asdict(report), ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


def main() -> None:
    """Read the command line and train, score or write prompts."""
    parser = argparse.ArgumentParser(description="Train and use the judge of the recognition score.")
    commands = parser.add_subparsers(required=True)
    train = commands.add_parser("train", help="train a judge on real pictures")
    train.add_argument("--art", type=Path, required=True, help="folder of <style>.parquet")
    train.add_argument("--out", type=Path, required=True, help="folder to write the judge to")
    train.add_argument("--styles", nargs="+", default=["fluent-3d"])
    train.add_argument("--per-noun", type=int, default=100, help="pictures composed of each noun")
    train.add_argument("--epochs", type=int, default=5)
    train.add_argument("--threads", type=int, default=1)
    train.set_defaults(run=_train)
    prompts = commands.add_parser("prompts", help="write one prompt for each noun, in both languages")
    prompts.add_argument("--out", type=Path, required=True, help="JSON lines to write: text, kind, facts")
    prompts.set_defaults(run=_write_prompts)
    scoring = commands.add_parser("score", help="score an image folder")
    scoring.add_argument("--judge", type=Path, required=True, help="folder of the judge")
    scoring.add_argument("--images", type=Path, required=True, help="pictures and a metadata.jsonl with facts")
    scoring.add_argument("--threads", type=int, default=1)
    scoring.add_argument("--json", type=Path, help="file to write the figures to as well")
    scoring.set_defaults(run=_score)
    arguments = parser.parse_args()
    try:
        arguments.run(arguments)
    except ValueError as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
