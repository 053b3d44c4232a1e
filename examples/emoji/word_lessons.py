# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""What a text adapter shall make of descriptions, and of captions that stay what they are. Called by teach_words.py."""

from __future__ import annotations

import copy
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from captions import Caption, one_en, one_zh
from nouns import EYE_HEIGHT, NOUN_BY_NAME
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from diffusers_imagen.models.embeddings import TextAdapter
from diffusers_imagen.text.encoding import TextSettings, encode_text

TEXT = TextSettings(layers=(7, 12), prefix="query: ", max_length=64)
# Captions around a description, in both languages; what wears something has to have eyes.
AROUND = (
    ("a picture of {}", "{}的图片"),
    ("draw {}", "画{}"),
    ("{}, blue background", "{}，蓝色背景"),
    ("{} on a yellow background", "黄色背景上的{}"),
    ("{} on the beach", "海滩上的{}"),
    ("{}, flat style", "{}，扁平风格"),
)
AROUND_HEADS = (
    ("{} wearing a hat", "戴着帽子的{}"),
    ("{} wearing glasses", "戴着眼镜的{}"),
    ("{} with sunglasses", "戴着墨镜的{}"),
    ("{} in a crown", "戴着皇冠的{}"),
)


@dataclass(frozen=True)
class Reading:
    """Hold a caption and what the adapter shall make of it.

    Attributes:
        states: The encoder's states (L, S * E), float16.
        tokens: The adapter's tokens to reach (L, D).
        pooled: The pooled text to reach (T,).
    """

    states: Tensor
    tokens: Tensor
    pooled: Tensor


@dataclass(frozen=True)
class Lesson:
    """Hold a description within a caption.

    Attributes:
        reading: The caption, read as if it named the noun.
        inside: Which tokens are the description's (L,), bool.
        language: 0 for English, 1 for Chinese.
        noun: Number of the noun described.
    """

    reading: Reading
    inside: Tensor
    language: int
    noun: int


class Reader:
    """Read captions with the frozen encoder, and with the adapter as it was."""

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, text_encoder: PreTrainedModel, adapter: TextAdapter
    ) -> None:
        self.tokenizer, self.text_encoder = tokenizer, text_encoder
        self.before = copy.deepcopy(adapter).eval().requires_grad_(False)

    @torch.no_grad()
    def read(self, captions: Sequence[str]) -> dict[str, Reading]:
        """Read captions, each once."""
        ordered = sorted(set(captions), key=len)
        found: dict[str, Reading] = {}
        for start in range(0, len(ordered), 64):
            part = ordered[start : start + 64]
            encoded = encode_text(part, self.tokenizer, self.text_encoder, TEXT)
            tokens, _, pooled = self.before(encoded.hidden_states, encoded.mask)
            for row, caption in enumerate(part):
                real = encoded.mask[row]
                states = encoded.hidden_states[row][real].half()
                found[caption] = Reading(states, tokens[row][real], pooled[row].clone())
        return found

    def span(self, caption: str, part: str, start: int = 0) -> slice:
        """Find the tokens of the first such part of a caption, from a character on."""
        first = caption.index(part, start) + len(TEXT.prefix)
        offsets = self.tokenizer(TEXT.prefix + caption, return_offsets_mapping=True).offset_mapping
        inside = [i for i, (a, b) in enumerate(offsets) if a < b and a < first + len(part) and b > first]
        return slice(inside[0], inside[-1] + 1)


def plain_of(name: str, language: int) -> tuple[str, str]:
    """Return the plain words for one of a noun, and the noun within them."""
    noun = NOUN_BY_NAME[name]
    if language == 0:
        return one_en(noun), one_en(noun).split(" ", 1)[-1]
    return one_zh(noun), noun.chinese


def lessons_of(
    reader: Reader, described: Mapping[str, Sequence[Caption]], chosen: random.Random, variants: int
) -> list[Lesson]:
    """Make the lessons of descriptions: each alone, and within some captions.

    Args:
        reader: Encoder and adapter.
        described: Descriptions by noun.
        chosen: Chooses the captions around.
        variants: Captions around each description, in each language.
    """
    wanted = []
    for number, (name, descriptions) in enumerate(described.items()):
        around = [*AROUND, *(AROUND_HEADS if name in EYE_HEIGHT else ())]
        for description in descriptions:
            for template in (("{}", "{}"), *chosen.sample(around, variants)):
                wanted.append((number, 0, template[0], description.english, *plain_of(name, 0)))
                wanted.append((number, 1, template[1], description.chinese, *plain_of(name, 1)))
    captions = [template.format(words) for _, _, template, said, plain, _ in wanted for words in (said, plain)]
    readings = reader.read(captions)
    lessons = [_lesson(reader, readings, *one) for one in wanted]
    return [lesson for lesson in lessons if lesson is not None]


def _lesson(
    reader: Reader,
    readings: Mapping[str, Reading],
    number: int,
    language: int,
    template: str,
    description: str,
    plain: str,
    noun: str,
) -> Lesson | None:
    """Make all tokens of the description the noun's, those around it the same as around the plain words."""
    said, meant = readings[template.format(description)], readings[template.format(plain)]
    place = template.index("{}")
    inside = reader.span(template.format(description), description, place)
    of_plain = reader.span(template.format(plain), plain, place)
    of_noun = reader.span(template.format(plain), noun, place + plain.rindex(noun))
    # A tokenizer may join the last word before with the first one within; then they cannot be told apart.
    if inside.start != of_plain.start or len(said.states) - inside.stop != len(meant.tokens) - of_plain.stop:
        return None
    middle = meant.tokens[of_noun].mean(0).expand(inside.stop - inside.start, -1)
    tokens = torch.cat([meant.tokens[: inside.start], middle, meant.tokens[of_plain.stop :]])
    mask = torch.zeros(len(tokens), dtype=torch.bool)
    mask[inside] = True
    return Lesson(Reading(said.states, tokens, meant.pooled), mask, language, number)


def nouns_of(reader: Reader, names: Sequence[str]) -> Tensor:
    """Return the middle of each noun's tokens in its plain words (2, N, D), English and Chinese."""
    rows = []
    for language in (0, 1):
        words = [plain_of(name, language) for name in names]
        readings = reader.read([plain for plain, _ in words])
        middles = [
            readings[plain].tokens[reader.span(plain, noun, plain.rindex(noun))].mean(0) for plain, noun in words
        ]
        rows.append(torch.stack(middles))
    return torch.stack(rows)
