# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""Assess the pictures drawn for a suite: scores, comparisons, distances, agreement, memorisation.

Looks at files, returns numbers; drawing them is `drawing.py`'s, writing the numbers down `report.py`'s.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from diffusers_imagen.data.folder import read_entries
from diffusers_imagen.evaluation.distances import cmmd, frechet_distance, kernel_distance, precision_recall
from diffusers_imagen.evaluation.drawing import picture_path
from diffusers_imagen.evaluation.features import FeatureExtractor, JudgeFeatures, extract_features
from diffusers_imagen.evaluation.intervals import Estimate, bootstrap
from diffusers_imagen.evaluation.memorisation import (
    Nearness,
    compare_nearness,
    nearest_in,
    small_pixels,
    unit_features,
)
from diffusers_imagen.evaluation.pictures import read_batches, read_picture, to_tensor
from diffusers_imagen.evaluation.scores import CategoryScore, Comparison, Judged, compare, score_suite
from diffusers_imagen.evaluation.seen_scene import SeenScene, look
from diffusers_imagen.evaluation.suite import Suite

# Pictures and texts to one number each.
Agreement = Callable[[Sequence[Image.Image], Sequence[str]], list[float]]

JUDGE = "judge"
_NEIGHBORS = 3


@dataclass(frozen=True)
class Distances:
    """Hold the distances of one set of pictures to the suite's real ones, in an extractor's features."""

    features: str
    pictures: str
    count: int
    real: int
    frechet: float
    kernel: float
    cmmd: float
    precision: float
    recall: float


@dataclass(frozen=True)
class Memorisation:
    """Hold the nearest training pictures: by features and by pixels, with the files of each drawn picture's nearest."""

    num_training: int
    by_features: Nearness
    by_pixels: Nearness
    nearest: Sequence[tuple[str, Path, Path]]


@dataclass(frozen=True)
class Assessment:
    """Hold all that was found.

    Attributes:
        scores: Scores by category.
        comparisons: Differences between languages, splits and other pictures.
        distances: Distances of the drawn pictures, of other real ones and of the baselines' to the real ones.
        agreement: Mean agreement of drawn pictures with their prompts, and of real ones; empty if none was asked for.
        memorisation: None if no training pictures were given.
        judged: What was seen, picture by picture.
    """

    scores: Sequence[CategoryScore]
    comparisons: Sequence[Comparison]
    distances: Sequence[Distances]
    agreement: Mapping[str, Estimate]
    memorisation: Memorisation | None
    judged: Judged


def assess(
    suite: Suite,
    folder: Path,
    others: Mapping[str, Path],
    extractors: Mapping[str, FeatureExtractor] | None = None,
    agreement: Agreement | None = None,
    training_data: Path | None = None,
) -> Assessment:
    """Assess an evaluation's pictures.

    Args:
        suite: The suite.
        folder: The evaluation's folder, all its pictures drawn.
        others: Folders with a picture `ID.png` for each prompt to compare with, by name.
        extractors: Feature extractors for distances beside the judge's features, by name.
        agreement: Scores pictures against texts.
        training_data: Image folder that the model learned from, to look for copies.

    Returns:
        What was found.

    Raises:
        ValueError: If a picture is missing or cannot be read.
    """
    drawn = [picture_path(folder, prompt.id) for prompt in suite.prompts]
    other_paths = {name: [place / f"{prompt.id}.png" for prompt in suite.prompts] for name, place in others.items()}
    judged = _judge(suite, drawn, other_paths)
    scores = score_suite(judged)
    return Assessment(
        scores=scores,
        comparisons=compare(judged, scores),
        distances=_all_distances(suite, drawn, other_paths, extractors or {}),
        agreement={} if agreement is None else _agreements(suite, drawn, agreement),
        memorisation=None if training_data is None else _memorisation(suite, drawn, training_data),
        judged=judged,
    )


def real_pictures(suite: Suite) -> dict[str, Path]:
    """Return the suite's real pictures by scene."""
    return {prompt.scene: prompt.reference for prompt in suite.prompts if prompt.reference is not None}


def check_pictures(suite: Suite) -> None:
    """Read the suite's real pictures once.

    Raises:
        ValueError: If one cannot be read.
    """
    for path in dict.fromkeys(path for p in suite.prompts for path in (p.reference, p.control) if path is not None):
        read_picture(path)


def _side(suite: Suite) -> int:
    return int(suite.judge.config.sample_size)


def _judge(suite: Suite, drawn: Sequence[Path], others: Mapping[str, Sequence[Path]]) -> Judged:
    def see(paths: Sequence[Path]) -> list[SeenScene]:
        return look(suite.judge, read_batches(paths, _side(suite))).scenes

    real = real_pictures(suite)
    references = dict(zip(real, see(list(real.values())), strict=True)) if real else {}
    return Judged(suite.prompts, see(drawn), {name: see(paths) for name, paths in others.items()}, references)


def _all_distances(
    suite: Suite,
    drawn: Sequence[Path],
    others: Mapping[str, Sequence[Path]],
    extractors: Mapping[str, FeatureExtractor],
) -> list[Distances]:
    """Measure sets of pictures against the real ones. Free prompts, which have none, are left out."""
    real = list(real_pictures(suite).values())
    has_real = [prompt.reference is not None for prompt in suite.prompts]
    controls = list(dict.fromkeys(prompt.control for prompt in suite.prompts if prompt.control is not None))
    sets = {"model": drawn, **others}
    sets = {
        name: [path for path, wanted in zip(paths, has_real, strict=True) if wanted] for name, paths in sets.items()
    }
    sets["other real pictures"] = controls
    found = []
    measured: dict[str, FeatureExtractor] = {JUDGE: JudgeFeatures(suite.judge), **extractors}
    for name, extractor in measured.items():
        side = _side(suite) if name == JUDGE else None
        if len(real) <= _NEIGHBORS:
            break
        target = _features(real, extractor, side)
        for label, paths in sets.items():
            if len(paths) > _NEIGHBORS:
                found.append(_distances(name, label, _features(paths, extractor, side), target))
    return found


def _features(paths: Sequence[Path], extractor: FeatureExtractor, side: int | None) -> Tensor:
    return extract_features(read_batches(paths, side), extractor)


def _distances(extractor: str, label: str, features: Tensor, real: Tensor) -> Distances:
    covered = precision_recall(features, real, _NEIGHBORS)
    return Distances(
        features=extractor,
        pictures=label,
        count=len(features),
        real=len(real),
        frechet=frechet_distance(features, real),
        kernel=kernel_distance(features, real),
        cmmd=cmmd(features, real),
        precision=covered.precision,
        recall=covered.recall,
    )


def _agreements(suite: Suite, drawn: Sequence[Path], agreement: Agreement) -> dict[str, Estimate]:
    def mean(paths: Sequence[Path], texts: Sequence[str]) -> Estimate:
        scores = [agreement([read_picture(path)], [text])[0] for path, text in zip(paths, texts, strict=True)]
        return bootstrap(lambda values: float(values.mean()), [scores])

    found = {"model": mean(drawn, [prompt.prompt for prompt in suite.prompts])}
    real = [(prompt.reference, prompt.prompt) for prompt in suite.prompts if prompt.reference is not None]
    if real:
        found["real pictures"] = mean(*(list(column) for column in zip(*real, strict=True)))
    return found


def _memorisation(suite: Suite, drawn: Sequence[Path], training_data: Path) -> Memorisation:
    training = [training_data / name for name, _ in read_entries(training_data)]
    known, generated, real = (
        _vectors(suite, paths) for paths in (training, drawn, list(real_pictures(suite).values()))
    )
    by_features, by_pixels = (nearest_in(*pair) for pair in zip(generated, known, strict=True))
    real_features, real_pixels = (nearest_in(*pair) for pair in zip(real, known, strict=True))
    nearest = [
        (prompt.id, training[int(by_features.index[i])], training[int(by_pixels.index[i])])
        for i, prompt in enumerate(suite.prompts)
    ]
    return Memorisation(
        num_training=len(training),
        by_features=compare_nearness(by_features, real_features),
        by_pixels=compare_nearness(by_pixels, real_pixels),
        nearest=nearest,
    )


def _vectors(suite: Suite, paths: Sequence[Path]) -> tuple[Tensor, Tensor]:
    """Return the judge's features and the small pixels of pictures."""
    extractor = JudgeFeatures(suite.judge)
    features, pixels = [], []
    for batch in read_batches(paths, _side(suite)):
        features.append(extractor(to_tensor(batch)))
        pixels.append(small_pixels(batch))
    return unit_features(torch.cat(features)), torch.cat(pixels)
