# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""Captions of scenes in English and Chinese.

Each function lists all wordings for one fact, the plainest first; both languages of a wording say the same. Which
wording is taken is the sampler's choice.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from backgrounds import LANDSCAPES
from nouns import Noun, Wearable

NUMBERS_EN = ("zero", "one", "two", "three", "four", "five", "six")
NUMBERS_ZH = ("零", "一", "两", "三", "四", "五", "六")
COLORS_ZH = {
    "red": "红色",
    "orange": "橙色",
    "yellow": "黄色",
    "green": "绿色",
    "blue": "蓝色",
    "purple": "紫色",
    "black": "黑色",
    "white": "白色",
    "pink": "粉色",
    "gray": "灰色",
}
STYLES_EN = {
    "fluent-3d": ("3d style", "3d render"),
    "fluent": ("gradient style", "glossy style"),
    "fluent-flat": ("flat style", "flat design"),
    "noto": ("noto style", "cartoon style"),
    "noto-blob": ("blob style", "jelly style"),
    "twemoji": ("twemoji style", "simple style"),
}
STYLES_ZH = {
    "fluent-3d": ("3D风格", "立体风格"),
    "fluent": ("渐变风格", "光泽风格"),
    "fluent-flat": ("扁平风格", "扁平设计"),
    "noto": ("noto风格", "卡通风格"),
    "noto-blob": ("果冻风格", "果冻风格"),
    "twemoji": ("twemoji风格", "简约风格"),
}
# English for one of them, where it is not "a" and the singular.
_ONE = {
    "sun": "the sun",
    "moon": "the moon",
    "grape": "grapes",
    "cherry": "cherries",
    "bread": "bread",
    "corn": "corn",
}


@dataclass(frozen=True)
class Caption:
    """Hold one wording in both languages.

    Attributes:
        english: English text.
        chinese: Chinese text.
        is_phrase: Whether the Chinese text is a noun phrase, which words can be put before and after.
    """

    english: str
    chinese: str
    is_phrase: bool = True


def with_article(words: str) -> str:
    """Put "a" or "an" before English words."""
    sounds_like_vowel = words[0] in "aeiou" and not words.startswith(("uni", "eu", "one"))
    return f"an {words}" if sounds_like_vowel else f"a {words}"


def has_plain_singular(noun: Noun) -> bool:
    """Tell whether adjectives can be put between the article and the noun."""
    return noun.singular not in _ONE


def has_plain_sizes(noun: Noun) -> bool:
    """Tell whether "big" and "small" before the noun say its size in both languages.

    一碗小米饭 is a bowl of millet, 大熊猫 any panda, and the trumpet's name (小号) begins with "small".
    """
    return has_plain_singular(noun) and noun.measure not in ("碗", "杯") and noun.chinese not in ("熊猫", "小号")


def one_en(noun: Noun, adjective: str = "") -> str:
    """Say one of a noun in English: "a cat", "a red car"."""
    if adjective:
        return with_article(f"{adjective} {noun.singular}")
    return _ONE.get(noun.singular) or with_article(noun.singular)


def one_zh(noun: Noun, adjective: str = "") -> str:
    """Say one of a noun in Chinese: 一只猫."""
    return f"一{noun.measure}{adjective}{noun.chinese}"


def single(noun: Noun) -> list[Caption]:
    """Word a single thing."""
    bare = noun.singular if has_plain_singular(noun) else one_en(noun)
    return [Caption(one_en(noun), one_zh(noun)), Caption(bare, noun.chinese)]


def named(english: str, chinese: str) -> list[Caption]:
    """Word an emoji by its names."""
    return [Caption(english, chinese)]


def colored(noun: Noun, color: str) -> list[Caption]:
    """Word a single thing of a color."""
    adjective = f"{COLORS_ZH[color]}的"
    return [
        Caption(one_en(noun, color), one_zh(noun, adjective)),
        Caption(f"{color} {noun.singular}", f"{adjective}{noun.chinese}"),
    ]


def color_pair(first: Noun, first_color: str, second: Noun, second_color: str) -> list[Caption]:
    """Word two things of two colors, left one first."""
    english = f"{one_en(first, first_color)} and {one_en(second, second_color)}"
    first_zh = one_zh(first, f"{COLORS_ZH[first_color]}的")
    second_zh = one_zh(second, f"{COLORS_ZH[second_color]}的")
    return [Caption(english, f"{first_zh}和{second_zh}")]


def counted(noun: Noun, number: int, color: str | None) -> list[Caption]:
    """Word several equal things, all of one color if given."""
    color_en = f"{color} " if color else ""
    color_zh = f"{COLORS_ZH[color]}的" if color else ""
    return [
        Caption(
            f"{NUMBERS_EN[number]} {color_en}{noun.plural}",
            f"{NUMBERS_ZH[number]}{noun.measure}{color_zh}{noun.chinese}",
        )
    ]


def pair(first: Noun, second: Noun) -> list[Caption]:
    """Word two things side by side, without saying which is where."""
    a, b = one_en(first), one_en(second)
    a_zh, b_zh = one_zh(first), one_zh(second)
    return [
        Caption(f"{a} and {b}", f"{a_zh}和{b_zh}"),
        Caption(f"{a} next to {b}", f"{a_zh}在{b_zh}旁边", is_phrase=False),
        Caption(f"{a} beside {b}", f"{b_zh}旁边有{a_zh}", is_phrase=False),
    ]


def relation(first: Noun, place: str, second: Noun) -> list[Caption]:
    """Word where the first thing is, seen from the second: "left", "right", "above" or "below"."""
    a, b = one_en(first), one_en(second)
    a_zh, b_zh = one_zh(first), one_zh(second)
    if place in ("left", "right"):
        other = "right" if place == "left" else "left"
        side, other_side = ("左边", "右边") if place == "left" else ("右边", "左边")
        return [
            Caption(f"{a} to the {place} of {b}", f"{a_zh}在{b_zh}的{side}", is_phrase=False),
            Caption(f"{a} on the {place} and {b} on the {other}", f"{side}是{a_zh}，{other_side}是{b_zh}", False),
        ]
    if place == "above":
        return [
            Caption(f"{a} above {b}", f"{a_zh}在{b_zh}的上面", is_phrase=False),
            Caption(f"{a} on top of {b}", f"{b_zh}上面有{a_zh}", is_phrase=False),
        ]
    return [
        Caption(f"{a} below {b}", f"{a_zh}在{b_zh}的下面", is_phrase=False),
        Caption(f"{a} under {b}", f"{b_zh}下面有{a_zh}", is_phrase=False),
    ]


def sizes(big: Noun, small: Noun) -> list[Caption]:
    """Word a big and a small thing."""
    return [
        Caption(f"{one_en(big, 'big')} and {one_en(small, 'small')}", f"{one_zh(big, '大')}和{one_zh(small, '小')}")
    ]


def wearing(head: Noun, worn: Sequence[Wearable]) -> list[Caption]:
    """Word a head with the things it wears."""
    worn_en = " and ".join(thing.english for thing in worn)
    worn_zh = "和".join(thing.chinese for thing in worn)
    measured_zh = "和".join(f"一{thing.measure}{thing.chinese}" for thing in worn)
    a = one_en(head)
    return [
        Caption(f"{a} wearing {worn_en}", f"一{head.measure}戴着{worn_zh}的{head.chinese}"),
        Caption(f"{a} with {worn_en}", f"{one_zh(head)}戴着{worn_zh}", is_phrase=False),
        Caption(f"{a} in {worn_en}", f"戴着{worn_zh}的{head.chinese}"),
        Caption(f"{a} that wears {worn_en}", f"一{head.measure}戴着{measured_zh}的{head.chinese}"),
    ]


def holding(head: Noun, held: Noun) -> list[Caption]:
    """Word a head with a thing in its hands."""
    return [
        Caption(f"{one_en(head)} holding {one_en(held)}", f"{one_zh(head)}拿着{one_zh(held)}", is_phrase=False),
        Caption(f"{one_en(head)} with {one_en(held)}", f"一{head.measure}拿着{one_zh(held)}的{head.chinese}"),
    ]


def in_landscape(noun: Noun, landscape: str) -> list[Caption]:
    """Word a thing in a landscape."""
    words = LANDSCAPES[landscape]
    captions = []
    for english in words.english:
        captions.append(Caption(f"{one_en(noun)} {english}", f"{one_zh(noun)}{words.chinese}", is_phrase=False))
        captions.append(Caption(f"{one_en(noun)} {english}", f"{words.chinese}的{one_zh(noun)}"))
    return captions


def on_background(caption: Caption, color: str) -> list[Caption]:
    """Add a plain background's color to a caption."""
    color_zh = COLORS_ZH[color]
    after = f"{caption.chinese}，{color_zh}背景"
    before = f"{color_zh}背景上的{caption.chinese}" if caption.is_phrase else after
    return [
        Caption(f"{caption.english} on {with_article(color)} background", before, caption.is_phrase),
        Caption(f"{caption.english}, {color} background", after, is_phrase=False),
    ]


def as_picture(caption: Caption) -> list[Caption]:
    """Say of a noun phrase that it is a picture."""
    return [
        Caption(f"a picture of {caption.english}", f"{caption.chinese}的图片"),
        Caption(f"an image of {caption.english}", f"{caption.chinese}的图画"),
        Caption(f"an illustration of {caption.english}", f"{caption.chinese}的插画"),
        Caption(f"draw {caption.english}", f"画{caption.chinese}"),
    ]


def in_style(caption: Caption, style: str) -> list[Caption]:
    """Add the words for a drawing style: its name, where it has no others."""
    words_en = STYLES_EN.get(style, (f"{style} style",))
    words_zh = STYLES_ZH.get(style, (f"{style}风格",))
    words = zip(words_en, words_zh, strict=True)
    return [Caption(f"{caption.english}, {en}", f"{caption.chinese}，{zh}", is_phrase=False) for en, zh in words]
