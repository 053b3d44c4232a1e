# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""What a scene kind draws with: a `Canvas` to paste on, and a `Studio` that chooses nouns and their pictures.

The `Studio` carries the random numbers, so a scene is settled by its seed. The kinds themselves are in
`scene_kinds.py`.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import TypeVar

from art import ArtLibrary
from compose import COLORS, paste_centered, recolor, scale_to_fit
from nouns import COLORED_ART, NOUN_BY_NAME, NOUNS, RECOLORABLE, Noun
from PIL import Image
from settings import SceneSettings

Choice = TypeVar("Choice")


@dataclass(frozen=True)
class Thing:
    """Record one thing drawn in a scene.

    Attributes:
        name: The noun, or an emoji's English name.
        box: Left, top, right and bottom in pixels.
        color: The color the caption gives it, if any.
        worn: Names of the nouns drawn on it as worn.
    """

    name: str
    box: tuple[int, int, int, int]
    color: str | None = None
    worn: tuple[str, ...] = ()


def is_held_out(*combination: str, share: float = 0.12) -> bool:
    """Tell whether a combination of drawn things is kept out of training.

    A hash decides, so the answer is the same for all seeds and sizes. Both parts of a held-out combination appear in
    other scenes of the training split.

    Args:
        combination: Words that name what is drawn, the kind of combination first.
        share: Share of combinations held out.
    """
    return zlib.crc32("|".join(combination).encode()) % 1000 < 1000 * share


def choose_by_share(rng: Random, shares: Mapping[str, float]) -> str:
    """Choose a name with a chance in proportion to its share."""
    return rng.choices(list(shares), list(shares.values()))[0]


class Canvas:
    """Paste pictures on a background and record their boxes.

    Args:
        image: RGBA square to draw on.
        background: Name of the background.
        ground: Height where the ground of a landscape begins, as a part of the picture from its top, or None.
    """

    def __init__(self, image: Image.Image, background: str, ground: float | None = None) -> None:
        self.image = image
        self.background = background
        self.ground = ground
        self.things: list[Thing] = []

    def paste(
        self,
        picture: Image.Image,
        name: str,
        center: tuple[float, float],
        fill: float | tuple[float, float],
        color: str | None = None,
        worn: tuple[str, ...] = (),
    ) -> Thing:
        """Scale a picture, paste it and record it.

        Args:
            picture: Tightly cropped RGBA picture.
            name: What it shows.
            center: Where its center goes, as parts of the canvas's width and height.
            fill: Largest width and height, as parts of the canvas.
            color: Color to record.
            worn: Worn things to record.

        Returns:
            The recorded thing.
        """
        size = self.image.width
        fill_x, fill_y = fill if isinstance(fill, tuple) else (fill, fill)
        scaled = scale_to_fit(picture, size * fill_x, size * fill_y)
        box = paste_centered(self.image, scaled, size * center[0], size * center[1])
        self.things.append(Thing(name, box, color, worn))
        return self.things[-1]


class Studio:
    """Choose nouns, pictures and colors for one scene in one style.

    Args:
        rng: Source of all chance.
        art: The pictures.
        style: Style of the scene.
        settings: Shares and chances.
    """

    def __init__(self, rng: Random, art: ArtLibrary, style: str, settings: SceneSettings) -> None:
        self.rng = rng
        self.art = art
        self.style = style
        self.settings = settings

    def happens(self, chance: float) -> bool:
        """Throw a die."""
        return self.rng.random() < chance

    def jitter(self, extent: float) -> float:
        """Return an even random number between -extent and extent."""
        return self.rng.uniform(-extent, extent)

    def choose_wording(self, wordings: Sequence[Choice]) -> Choice:
        """Choose among wordings of which the first is the plainest."""
        if self.happens(self.settings.plain_wording):
            return wordings[0]
        return self.rng.choice(wordings)

    def drawable(self, nouns: Sequence[Noun]) -> list[Noun]:
        """Keep the nouns that this style has a picture of."""
        return [noun for noun in nouns if any(self.art.has(self.style, code_points) for code_points in noun.art)]

    def choose_noun(self, kind: str | None = None) -> Noun:
        """Choose a noun with a picture, of the given kind if there is one.

        Raises:
            ValueError: If the style has no picture of such a noun.
        """
        return self._choose_drawable([noun for noun in NOUNS if kind is None or kind in noun.kinds])

    def choose_named(self, names: Sequence[str]) -> Noun:
        """Choose a noun with a picture among the named ones.

        Raises:
            ValueError: If the style has no picture of any of them.
        """
        return self._choose_drawable([NOUN_BY_NAME[name] for name in names])

    def _choose_drawable(self, nouns: Sequence[Noun]) -> Noun:
        drawable = self.drawable(nouns)
        if not drawable:
            wanted = ", ".join(noun.singular for noun in nouns[:5])
            raise ValueError(f"`styles` names {self.style!r}, which has no picture of any of: {wanted}, ...")
        return self.rng.choice(drawable)

    def picture_of(self, noun: Noun) -> Image.Image:
        """Return a picture of a noun, more often its first than another."""
        pictures = [code_points for code_points in noun.art if self.art.has(self.style, code_points)]
        if len(pictures) == 1 or self.happens(self.settings.first_art):
            return self.art.image(self.style, pictures[0])
        return self.art.image(self.style, self.rng.choice(pictures[1:]))

    def choose_colored(self) -> tuple[Noun, str, Image.Image] | None:
        """Choose a noun and a color, with a picture of it in that color; None if this noun cannot have this color."""
        color = self.rng.choice(COLORS)
        noun = self.choose_named([*RECOLORABLE, *COLORED_ART])
        if f"{color} {noun.singular}" in NOUN_BY_NAME:
            return None  # "a green apple" is another picture
        own_art = COLORED_ART.get(noun.singular)
        if own_art is not None:
            code_points = own_art.get(color, "")
            if not self.art.has(self.style, code_points):
                return None
            return noun, color, self.art.image(self.style, code_points)
        colored = recolor(self.picture_of(noun), color)
        return None if colored is None else (noun, color, colored)
