# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""The kinds of scenes, one function each.

A kind draws on a canvas and returns a `Drawing`, or None where the chosen parts do not go together and the sampler
should throw again. Backgrounds, and words for background and style, are the sampler's.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import captions
from captions import Caption
from compose import drop_chin_strap, wear
from nouns import EYE_HEIGHT, GLASSES, HATS, HOLDABLE, NOUN_BY_NAME, Noun, Wearable
from PIL import Image
from studio import Canvas, Studio, is_held_out

MIDDLE = (0.5, 0.5)


@dataclass(frozen=True)
class Drawing:
    """Say what a kind has drawn: wordings for it, and whether the combination is held out of training.

    `relation` says where the first thing is, seen from the second.
    """

    wordings: list[Caption]
    held_out: bool = False
    relation: str | None = None


Kind = Callable[[Studio, Canvas], Drawing | None]


def draw_single(studio: Studio, canvas: Canvas) -> Drawing | None:
    """Draw one noun, large, near the middle."""
    noun = studio.choose_noun()
    shift = studio.settings.single_shift
    center = (0.5 + studio.jitter(shift), 0.5 + studio.jitter(shift))
    fill = studio.rng.uniform(*studio.settings.single_fill)
    canvas.paste(studio.picture_of(noun), noun.singular, center, fill)
    return Drawing(captions.single(noun))


def draw_emoji(studio: Studio, canvas: Canvas) -> Drawing | None:
    """Draw any emoji of the style, worded by its CLDR name and sometimes a keyword."""
    code_points = studio.rng.choice(studio.art.code_points(studio.style))
    record = studio.art.record(studio.style, code_points)
    english, chinese = record.name_en, record.name_zh
    if record.keywords_en and studio.happens(0.25):
        english = f"{english}, {studio.rng.choice(record.keywords_en)}"
    if record.keywords_zh and studio.happens(0.25):
        chinese = f"{chinese}，{studio.rng.choice(record.keywords_zh)}"
    canvas.paste(studio.art.image(studio.style, code_points), record.name_en, MIDDLE, 0.86)
    return Drawing([Caption(english, chinese, is_phrase=False)])


def draw_color(studio: Studio, canvas: Canvas) -> Drawing | None:
    """Draw one noun in a color."""
    choice = studio.choose_colored()
    if choice is None:
        return None
    noun, color, picture = choice
    if color == canvas.background:
        return None
    canvas.paste(picture, noun.singular, MIDDLE, studio.rng.uniform(0.6, 0.86), color)
    return Drawing(captions.colored(noun, color), is_held_out("color", noun.singular, color))


def draw_color_pair(studio: Studio, canvas: Canvas) -> Drawing | None:
    """Draw two nouns in two colors, side by side."""
    left, right = studio.choose_colored(), studio.choose_colored()
    if left is None or right is None or left[0] is right[0] or left[1] == right[1]:
        return None
    if canvas.background in (left[1], right[1]):
        return None
    for (noun, color, picture), x in ((left, 0.27), (right, 0.73)):
        canvas.paste(picture, noun.singular, (x, 0.5 + studio.jitter(0.06)), 0.44, color)
    pair = sorted(f"{color} {noun.singular}" for noun, color, _ in (left, right))
    wordings = captions.color_pair(left[0], left[1], right[0], right[1])
    return Drawing(wordings, is_held_out("color pair", *pair))


@dataclass(frozen=True)
class _Layout:
    """Place equal things: their centers and their size, as parts of the picture."""

    centers: tuple[tuple[float, float], ...]
    fill: float


# Far enough apart that equal things never touch, or they could not be counted.
_COUNT_LAYOUTS = {
    2: (_Layout(((0.28, 0.5), (0.72, 0.5)), 0.41),),
    3: (
        _Layout(((0.2, 0.5), (0.5, 0.5), (0.8, 0.5)), 0.27),
        _Layout(((0.5, 0.27), (0.27, 0.72), (0.73, 0.72)), 0.42),
    ),
    4: (_Layout(((0.28, 0.28), (0.72, 0.28), (0.28, 0.72), (0.72, 0.72)), 0.4),),
    5: (_Layout(((0.2, 0.2), (0.8, 0.2), (0.5, 0.5), (0.2, 0.8), (0.8, 0.8)), 0.27),),
    6: (_Layout(((0.2, 0.3), (0.5, 0.3), (0.8, 0.3), (0.2, 0.7), (0.5, 0.7), (0.8, 0.7)), 0.27),),
}


def draw_count(studio: Studio, canvas: Canvas) -> Drawing | None:
    """Draw two to six equal things, sometimes in a color."""
    color = None
    if studio.happens(0.25):
        choice = studio.choose_colored()
        if choice is None or choice[1] == canvas.background:
            return None
        noun, color, picture = choice
    else:
        noun = studio.choose_noun()
        picture = studio.picture_of(noun)
    if "uncounted" in noun.kinds:
        return None
    number = studio.rng.choice([2, 3, 3, 4, 4, 5, 6])
    layout = studio.rng.choice(_COUNT_LAYOUTS[number])
    fill = layout.fill * studio.rng.uniform(0.88, 1.0)
    for x, y in layout.centers:
        canvas.paste(picture, noun.singular, (x + studio.jitter(0.01), y + studio.jitter(0.01)), fill, color)
    return Drawing(captions.counted(noun, number, color), is_held_out("count", noun.singular, str(number)))


def _choose_two(studio: Studio) -> tuple[Noun, Noun, bool] | None:
    first, second = studio.choose_noun(), studio.choose_noun()
    if first is second:
        return None
    return first, second, is_held_out("pair", *sorted([first.singular, second.singular]), share=0.1)


def _draw_two(studio: Studio, canvas: Canvas, first: Noun, second: Noun, place: str) -> None:
    """Draw the first noun at a place seen from the second."""
    fill = studio.rng.uniform(0.38, 0.46)
    along = 0.235 + studio.jitter(0.02)
    across = studio.jitter(0.07)
    x, y = {
        "left": (-along, across),
        "right": (along, across),
        "above": (across, -along),
        "below": (across, along),
    }[place]
    canvas.paste(studio.picture_of(first), first.singular, (0.5 + x, 0.5 + y), fill)
    canvas.paste(studio.picture_of(second), second.singular, (0.5 - x, 0.5 - y), fill)


def draw_pair(studio: Studio, canvas: Canvas) -> Drawing | None:
    """Draw two things side by side; the caption does not say which is left."""
    choice = _choose_two(studio)
    if choice is None:
        return None
    first, second, held_out = choice
    place = studio.rng.choice(["left", "right"])
    _draw_two(studio, canvas, first, second, place)
    return Drawing(captions.pair(first, second), held_out, relation=place)


def draw_relation(studio: Studio, canvas: Canvas) -> Drawing | None:
    """Draw two things; the caption says which is where."""
    choice = _choose_two(studio)
    if choice is None:
        return None
    first, second, held_out = choice
    place = studio.rng.choice(["left", "right", "above", "below"])
    _draw_two(studio, canvas, first, second, place)
    return Drawing(captions.relation(first, place, second), held_out, relation=place)


def draw_size(studio: Studio, canvas: Canvas) -> Drawing | None:
    """Draw a big thing and a small thing."""
    choice = _choose_two(studio)
    if choice is None:
        return None
    big, small, held_out = choice
    if not captions.has_plain_sizes(big) or not captions.has_plain_sizes(small):
        return None
    canvas.paste(studio.picture_of(big), big.singular, (0.35, 0.47 + studio.jitter(0.04)), 0.62)
    canvas.paste(studio.picture_of(small), small.singular, (0.83, 0.62 + studio.jitter(0.05)), 0.27)
    return Drawing(captions.sizes(big, small), held_out, relation="left")


def _picture_of_worn(studio: Studio, word: Wearable) -> tuple[str, Image.Image] | None:
    """Choose what is drawn for a word such as "hat": the noun's name and its picture."""
    nouns = studio.drawable([NOUN_BY_NAME[name] for name in word.art])
    if not nouns:
        return None
    noun = studio.rng.choice(nouns)
    picture = studio.picture_of(noun)
    return noun.singular, drop_chin_strap(picture) if noun.singular == "helmet" else picture


def draw_wear(studio: Studio, canvas: Canvas) -> Drawing | None:
    """Draw a head with a hat, glasses or both.

    What is held out is decided by what is drawn, so the word "hat" does not let a held-out top hat into training.
    """
    if studio.happens(studio.settings.cat_in_hat):
        head, words = NOUN_BY_NAME["cat"], [HATS["hat"]]
    else:
        head = studio.choose_named(list(EYE_HEIGHT))
        hat_word = HATS[studio.rng.choice([*HATS, "hat"])]
        glasses_word = GLASSES[studio.rng.choice(list(GLASSES))]
        if studio.happens(studio.settings.wear_both):
            words = [hat_word, glasses_word]
        else:
            words = [hat_word if studio.happens(0.7) else glasses_word]
    if not studio.art.has(studio.style, head.art[0]):
        return None
    pictures: dict[str, Image.Image] = {}
    drawn = []
    for word in words:
        choice = _picture_of_worn(studio, word)
        if choice is None:
            return None
        drawn.append(choice[0])
        pictures["hat" if word in HATS.values() else "glasses"] = choice[1]
    face = studio.art.image(studio.style, head.art[0])
    dressed = wear(face, pictures.get("hat"), pictures.get("glasses"), EYE_HEIGHT[head.singular])
    canvas.paste(dressed, head.singular, MIDDLE, studio.rng.uniform(0.8, 0.94), worn=tuple(drawn))
    held_out = any(is_held_out("wear", head.singular, name) for name in drawn)
    return Drawing(captions.wearing(head, words), held_out)


def draw_hold(studio: Studio, canvas: Canvas) -> Drawing | None:
    """Draw a head with a thing in front of its lower right side, as if held."""
    head = studio.choose_noun("head")
    held = studio.choose_named(HOLDABLE)
    if not studio.art.has(studio.style, head.art[0]):
        return None
    canvas.paste(studio.art.image(studio.style, head.art[0]), head.singular, (0.4, 0.56), 0.66)
    height = 0.36 if held.singular == "balloon" else 0.62
    canvas.paste(studio.picture_of(held), held.singular, (0.77, height), (0.4, 0.44))
    return Drawing(captions.holding(head, held), is_held_out("hold", head.singular, held.singular))


def draw_in_landscape(studio: Studio, canvas: Canvas) -> Drawing | None:
    """Draw a thing standing in the landscape of the canvas, or floating where there is no ground."""
    noun = studio.choose_noun()
    if "sky" in noun.kinds and canvas.background not in ("space", "night"):
        return None
    fill = studio.rng.uniform(0.4, 0.62)
    picture = studio.picture_of(noun)
    x = 0.5 + studio.jitter(0.15)
    if canvas.ground is None or "sky" in noun.kinds:
        y = (0.5 if canvas.ground is None else 0.32) + studio.jitter(0.1)
    else:
        height = fill * min(1.0, picture.height / picture.width)
        y = canvas.ground + 0.12 - 0.3 * height
    canvas.paste(picture, noun.singular, (x, y), fill)
    held_out = is_held_out("scene", noun.singular, canvas.background, share=0.08)
    return Drawing(captions.in_landscape(noun, canvas.background), held_out)


KINDS: dict[str, Kind] = {
    "single": draw_single,
    "emoji": draw_emoji,
    "color": draw_color,
    "color pair": draw_color_pair,
    "count": draw_count,
    "pair": draw_pair,
    "relation": draw_relation,
    "size": draw_size,
    "wear": draw_wear,
    "hold": draw_hold,
    "scene": draw_in_landscape,
}
