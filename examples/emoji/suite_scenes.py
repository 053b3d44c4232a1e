# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""The suite's categories: which scenes each is made of, and what a scene's caption claims.

Claims are in the form that `diffusers_imagen.evaluation.claims` reads. Files are `make_suite.py`'s.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from backgrounds import LANDSCAPES, PLAIN
from nouns import GLASSES, HATS
from scenes import Scene, Split
from settings import SceneSettings
from studio import Thing

FREE_TEXT = "free text"
DESCRIPTION = "description"


@dataclass(frozen=True)
class Category:
    """Say what scenes a category is made of.

    Attributes:
        name: Name in reports.
        kind: Kind of scene.
        splits: Splits of its scenes, in turn.
        names_background: Whether captions name the background, which then varies.
        names_style: Whether captions name the style, which then varies.
    """

    name: str
    kind: str
    splits: tuple[Split, ...] = ("train", "held_out")
    names_background: bool = False
    names_style: bool = False

    def settings(self, styles: Sequence[str]) -> SceneSettings:
        """Return the distribution of the scenes: what is not named is white, and in the first of the styles."""
        plain = SceneSettings(kinds={self.kind: 1.0}, styles={styles[0]: 1.0}, backgrounds={"white": 1.0})
        plain = replace(plain, as_picture=0.0, name_style=0.0, name_background=0.0)
        if self.names_style:
            return replace(plain, styles=dict.fromkeys(styles, 1.0), name_style=1.0)
        if self.names_background:
            return replace(plain, backgrounds={color: 1.0 for color in PLAIN if color != "white"}, name_background=1.0)
        return plain


CATEGORIES = (
    Category("single", "single", splits=("train",)),
    Category("count", "count"),
    Category("color", "color"),
    Category("two colors", "color pair"),
    Category("position", "relation"),
    Category("size", "size"),
    Category("wearing", "wear"),
    Category("holding", "hold"),
    Category("background", "single", splits=("train",), names_background=True),
    Category("background", "scene"),
    Category("style", "single", splits=("train",), names_style=True),
)


def claims_of(scene: Scene, category: Category) -> dict[str, Any]:
    """Say what the caption of a category's scene claims; what it does not say is not claimed."""
    claims: dict[str, Any] = {"things": _claimed_things(scene)}
    layout = {"relation": scene.facts.relation, "size": "bigger", "hold": "holds"}.get(scene.kind)
    if layout is not None:
        claims["layout"] = layout
    if category.names_background or scene.facts.background in LANDSCAPES:
        claims["background"] = scene.facts.background
    if category.names_style:
        claims["style"] = scene.style
    return claims


def _claimed_things(scene: Scene) -> list[dict[str, Any]]:
    groups: dict[str, list[Thing]] = {}
    for thing in scene.facts.things:
        groups.setdefault(thing.name, []).append(thing)
    claimed = []
    for name, things in groups.items():
        fields: dict[str, Any] = {"names": [name], "number": len(things)}
        if things[0].color is not None:
            fields["color"] = things[0].color
        if things[0].worn:
            fields["worn"] = [_right_for(drawn, scene.text[0]) for drawn in things[0].worn]
        claimed.append(fields)
    return claimed


def _right_for(drawn: str, caption: str) -> list[str]:
    """Return what is right for the word by which a caption calls a worn thing: for "a hat", more than what is drawn."""
    words = (word for word in (*HATS.values(), *GLASSES.values()) if drawn in word.art and word.english in caption)
    return list(next(words).art)
