# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""What the scene judge is to say of a real scene: the scene's facts as numbers, and its vocabulary.

No network and no drawing here; `train_scene_judge.py` learns from these labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from backgrounds import LANDSCAPES, PLAIN
from compose import COLORS
from nouns import GLASSES, HATS, NOUNS
from scenes import Scene
from torch import Tensor

NOUN_NAMES = tuple(noun.singular for noun in NOUNS)
WORN_NAMES = tuple(dict.fromkeys(name for word in (*HATS.values(), *GLASSES.values()) for name in word.art))
BACKGROUND_NAMES = (*PLAIN, *LANDSCAPES)
MOST_THINGS = 6
# Stands where there is no thing, and where a thing's color is its own.
NONE = -1


@dataclass
class SceneLabels:
    """Hold the labels of scenes. Things beyond the scene's last one have the noun `NONE`.

    Attributes:
        box: Center x, center y, width, height, as parts of the picture (B, things, 4).
        noun: Index of the noun (B, things).
        color: Index of the color a caption names (B, things).
        worn: Whether the thing wears each of what can be worn (B, things, worn).
        held: Whether another thing holds it (B, things).
        background: Index of the background (B,).
        style: Index of the style (B,).
    """

    box: Tensor
    noun: Tensor
    color: Tensor
    worn: Tensor
    held: Tensor
    background: Tensor
    style: Tensor

    def __getitem__(self, chosen: Tensor) -> SceneLabels:
        """Return the labels of the chosen scenes."""
        return SceneLabels(**{field.name: getattr(self, field.name)[chosen] for field in fields(self)})

    def as_tensors(self) -> dict[str, Tensor]:
        """Return the labels by name."""
        return {field.name: getattr(self, field.name) for field in fields(self)}


def label_scenes(scenes: Sequence[Scene], styles: Sequence[str]) -> SceneLabels:
    """Turn the facts of scenes into labels.

    Args:
        scenes: Scenes of nouns of the table, at most `MOST_THINGS` in each.
        styles: Names of the styles, in the judge's order.

    Returns:
        The labels.
    """
    count = len(scenes)
    labels = SceneLabels(
        box=torch.zeros(count, MOST_THINGS, 4),
        noun=torch.full((count, MOST_THINGS), NONE),
        color=torch.full((count, MOST_THINGS), NONE),
        worn=torch.zeros(count, MOST_THINGS, len(WORN_NAMES)),
        held=torch.zeros(count, MOST_THINGS),
        background=torch.tensor([BACKGROUND_NAMES.index(scene.facts.background) for scene in scenes]),
        style=torch.tensor([styles.index(scene.style) for scene in scenes]),
    )
    for row, scene in enumerate(scenes):
        for place, thing in enumerate(scene.facts.things):
            left, top, right, bottom = (edge / scene.image.width for edge in thing.box)
            labels.box[row, place] = torch.tensor(((left + right) / 2, (top + bottom) / 2, right - left, bottom - top))
            labels.noun[row, place] = NOUN_NAMES.index(thing.name)
            if thing.color is not None:
                labels.color[row, place] = COLORS.index(thing.color)
            for name in thing.worn:
                labels.worn[row, place, WORN_NAMES.index(name)] = 1
            labels.held[row, place] = float(scene.kind == "hold" and place == 1)
    return labels
