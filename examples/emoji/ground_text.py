# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""Teach a base's text adapter where in the picture the things lie that a caption names.

python examples/emoji/ground_text.py --unet runs/base_64_init --data runs/data/layout_128 --encoder runs/encoder \
    --out runs/base_64_grounded

Which of two things is the left one follows from the order of the nouns and from the word between them, only from both
together. Denoising alone does not find that out: 61,000 steps of the built-in base drew the right things on the right
sides no more often than chance. Here a linear reading of the adapter's tokens has to tell the middle of each thing
that a caption names, which it learns within minutes; the reading is then thrown away, the tokens keep what it read, and
denoising goes on from there. The tokens are held near to what they were, so that the U-Net still knows them.
"""

from __future__ import annotations

import argparse
import copy
import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from nouns import NOUN_BY_NAME
from PIL import Image
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from diffusers_imagen import ImagenUNet2DConditionModel
from diffusers_imagen.models.embeddings import TextAdapter
from diffusers_imagen.text.encoding import TextSettings, encode_text
from diffusers_imagen.text.loading import load_text_encoder

TEXT = TextSettings(layers=(7, 12), prefix="query: ", max_length=64)
# English that captions have in place of the singular.
_ALWAYS_SEVERAL = {"grape": "grapes", "cherry": "cherries"}
_HELD_OUT = 0.1
_DRIFT_WEIGHT = 0.1
_REPORT_EVERY = 100


@dataclass(frozen=True)
class Example:
    """Hold a caption for the adapter.

    Attributes:
        states: The encoder's states (L, D), float16.
        places: Middle of the thing that each token names, x and y in [-1, 1] (L, 2); NaN for tokens that name none.
    """

    states: Tensor
    places: Tensor


def spans_of(caption: str, language: str, names: Sequence[str]) -> list[tuple[int, int]] | None:
    """Find where a caption names things: first and last character + 1 of each; None unless each is named once.

    Args:
        caption: In English or Chinese.
        language: "en" or "zh".
        names: English singulars, each of another thing.
    """
    spans = []
    for name in names:
        word = _ALWAYS_SEVERAL.get(name, name) if language == "en" else NOUN_BY_NAME[name].chinese
        if caption.lower().count(word) != 1:
            return None
        start = caption.lower().index(word)
        spans.append((start, start + len(word)))
    overlaps = any(first[1] > second[0] for first, second in pairwise(sorted(spans)))
    return None if overlaps else spans


def places_of(
    offsets: Sequence[tuple[int, int]], spans: Sequence[tuple[int, int]], middles: Sequence[tuple[float, float]]
) -> Tensor:
    """Give each token the middle of the thing that it names (L, 2), NaN for none.

    Args:
        offsets: First and last character + 1 of each token.
        spans: The same of each noun.
        middles: Of each noun's thing, in [-1, 1].
    """
    places = torch.full((len(offsets), 2), torch.nan)
    for (start, stop), middle in zip(spans, middles, strict=True):
        for token, (first, last) in enumerate(offsets):
            if first < last and first < stop and last > start:
                places[token] = torch.tensor(middle)
    return places


def read_examples(
    folder: Path, tokenizer: PreTrainedTokenizerBase, text_encoder: PreTrainedModel, scenes: int
) -> list[Example]:
    """Encode the captions of the first scenes that say where things are, both languages of a scene side by side.

    Raises:
        ValueError: If the folder has no such scenes.
    """
    rows = [json.loads(line) for line in (folder / "metadata.jsonl").read_text(encoding="utf-8").splitlines()]
    rows = [row for row in rows if row["kind"] == "relation"][:scenes]
    if not rows:
        raise ValueError(f"`data` is {folder}, which has no scenes of the kind 'relation'; make some, see README.md.")
    with Image.open(folder / rows[0]["file_name"]) as picture:
        size = picture.width
    captions: list[str] = []
    found: list[tuple[list[tuple[int, int]], list[tuple[float, float]]]] = []
    for row in rows:
        things = row["facts"]["things"]
        for language, caption in zip(("en", "zh"), row["text"], strict=True):
            spans = spans_of(caption, language, [thing["name"] for thing in things])
            if spans is not None:
                captions.append(caption)
                found.append((spans, [_middle(thing["box"], size) for thing in things]))
    return _encoded(captions, found, tokenizer, text_encoder)


def _middle(box: Sequence[float], size: int) -> tuple[float, float]:
    left, top, right, bottom = box
    return (left + right) / size - 1, (top + bottom) / size - 1


def _encoded(
    captions: Sequence[str], found: Sequence[Any], tokenizer: PreTrainedTokenizerBase, text_encoder: PreTrainedModel
) -> list[Example]:
    examples = []
    for start in range(0, len(captions), 64):
        part = captions[start : start + 64]
        encoded = encode_text(part, tokenizer, text_encoder, TEXT)
        read = tokenizer([TEXT.prefix + caption for caption in part], return_offsets_mapping=True)
        for index, (spans, middles) in enumerate(found[start : start + 64]):
            states = encoded.hidden_states[index][encoded.mask[index]].half()
            # Offsets count the prefix, spans do not.
            offsets = [
                (first - len(TEXT.prefix), last - len(TEXT.prefix)) for first, last in read.offset_mapping[index]
            ]
            examples.append(Example(states, places_of(offsets, spans, middles)))
    return examples


class Grounding:
    """Train an adapter, in place, with a linear reading of its tokens.

    Args:
        adapter: The text adapter of a U-Net.
        rate: Largest learning rate.
    """

    def __init__(self, adapter: TextAdapter, rate: float = 5e-4) -> None:
        self.adapter, self.before = adapter.train(), copy.deepcopy(adapter).eval().requires_grad_(False)
        self.reading = nn.Linear(adapter.proj_in.out_features, 2)
        parameters = [*adapter.parameters(), *self.reading.parameters()]
        self.optimizer = torch.optim.AdamW(parameters, lr=rate, betas=(0.9, 0.99))
        self.rate = rate

    def step(self, examples: Sequence[Example], progress: float) -> tuple[float, float]:
        """Take one step and return the mean squared error of the places and the drift of the tokens.

        Args:
            examples: A batch.
            progress: Share of the steps done; in the last third the rate falls to 0.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate * min(1.0, 20 * progress + 0.02, 3 * (1 - progress))
        states, mask, places = _batch(examples)
        tokens, _, pooled = self.adapter(states, mask)
        with torch.no_grad():
            tokens_before, _, pooled_before = self.before(states, mask)
        named = ~places.isnan()
        error = (self.reading(tokens) - places)[named].square().mean()
        drift = _relative(tokens[mask], tokens_before[mask]) + _relative(pooled, pooled_before)
        self.optimizer.zero_grad()
        (error + _DRIFT_WEIGHT * drift).backward()
        nn.utils.clip_grad_norm_(self.adapter.parameters(), 1.0)
        self.optimizer.step()
        return error.item(), drift.item()

    @torch.no_grad()
    def told_apart(self, examples: Sequence[Example]) -> float:
        """Return the share of noun tokens whose side, left or right, above or below, is read rightly."""
        right = total = 0
        for start in range(0, len(examples), 64):
            states, mask, places = _batch(examples[start : start + 64])
            read = self.reading(self.adapter(states, mask)[0])
            # Of x and y the one that the caption is about: things lie far from the middle along it alone.
            along = places.abs() > 0.3
            right += int((read.sign() == places.sign())[along].sum())
            total += int(along.sum())
        return right / total


def _batch(examples: Sequence[Example]) -> tuple[Tensor, Tensor, Tensor]:
    states = pad_sequence([example.states.float() for example in examples], batch_first=True)
    places = pad_sequence([example.places for example in examples], batch_first=True, padding_value=torch.nan)
    lengths = torch.tensor([len(example.states) for example in examples])
    return states, torch.arange(states.shape[1]) < lengths[:, None], places


def _relative(now: Tensor, before: Tensor) -> Tensor:
    return (now - before).square().mean() / before.square().mean()


def ground(adapter: TextAdapter, examples: Sequence[Example], steps: int, batch_size: int, seed: int) -> float:
    """Train an adapter in place and return the share of held-out captions' nouns that it places on the right side."""
    held_out = examples[: max(1, int(_HELD_OUT * len(examples)))]
    known = examples[len(held_out) :]
    torch.manual_seed(seed)
    grounding, chosen = Grounding(adapter), random.Random(seed)
    for step in range(steps):
        error, drift = grounding.step(chosen.choices(known, k=batch_size), step / steps)
        if (step + 1) % _REPORT_EVERY == 0:
            told = grounding.told_apart(held_out)
            print(f"step {step + 1}: error {error:.4f}, drift {drift:.4f}, held-out {told:.1%}", flush=True)
    adapter.eval()
    return grounding.told_apart(held_out)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--unet", type=Path, required=True, help="folder of a base")
    parser.add_argument("--data", type=Path, required=True, help="folder of make_dataset.py with scenes of relations")
    parser.add_argument("--encoder", type=Path, required=True, help="folder with tokenizer/ and text_encoder/")
    parser.add_argument("--out", type=Path, required=True, help="folder of the U-Net to write")
    parser.add_argument("--scenes", type=int, default=2500, help="scenes whose captions are learned")
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    unet = ImagenUNet2DConditionModel.from_pretrained(arguments.unet)
    tokenizer, text_encoder = load_text_encoder(arguments.encoder)
    try:
        examples = read_examples(arguments.data, tokenizer, text_encoder, arguments.scenes)
    except ValueError as error:
        parser.error(str(error))
    told = ground(unet.text_adapter, examples, arguments.steps, arguments.batch_size, arguments.seed)
    unet.save_pretrained(arguments.out)
    print(f"{arguments.out}: the side of {told:.1%} of held-out nouns is told rightly, of {len(examples)} captions")


if __name__ == "__main__":
    main()
