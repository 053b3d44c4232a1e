# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""Find out which stage of a cascade is the weak one, by starting it at each stage from real smaller pictures.

The distance of the last stage's pictures to real ones falls when a drawn smaller picture is replaced by a real one: by
how much is what the stages before it cost. Numbers only: drawing is a callable of the caller's, who writes them down.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from diffusers_imagen.evaluation.distances import kernel_distance
from diffusers_imagen.evaluation.features import FeatureExtractor, extract_features

# Starts at a stage, from smaller pictures unless it is the base, and gives each stage's pictures by its name.
Draw = Callable[[str, Sequence[Image.Image] | None], Mapping[str, Sequence[Image.Image]]]

_HALVES = 400
_CERTAIN = 0.95
_BATCH = 64


class PlainFeatures:
    """Describe pictures without any weights: their colours in 8 x 8 places, and how much detail of each size is where.

    Coarse, but blind neither to a wrong layout nor to blur and noise, which is what stages go wrong in.
    """

    def __call__(self, pictures: Tensor) -> Tensor:
        """Return features (B, D) of uint8 pictures (B, 3, H, W), H = W at least 16."""
        image = pictures.float() / 127.5 - 1
        found = [F.adaptive_avg_pool2d(image, 8).flatten(1)]
        grey = image.mean(1, keepdim=True)
        while grey.shape[-1] >= 16:
            coarse = F.avg_pool2d(grey, 2)
            detail = grey - F.interpolate(coarse, grey.shape[-2:], mode="bilinear")
            found.append((F.adaptive_avg_pool2d(detail.square(), 4) + 1e-5).log().flatten(1))
            grey = coarse
        return torch.cat(found, dim=1)


@dataclass(frozen=True)
class StageFinding:
    """Hold what was found about a stage.

    Attributes:
        stage: Its name.
        fed_real: Distance of its pictures to real ones of its size, made from real smaller ones; None for a base.
        fed_drawn: The same, made from those that the stages before it drew.
        cost: What it adds to the distance of the final pictures.
        low: End of the 95 % interval of that.
        high: The other end.
        weakest: In which share of half-samples it costs most.
    """

    stage: str
    fed_real: float | None
    fed_drawn: float
    cost: float
    low: float
    high: float
    weakest: float


@dataclass(frozen=True)
class Diagnosis:
    """Hold the findings by stage.

    Attributes:
        stages: In order.
        floor: Distance of other real pictures to the real ones, 0 but for chance.
        drawn: Number of pictures drawn.
        real: Number of real pictures that they are compared with.
    """

    stages: Sequence[StageFinding]
    floor: float
    drawn: int
    real: int

    @property
    def verdict(self) -> str:
        """The short answer, in a sentence or two."""
        worst = max(self.stages, key=lambda finding: finding.cost)
        total = sum(finding.cost for finding in self.stages)
        if worst.low <= 0:
            return f"No stage is weak as far as {self.drawn} pictures tell: none costs more than chance does."
        share = f"{worst.cost / total:.0%} of the distance" if total > 0 else "most of the distance"
        if worst.weakest >= _CERTAIN:
            return f"The weak stage is {worst.stage}: it costs {share} of the final pictures to real ones."
        return (
            f"It is not clear which stage is the weak one: {worst.stage} costs most ({share}), but only in "
            f"{worst.weakest:.0%} of half-samples; draw more pictures."
        )


def diagnose(
    sides: Mapping[str, int],
    pictures: Sequence[Image.Image],
    reference: Sequence[Image.Image],
    draw: Draw,
    extractor: FeatureExtractor,
) -> tuple[Diagnosis, dict[str, Mapping[str, Sequence[Image.Image]]]]:
    """Draw with every stage from real and from drawn smaller pictures, and compare with real ones.

    Args:
        sides: Side of each stage's pictures in pixels, in the order of the stages.
        pictures: Real pictures of the last stage's side, whose captions are drawn and which are shrunk to start from.
        reference: Other real pictures of that side, at least 4 of each, to compare with.
        draw: Draws the captions of `pictures`.
        extractor: What distances are measured in.

    Returns:
        The findings, and the drawn pictures by the stage that was started at and the stage that drew them.

    Raises:
        ValueError: If there are too few pictures.
    """
    if min(len(pictures), len(reference)) < 4:
        raise ValueError(
            f"`pictures` and `reference` are {len(pictures)} and {len(reference)}; give at least 4 of each."
        )
    names = list(sides)
    drawn: dict[str, Mapping[str, Sequence[Image.Image]]] = {}
    for place, name in enumerate(names):
        smaller = None if place == 0 else [_resized(picture, sides[names[place - 1]]) for picture in pictures]
        drawn[name] = draw(name, smaller)
    last = names[-1]
    # From the whole cascade down to real pictures, which no stage has touched.
    chain = [_features(drawn[name][last], extractor) for name in names] + [_features(pictures, extractor)]
    target = _features(reference, extractor)
    distances, halves = _distances(chain, target)
    costs, spread = distances[:-1] - distances[1:], halves[:, :-1] - halves[:, 1:]
    findings = []
    for place, name in enumerate(names):
        real = _features([_resized(picture, sides[name]) for picture in reference], extractor)
        own = {start: _distance(_features(drawn[start][name], extractor), real) for start in {names[0], name}}
        low, high = np.quantile(spread[:, place], [0.025, 0.975]).tolist()
        weakest = float((spread.argmax(1) == place).mean())
        fed_real = None if place == 0 else own[name]
        findings.append(StageFinding(name, fed_real, own[names[0]], float(costs[place]), low, high, weakest))
    return Diagnosis(findings, float(distances[-1]), len(pictures), len(reference)), drawn


def _distances(chain: Sequence[Tensor], target: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Give the distance of each set to the real pictures (S,), and those of random half-samples (400, S).

    The sets are made from the same real pictures, so all of them are halved alike. Drawn without replacement, halves of
    a set scatter about as much as whole sets would, and have no pair of a picture with itself.
    """
    rng = np.random.default_rng(0)
    halves = np.empty((_HALVES, len(chain)))
    for row in range(_HALVES):
        mine = torch.from_numpy(rng.permutation(len(chain[0]))[: -(-len(chain[0]) // 2)])
        theirs = torch.from_numpy(rng.permutation(len(target))[: -(-len(target) // 2)])
        halves[row] = [_distance(features[mine], target[theirs], target) for features in chain]
    return np.array([_distance(features, target) for features in chain]), halves


def _distance(features: Tensor, real: Tensor, scale: Tensor | None = None) -> float:
    """Give the kernel distance of features in units of the real pictures' own scatter: no feature's size counts."""
    by = real if scale is None else scale
    mean, deviation = by.mean(0), by.std(0)
    # What hardly ever differs, such as a white border, would else drown all the rest when it does.
    deviation = deviation.clamp(min=max(1e-6, deviation.median().item()))
    return kernel_distance((features - mean) / deviation, (real - mean) / deviation)


def _features(pictures: Sequence[Image.Image], extractor: FeatureExtractor) -> Tensor:
    return extract_features((pictures[i : i + _BATCH] for i in range(0, len(pictures), _BATCH)), extractor)


def _resized(picture: Image.Image, side: int) -> Image.Image:
    return picture if picture.width == side else picture.resize((side, side), Image.Resampling.BICUBIC)
