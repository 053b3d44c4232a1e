# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""Export the emoji scenes as a suite for `diffusers-imagen evaluate`: prompts, claims, real pictures, judge, baseline.

python examples/emoji/make_suite.py --art runs/art --judge runs/scene_judge/judge --out runs/suite --scenes 100
python examples/emoji/make_suite.py ... --training-data runs/data/singles_128 --encoder runs/encoder
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
from collections import Counter
from collections.abc import Container, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from art import style_files
from describe import read_descriptions
from scenes import Scene, SceneSampler
from suite_scenes import CATEGORIES, DESCRIPTION, FREE_TEXT, Category, claims_of
from torch import Tensor

from diffusers_imagen.data.folder import read_entries
from diffusers_imagen.evaluation.claims import give_verdict
from diffusers_imagen.evaluation.intervals import wilson_rate
from diffusers_imagen.evaluation.pictures import read_batches
from diffusers_imagen.evaluation.seen_scene import look
from diffusers_imagen.evaluation.suite import FORMAT, Suite, read_suite
from diffusers_imagen.text.encoding import TextSettings, encode_text
from diffusers_imagen.text.loading import load_text_encoder

FREE_TEXTS = Path(__file__).parent / "free_text.jsonl"
LANGUAGES = ("en", "zh")
STYLES = ("fluent-3d", "fluent-flat", "noto")
# No seed of a training set is that large.
SUITE_SEED = 2_000_000
CONTROL_SEED = 3_000_000
FREE_TEXT_SEED = 4_000_000
_SEEDS_OF_CATEGORY = 10_000
DESCRIPTION_OFFSET = 500_000
_MOST_TRIES = 30
_RETRIEVAL = "retrieval"
# Pictures reduced to this show what the judge forgives.
_COARSE = 16
# The encoder's own way of making sentence vectors.
_SENTENCES = TextSettings(layers=(-1,), prefix="query: ", max_length=64)


def choose_scenes(category: Category, sampler: SceneSampler, count: int, seed: int) -> Iterator[Scene]:
    """Draw scenes of a category from its splits in turn, none with the claims of an earlier one if that can be had."""
    known: set[str] = set()
    for number in range(count):
        split = category.splits[number % len(category.splits)]
        for attempt in range(_MOST_TRIES):
            scene = sampler.sample(seed, number + attempt * count, split)
            claims = json.dumps(claims_of(scene, category))
            if claims not in known:
                break
        known.add(claims)
        yield scene


def is_held_out(scene: Scene, claims: dict[str, Any], known_captions: Container[str]) -> bool:
    """Tell whether training has no scene that a caption says: not only another hat for "a hat", nor the very caption."""
    exact = all(len(word) == 1 for thing in claims["things"] for word in thing.get("worn", []))
    return scene.held_out and exact and not any(caption in known_captions for caption in scene.text)


def write_category(
    category: Category,
    art: Path,
    styles: Sequence[str],
    count: int,
    out: Path,
    size: int = 128,
    seed: int = SUITE_SEED,
    known_captions: Container[str] = (),
) -> list[dict[str, Any]]:
    """Write the real pictures of a category's scenes, `size` pixels wide, and return the lines of their prompts."""
    sampler = SceneSampler(art, replace(category.settings(styles), size=size))
    # Categories have seeds of their own, or those of one kind would show the same scenes.
    offset = _SEEDS_OF_CATEGORY * CATEGORIES.index(category)
    scenes = choose_scenes(category, sampler, count, seed + offset)
    controls = choose_scenes(category, sampler, count, CONTROL_SEED + offset)
    rows = []
    for number, (scene, control) in enumerate(zip(scenes, controls, strict=True)):
        name = f"{category.name.replace(' ', '-')}-{scene.kind.replace(' ', '-')}-{number:04d}"
        pictures = {"reference": f"references/{name}.png", "control": f"controls/{name}.png"}
        scene.image.save(out / pictures["reference"])
        control.image.save(out / pictures["control"])
        shared = {
            "scene": name,
            "category": category.name,
            "seed": seed + offset + number,
            "claims": claims_of(scene, category),
            **pictures,
        }
        if "held_out" in category.splits:
            shared["held_out"] = is_held_out(scene, shared["claims"], known_captions)
        rows += _in_languages(name, scene.text, shared)
    return rows


def free_text_rows() -> list[dict[str, Any]]:
    """Return the lines of the committed free-text prompts."""
    rows = []
    for number, line in enumerate(FREE_TEXTS.read_text(encoding="utf-8").splitlines()):
        fields = json.loads(line)
        rows += _concept_rows(FREE_TEXT, number, FREE_TEXT_SEED + number, fields["text"], fields["nouns"])
    return rows


def description_rows(count: int, seed: int) -> list[dict[str, Any]]:
    """Return the lines of descriptions that were not taught, one for each of some nouns.

    The last one of a noun is for the suite, the one before for suites of other seeds, on which settings are chosen.
    """
    which = -1 if seed == SUITE_SEED else -2
    described = list(read_descriptions().items())
    random.Random(seed).shuffle(described)
    rows = []
    for number, (noun, choices) in enumerate(described[:count]):
        text = (choices[which].english, choices[which].chinese)
        rows += _concept_rows(DESCRIPTION, number, seed + DESCRIPTION_OFFSET + number, text, [noun])
    return rows


def _concept_rows(
    category: str, number: int, seed: int, text: Sequence[str], nouns: list[str]
) -> list[dict[str, Any]]:
    name = f"{category.replace(' ', '-')}-{number:04d}"
    claims = {"things": [{"names": nouns}], "concept_only": True}
    return _in_languages(name, text, {"scene": name, "category": category, "seed": seed, "claims": claims})


def _in_languages(name: str, text: Sequence[str], shared: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        {"id": f"{name}-{language}", "language": language, "prompt": prompt, **shared}
        for language, prompt in zip(LANGUAGES, text, strict=True)
    ]


def sentence_vectors(texts: Sequence[str], encoder: Path, batch_size: int = 256) -> Tensor:
    """Return the encoder's sentence vectors of texts, of length 1 (B, D)."""
    tokenizer, text_encoder = load_text_encoder(encoder)
    # Texts of about one length together need less padding.
    order = sorted(range(len(texts)), key=lambda index: len(texts[index]))
    vectors = torch.empty(len(texts), text_encoder.config.hidden_size)
    for start in range(0, len(order), batch_size):
        chosen = order[start : start + batch_size]
        encoded = encode_text([texts[index] for index in chosen], tokenizer, text_encoder, _SENTENCES)
        vectors[chosen] = encoded.hidden_states.sum(1) / encoded.mask.sum(1, keepdim=True)
    return F.normalize(vectors, dim=1)


def write_retrieval(suite: Suite, training_data: Path, encoder: Path, out: Path) -> None:
    """Write the baseline that draws nothing: the training picture whose caption is nearest to the prompt."""
    picture_of = {caption: name for name, captions in read_entries(training_data) for caption in captions}
    captions = list(picture_of)
    known = sentence_vectors(captions, encoder)
    asked = sentence_vectors([prompt.prompt for prompt in suite.prompts], encoder)
    out.mkdir(parents=True)
    for prompt, nearest in zip(suite.prompts, (asked @ known.T).argmax(dim=1).tolist(), strict=True):
        shutil.copyfile(training_data / picture_of[captions[nearest]], out / f"{prompt.id}.png")
    print(f"retrieval: {len(captions)} training captions")


def print_ceiling(suite: Suite) -> None:
    """Print how many of the real pictures the judge finds to show what is claimed, by category; and of coarse ones."""
    for category in suite.categories:
        scenes = {p.scene: p for p in suite.prompts if p.category == category and p.reference is not None}
        paths = [prompt.reference for prompt in scenes.values() if prompt.reference is not None]
        for how, side in (
            ("real pictures", suite.judge.config.sample_size),
            (f"real pictures of {_COARSE} pixels", _COARSE),
        ):
            seen = look(suite.judge, read_batches(paths, side)).scenes if paths else []
            hits = [give_verdict(p.claims, scene).hit for p, scene in zip(scenes.values(), seen, strict=False)]
            if hits:
                print(f"judge on {how}, {category}: {wilson_rate(sum(hits), len(hits))}")


def make_suite(arguments: argparse.Namespace) -> None:
    """Write a suite beside its final place, then rename it."""
    out: Path = arguments.out
    if out.exists():
        raise ValueError(f"`out` is {out}, which exists; choose another folder, or delete this one.")
    style_files(arguments.art, arguments.styles)
    chosen = [category for category in CATEGORIES if category.name in arguments.categories]
    shares = Counter(category.name for category in chosen)
    if arguments.scenes < max(shares.values()):
        raise ValueError(f"`scenes` is {arguments.scenes}; give at least {max(shares.values())}.")
    if not (arguments.judge / "config.json").is_file():
        raise ValueError(f"`judge` is {arguments.judge}, which holds no judge; train one with train_scene_judge.py.")
    if (arguments.training_data is None) != (arguments.encoder is None):
        raise ValueError("`training_data` and `encoder` make the retrieval baseline together; give both or none.")
    new = out.with_name(f".{out.name}.new")
    shutil.rmtree(new, ignore_errors=True)
    for folder in ("references", "controls"):
        (new / folder).mkdir(parents=True)
    shutil.copytree(arguments.judge, new / "judge")
    data = arguments.training_data
    known = set() if data is None else {caption for _, captions in read_entries(data) for caption in captions}
    rows: list[dict[str, Any]] = []
    for category in chosen:
        count = arguments.scenes // shares[category.name]
        rows += write_category(
            category, arguments.art, arguments.styles, count, new, arguments.size, arguments.seed, known
        )
    # The first scenes of a category are then of all its kinds.
    rows.sort(key=lambda row: (list(shares).index(row["category"]), row["seed"] % _SEEDS_OF_CATEGORY))
    rows += description_rows(arguments.scenes, arguments.seed)
    if arguments.seed == SUITE_SEED:
        rows += free_text_rows()
    lines = [json.dumps(row, ensure_ascii=False) for row in rows]
    (new / "prompts.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (new / "suite.json").write_text(json.dumps({"format": FORMAT, "name": "emoji scenes"}) + "\n", encoding="utf-8")
    suite = read_suite(new)
    if arguments.training_data is not None:
        write_retrieval(suite, arguments.training_data, arguments.encoder, new / "baselines" / _RETRIEVAL)
    print_ceiling(suite)
    new.rename(out)
    print(f"{out}: {len(suite.prompts)} prompts in {len(suite.categories)} categories")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--art", type=Path, required=True, help="folder of <style>.parquet")
    parser.add_argument("--judge", type=Path, required=True, help="judge that train_scene_judge.py wrote")
    parser.add_argument("--out", type=Path, required=True, help="folder of the suite to write")
    parser.add_argument("--scenes", type=int, default=100, help="scenes of each category")
    parser.add_argument(
        "--seed", type=int, default=SUITE_SEED, help="another one makes other scenes, and leaves free text out"
    )
    parser.add_argument("--size", type=int, default=128, help="pixels of the real pictures")
    names = list(dict.fromkeys(category.name for category in CATEGORIES))
    parser.add_argument("--categories", nargs="+", choices=names, default=names)
    parser.add_argument("--styles", nargs="+", default=list(STYLES), help="styles; the first is that of unnamed style")
    parser.add_argument("--training-data", type=Path, help="image folder that the model learned from")
    parser.add_argument("--encoder", type=Path, help="folder with tokenizer/ and text_encoder/")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    try:
        make_suite(arguments)
    except ValueError as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
