# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""The sampler: a seed and a number give a picture, its captions in both languages, and the facts of what is drawn.

The kinds of scenes are in `scene_kinds.py`; writing pictures to disk is `make_dataset.py`'s.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random
from typing import Literal

import captions
from art import ArtLibrary
from backgrounds import LANDSCAPES, landscape_background, plain_background
from captions import Caption
from PIL import Image
from scene_kinds import KINDS
from settings import SceneSettings
from studio import Canvas, Studio, Thing, choose_by_share

Split = Literal["train", "held_out", "any"]

# A kind may refuse a choice of parts, and a split a combination; far fewer throws than this suffice.
_MOST_THROWS = 2000
# Kinds that are no combination of anything, so nothing of them is held out.
_NEVER_HELD_OUT = ("single", "emoji")


@dataclass(frozen=True)
class Facts:
    """Record what a scene shows.

    Attributes:
        things: The things drawn, in the order of the caption.
        relation: Where the first thing is, seen from the second: "left", "right", "above", "below", or None.
        background: Name of the plain color or landscape.
    """

    things: tuple[Thing, ...]
    relation: str | None
    background: str

    def as_json(self) -> dict[str, object]:
        """Return the facts as plain dictionaries and lists."""
        return asdict(self)


@dataclass(frozen=True)
class Scene:
    """Hold a picture and all that is known of it.

    Attributes:
        image: RGB square.
        text: Captions: English, Chinese.
        kind: Kind of scene.
        style: Drawing style.
        facts: What is drawn.
        held_out: Whether the combination is kept out of training.
    """

    image: Image.Image
    text: tuple[str, str]
    kind: str
    style: str
    facts: Facts
    held_out: bool


class SceneSampler:
    """Draw captioned scenes, each settled by a seed and its number.

    Args:
        art_folder: Folder of the `<style>.parquet` files.
        settings: The distribution to draw from.
    """

    def __init__(self, art_folder: Path, settings: SceneSettings) -> None:
        self.settings = settings
        self._art = ArtLibrary(art_folder, list(settings.styles))

    def sample(self, seed: int, number: int, split: Split = "train") -> Scene:
        """Draw the scene with a number.

        Args:
            seed: Seed of the set of scenes.
            number: Number of the scene in the set.
            split: "train" draws no held-out combination, "held_out" only those, "any" both.

        Raises:
            ValueError: If the settings allow no scene of this split.
        """
        rng = Random(f"{seed}/{number}")
        kinds = self.settings.kinds
        if split == "held_out":
            kinds = {kind: share for kind, share in kinds.items() if kind not in _NEVER_HELD_OUT}
            if sum(kinds.values()) <= 0:
                raise ValueError(f"`split` is 'held_out', but kinds {sorted(self.settings.kinds)} hold nothing out.")
        # Kind and style stay while parts are thrown again, or kinds with many refusals would lose their share.
        kind = choose_by_share(rng, kinds)
        style = choose_by_share(rng, self.settings.styles)
        for _ in range(_MOST_THROWS):
            scene = self._throw(rng, kind, style)
            if scene is not None and (split == "any" or scene.held_out == (split == "held_out")):
                return scene
        raise ValueError(
            f"`split` is {split!r}, but style {style!r} has no such scene of kind {kind!r}: leave it out."
        )

    def _throw(self, rng: Random, kind: str, style: str) -> Scene | None:
        studio = Studio(rng, self._art, style, self.settings)
        canvas = self._canvas(rng, in_landscape=kind == "scene")
        drawing = KINDS[kind](studio, canvas)
        if drawing is None:
            return None
        caption = self._finish_caption(studio, canvas, studio.choose_wording(drawing.wordings))
        return Scene(
            image=canvas.image.convert("RGB"),
            text=(caption.english, caption.chinese),
            kind=kind,
            style=style,
            facts=Facts(tuple(canvas.things), drawing.relation, canvas.background),
            held_out=drawing.held_out,
        )

    def _canvas(self, rng: Random, in_landscape: bool) -> Canvas:
        size = self.settings.size
        if in_landscape:
            name = rng.choice(list(LANDSCAPES))
            image, horizon = landscape_background(rng, name, size)
            return Canvas(image, name, None if horizon is None else horizon / size)
        color = choose_by_share(rng, self.settings.background_shares())
        return Canvas(plain_background(rng, color, size), color)

    def _finish_caption(self, studio: Studio, canvas: Canvas, caption: Caption) -> Caption:
        """Add words for the background, for being a picture and for the style, each by its chance."""
        settings = self.settings
        is_plain = canvas.background not in LANDSCAPES
        if is_plain and canvas.background != "white" and studio.happens(settings.name_background):
            caption = studio.choose_wording(captions.on_background(caption, canvas.background))
        if caption.is_phrase and studio.happens(settings.as_picture):
            caption = studio.rng.choice(captions.as_picture(caption))
        is_first_style = studio.style == next(iter(settings.styles))
        if not is_first_style or studio.happens(settings.name_style):
            caption = studio.rng.choice(captions.in_style(caption, studio.style))
        return caption
