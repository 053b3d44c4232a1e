# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""What a judge sees in a picture, in words: things with their boxes, colors and what they wear or who holds them.

Turns the scene judge's logits into these words. Whether they are what a prompt claims is `claims.py`'s.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from PIL import Image
from torch import Tensor

from diffusers_imagen.evaluation.pictures import to_tensor
from diffusers_imagen.evaluation.scene_judge import JudgeOutput, SceneJudge

# Center x, center y, width and height, as parts of the picture.
Box = Sequence[float]

# Two predictions whose boxes share more than this are one thing.
_SAME_THING = 0.45


@dataclass(frozen=True)
class SeenThing:
    """Describe one thing seen.

    Attributes:
        name: The noun.
        color: The color nearest to its own.
        worn: What it wears.
        held: Whether another thing holds it.
        box: Center x, center y, width and height, as parts of the picture.
        probability: How sure the judge is that there is a thing.
    """

    name: str
    color: str
    worn: tuple[str, ...]
    held: bool
    box: Box
    probability: float


@dataclass(frozen=True)
class SeenScene:
    """Describe a picture: its things, the surest first, its background and style."""

    things: tuple[SeenThing, ...]
    background: str
    style: str


@dataclass(frozen=True)
class Seen:
    """Hold what a judge makes of pictures: in words, and as features (N, D)."""

    scenes: list[SeenScene]
    features: Tensor


@torch.no_grad()
def look(judge: SceneJudge, batches: Iterable[Sequence[Image.Image]]) -> Seen:
    """Let a judge look at pictures given in batches, each batch of one size.

    Raises:
        ValueError: If there are no pictures.
    """
    judge.eval()
    scenes: list[SeenScene] = []
    features: list[Tensor] = []
    for batch in batches:
        output = judge(judge.to_input(to_tensor(batch)))
        scenes += read_output(judge, output)
        features.append(output.features.double().cpu())
    if not scenes:
        raise ValueError("`batches` is empty; give at least one picture.")
    return Seen(scenes, torch.cat(features))


def read_output(judge: SceneJudge, output: JudgeOutput) -> list[SeenScene]:
    """Read a judge's output as words, one scene for each picture.

    A thing counts as seen from the judge's `presence_threshold` on. The surest cell always counts, so that a picture is
    never said to show nothing, and faint pictures have a nearest concept too.
    """
    known = judge.config
    probability = output.presence.float().sigmoid().flatten(1)
    box = _boxes(output.box.float())
    noun, color = output.noun.argmax(-1).flatten(1).tolist(), output.color.argmax(-1).flatten(1).tolist()
    worn, held = (output.worn > 0).flatten(1, 2), (output.held > 0).flatten(1).tolist()
    can_wear = [not known.wearers or name in known.wearers for name in known.nouns]
    scenes = []
    for i, background in enumerate(output.background.argmax(-1).tolist()):
        things = [
            SeenThing(
                name=known.nouns[noun[i][cell]],
                color=known.colors[color[i][cell]],
                worn=tuple(
                    known.worn[k] for k in worn[i, cell].nonzero().flatten().tolist() if can_wear[noun[i][cell]]
                ),
                held=held[i][cell],
                box=box[i][cell],
                probability=probability[i, cell].item(),
            )
            for cell in _chosen_cells(probability[i].tolist(), box[i], known.presence_threshold)
        ]
        scenes.append(
            SeenScene(tuple(things), known.backgrounds[background], known.styles[int(output.style[i].argmax())])
        )
    return scenes


def _boxes(raw: Tensor) -> list[list[Box]]:
    """Return center and size of the box of each cell of each picture (B, H, W, 4), cells in rows."""
    inside = raw.sigmoid()
    height, width = raw.shape[1:3]
    column, row = torch.arange(width, device=raw.device), torch.arange(height, device=raw.device)[:, None]
    x, y = (inside[..., 0] + column) / width, (inside[..., 1] + row) / height
    boxes: list[list[Box]] = torch.stack((x, y, inside[..., 2], inside[..., 3]), dim=-1).flatten(1, 2).tolist()
    return boxes


def _chosen_cells(probability: list[float], box: list[Box], threshold: float) -> list[int]:
    """Choose the cells with a thing, the surest first; of cells that mean the same thing, the surest."""
    chosen: list[int] = []
    for cell in sorted(range(len(probability)), key=lambda cell: -probability[cell]):
        if chosen and probability[cell] < threshold:
            break
        if all(overlap(box[cell], box[other]) < _SAME_THING for other in chosen):
            chosen.append(cell)
    return chosen


def overlap(first: Box, second: Box) -> float:
    """Return the area that two boxes share, by the area that they cover together."""
    shared = 1.0
    for axis in (0, 1):
        ends = [(box[axis] - box[axis + 2] / 2, box[axis] + box[axis + 2] / 2) for box in (first, second)]
        shared *= max(0.0, min(end for _, end in ends) - max(start for start, _ in ends))
    covered = first[2] * first[3] + second[2] * second[3] - shared
    return shared / covered if covered > 0 else 0.0
