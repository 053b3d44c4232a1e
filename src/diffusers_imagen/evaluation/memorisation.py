# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""Memorisation: how near generated pictures are to their nearest training pictures, beside real ones unseen in training.

Two measures: features of an extractor (what is shown) and pixels of small pictures (the picture itself).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from diffusers_imagen.evaluation.pictures import to_tensor

PIXEL_SIDE = 32
_CHUNK = 1024


@dataclass(frozen=True)
class Nearest:
    """Hold each picture's nearest training picture: distance (N,) and index (N,)."""

    distance: Tensor
    index: Tensor


@dataclass(frozen=True)
class Nearness:
    """Compare nearest-training distances of generated pictures with those of real unseen ones.

    Attributes:
        generated: Quantiles 5, 25, 50, 75 and 95 % of the distances of generated pictures.
        real: The same of real pictures.
        closer_than_real: Share of generated pictures nearer than the nearest quarter of real ones; a quarter is what real
            ones have. Scenes with little to vary are in both sets as they are, so that a smaller part would say nothing.
    """

    generated: tuple[float, ...]
    real: tuple[float, ...]
    closer_than_real: float


def small_pixels(images: Sequence[Image.Image]) -> Tensor:
    """Return pictures as vectors of small pixels in [-1, 1], scaled so that distances are root mean squares (B, D)."""
    shrunk = [image.resize((PIXEL_SIDE, PIXEL_SIDE), Image.Resampling.BICUBIC) for image in images]
    flat = to_tensor(shrunk).float().flatten(1) / 127.5 - 1
    return flat / flat.shape[1] ** 0.5


def nearest_in(queries: Tensor, training: Tensor) -> Nearest:
    """Find each query's nearest training vector by Euclidean distance.

    Args:
        queries: Vectors (N, D).
        training: Vectors (M, D).

    Raises:
        ValueError: If one of the sets is empty, or they have different D.
    """
    if not len(queries) or not len(training) or queries.shape[1] != training.shape[1]:
        raise ValueError(
            f"`queries` and `training` have shapes {tuple(queries.shape)} and {tuple(training.shape)}; "
            "give (N, D) and (M, D) with at least one vector each."
        )
    queries, training = queries.float(), training.float()
    index = torch.cat([torch.cdist(chunk, training).argmin(dim=1) for chunk in queries.split(_CHUNK)])
    # The fast distances between all pairs are inexact where they are small, as those of copies are.
    return Nearest((queries - training[index]).norm(dim=1), index)


def compare_nearness(generated: Nearest, real: Nearest) -> Nearness:
    """Compare two sets of nearest distances."""
    bound = real.distance.quantile(0.25)
    return Nearness(
        _quantiles(generated.distance), _quantiles(real.distance), (generated.distance < bound).float().mean().item()
    )


def unit_features(features: Tensor) -> Tensor:
    """Scale features (N, D) to length 1, so that distances mean directions."""
    return F.normalize(features.float(), dim=1)


def _quantiles(distance: Tensor) -> tuple[float, ...]:
    return tuple(distance.quantile(torch.tensor([0.05, 0.25, 0.5, 0.75, 0.95])).tolist())
