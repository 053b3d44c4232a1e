# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""Keep a fine-tuning from forgetting what it knew: draw pictures of that before it, and mix them into every batch.

DreamBooth's prior preservation (arXiv:2208.12242, equation 2). What draws is given by the caller. Called by the
training loop.
"""

import logging
from collections.abc import Callable, Generator, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from diffusers_imagen.training.batches import BatchMaker
from diffusers_imagen.training.config import TrainConfig
from diffusers_imagen.training.fine_tune_config import PriorConfig
from diffusers_imagen.training.objective import TrainingBatch
from diffusers_imagen.training.randomness import prior_seed

_logger = logging.getLogger(__name__)

Draw = Callable[[Sequence[str], Sequence[int]], Sequence[Image.Image]]
"""Prompts and as many seeds to pictures."""

# Drawn together, and lost together by a crash.
_BATCH = 16


def prior_config(config: TrainConfig, prior: PriorConfig) -> TrainConfig:
    """Describe the batches of a run's prior pictures as those of a run of their own, with its own randomness."""
    data = replace(
        config.data, folder=prior.folder, source="folder", captions=(), prompts=prior.prompts, validation_fraction=0.0
    )
    size = config.batch_size if prior.batch_size is None else prior.batch_size
    return replace(config, data=data, batch_size=size, seed=prior_seed(config.seed), prior=None)


def missing_pictures(prior: PriorConfig) -> dict[int, Path]:
    """Give the numbers and places of the pictures that are still to be drawn.

    Raises:
        ValueError: If the folder lists its pictures itself, so that others would not count.
    """
    folder = Path(prior.folder)
    if prior.num_images and (folder / "metadata.jsonl").exists():
        raise ValueError(
            f"`prior.folder` is {prior.folder!r}, whose metadata.jsonl says what is in it; give a new folder to draw "
            "into, or set `prior.num_images` to 0."
        )
    places = {number: folder / f"prior-{number:05d}.png" for number in range(prior.num_images)}
    return {number: place for number, place in places.items() if not place.is_file()}


def draw_prior(prior: PriorConfig, draw: Draw | None) -> int:
    """Draw the pictures that are missing, each with its prompt in a `.txt` file beside it.

    Args:
        prior: How many, of what, and where.
        draw: Draws them; picture i is drawn of prompt i, in turn, from seed i.

    Returns:
        How many were drawn.

    Raises:
        ValueError: If some are missing and there is no `draw`.
    """
    missing = missing_pictures(prior)
    if missing and draw is None:
        raise ValueError(
            f"`prior.folder` is {prior.folder!r}, which lacks {len(missing)} of {prior.num_images} pictures, and nothing "
            "here draws them; use `diffusers-imagen train`, or give `train` a `draw`."
        )
    if missing:
        _logger.info("Drawing %d pictures into %s.", len(missing), prior.folder)
        Path(prior.folder).mkdir(parents=True, exist_ok=True)
    numbers = list(missing)
    for start in range(0, len(numbers), _BATCH):
        part = numbers[start : start + _BATCH]
        prompts = [prior.prompts[number % len(prior.prompts)] for number in part]
        for number, prompt, image in zip(part, prompts, draw(prompts, part) if draw else (), strict=True):
            # The picture comes last: where it is, its prompt is too.
            missing[number].with_suffix(".txt").write_text(prompt, encoding="utf-8")
            temporary = missing[number].with_suffix(".tmp")
            image.save(temporary, format="PNG")
            temporary.replace(missing[number])
    return len(numbers)


class BatchesWithPrior:
    """Make batches of a run's own pictures followed by prior ones, in place of a `BatchMaker`.

    Args:
        own: Makes the batches of the run's pictures.
        prior: Makes those of the prior ones.
        weight: Of the loss of these.
    """

    def __init__(self, own: BatchMaker, prior: BatchMaker, weight: float) -> None:
        self._own = own
        self._prior = prior
        self._weight = weight

    def batches(self, first: int) -> Generator[TrainingBatch, None, None]:
        """Give batch after batch without end, as `BatchMaker.batches` does."""
        own, prior = self._own.batches(first), self._prior.batches(first)
        try:
            for pair in zip(own, prior, strict=False):
                yield join_batches(*pair, self._weight)
        finally:
            own.close()
            prior.close()


def join_batches(own: TrainingBatch, prior: TrainingBatch, weight: float) -> TrainingBatch:
    """Put two batches into one whose mean loss is that of the first plus `weight` times that of the second."""
    counts = len(own.t), len(prior.t)
    length = max(own.text.shape[1], prior.text.shape[1])
    joined: dict[str, Any] = {}
    for part in fields(TrainingBatch):
        tensors = [getattr(batch, part.name) for batch in (own, prior)]
        if part.name == "text":
            tensors = [F.pad(text, (0, 0, 0, length - text.shape[1])) for text in tensors]
        elif part.name == "text_mask":
            tensors = [F.pad(mask, (0, length - mask.shape[1])) for mask in tensors]
        joined[part.name] = None if tensors[0] is None else torch.cat(tensors)
    shares: list[Tensor] = [
        torch.full((count,), sum(counts) * each / count) for count, each in zip(counts, (1.0, weight), strict=True)
    ]
    return TrainingBatch(**{**joined, "weight": torch.cat(shares)})
