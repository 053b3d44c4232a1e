# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""What a set of scenes is made of: sizes, shares of kinds, styles and backgrounds. And the named presets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from backgrounds import PLAIN

ALL_KINDS = {
    "emoji": 6.0,
    "single": 4.0,
    "relation": 4.0,
    "scene": 4.0,
    "wear": 5.0,
    "color": 3.0,
    "count": 3.0,
    "pair": 2.0,
    "color pair": 2.0,
    "size": 1.5,
    "hold": 1.5,
}


@dataclass(frozen=True)
class SceneSettings:
    """Describe a distribution of scenes. Shares are relative: they need not add up to one.

    Attributes:
        size: Width and height in pixels.
        kinds: Share of each kind of scene.
        styles: Share of each drawing style. The first one is the style of captions that name none.
        backgrounds: Share of each plain background in scenes outside a landscape. What is missing to one is spread
            evenly over the colors not named.
        single_fill: Least and largest part of the picture's width or height that a single noun takes.
        single_shift: Largest shift of a single noun from the middle, as a part of the picture.
        first_art: Chance that a noun with several pictures is drawn by its first.
        plain_wording: Chance that a caption is taken in its plainest wording.
        name_background: Chance that a caption names a background that is not white.
        as_picture: Chance of "a picture of ..." around a caption.
        name_style: Chance that a caption names the first style; other styles are always named.
        wear_both: Chance that a head wears a hat and glasses at once.
        cat_in_hat: Chance that a scene with something worn is "a cat wearing a hat", beside the chance it has anyway.
    """

    size: int = 128
    kinds: Mapping[str, float] = field(default_factory=lambda: dict(ALL_KINDS))
    styles: Mapping[str, float] = field(default_factory=lambda: {"fluent-3d": 1.0})
    backgrounds: Mapping[str, float] = field(default_factory=lambda: {"white": 0.6})
    single_fill: tuple[float, float] = (0.62, 0.88)
    single_shift: float = 0.04
    first_art: float = 0.5
    plain_wording: float = 0.4
    name_background: float = 0.8
    as_picture: float = 0.12
    name_style: float = 0.25
    wear_both: float = 0.2
    cat_in_hat: float = 0.0

    def __post_init__(self) -> None:
        """Check names and ranges.

        Raises:
            ValueError: If a name is unknown, or a number out of its range.
        """
        if self.size < 16:
            raise ValueError(f"`size` is {self.size}, but scenes need at least 16 pixels.")
        _check_shares("kinds", self.kinds, set(ALL_KINDS))
        _check_shares("backgrounds", self.backgrounds, set(PLAIN))
        _check_shares("styles", self.styles, None)

    def background_shares(self) -> dict[str, float]:
        """Return the share of every plain background."""
        unnamed = [color for color in PLAIN if color not in self.backgrounds]
        rest = max(0.0, 1.0 - sum(self.backgrounds.values()))
        shares = dict(self.backgrounds)
        for color in unnamed:
            shares[color] = rest / len(unnamed)
        return shares


def _check_shares(argument: str, shares: Mapping[str, float], known: set[str] | None) -> None:
    if known is not None and not set(shares) <= known:
        unknown = sorted(set(shares) - known)
        raise ValueError(f"`{argument}` names {unknown}, which are none of {sorted(known)}.")
    if not shares or min(shares.values()) < 0 or sum(shares.values()) <= 0:
        raise ValueError(f"`{argument}` is {dict(shares)}, but needs shares of at least 0 and some above 0.")


PRESETS = {
    "all": SceneSettings(),
    # Single things, large, in few words, and hats and glasses: learnable at 32 pixels.
    "first-singles": SceneSettings(
        kinds={"single": 0.78, "wear": 0.22},
        backgrounds={"white": 0.7},
        single_fill=(0.7, 0.9),
        single_shift=0.03,
        first_art=0.85,
        plain_wording=0.8,
        name_background=0.4,
        as_picture=0.0,
        name_style=0.0,
        wear_both=0.0,
        cat_in_hat=0.08,
    ),
}
