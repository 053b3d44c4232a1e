# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""Average weights with power-function profiles, and make any profile afterwards from snapshots of two of them.

After Karras et al., arXiv:2312.02696, section 3 and appendix C. The average of weights w_1 .. w_T with exponent gamma
gives w_i the share (i^k - (i-1)^k) / T^k, k = gamma + 1: late weights count most, and how far back it reaches is a
share of the training so far, not a number of steps. Kept by the training loop; snapshots are joined by the command line.
"""

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from diffusers_imagen.training.sharding import own_part

Model = TypeVar("Model", bound=nn.Module)

# sigma_rel of gamma = 0, the plain mean; 12^(-1/2), above which no profile reaches.
LARGEST_SIGMA_REL = 12**-0.5


def gamma_of(sigma_rel: float) -> float:
    """Give the exponent of a profile whose standard deviation is this share of the training's length.

    Args:
        sigma_rel: Above 0 and at most `LARGEST_SIGMA_REL`.

    Returns:
        The root of (gamma + 2)^2 (gamma + 3) sigma_rel^2 = gamma + 1 that is at least 0.

    Raises:
        ValueError: If no profile has this width.
    """
    if not 0 < sigma_rel <= LARGEST_SIGMA_REL:
        raise ValueError(f"`sigma_rel` is {sigma_rel}; give a number above 0 and at most {LARGEST_SIGMA_REL:.4f}.")
    precision = sigma_rel**-2
    roots = np.roots([1.0, 7.0, 16.0 - precision, 12.0 - precision])
    return max(0.0, float(roots.real.max()))


class PowerAverage(Generic[Model]):
    """Keep a power-function average of a model as a model of its own, in evaluation mode.

    Args:
        model: The model, copied as it stands.
        sigma_rel: Width of the profile relative to the training's length.
    """

    def __init__(self, model: Model, sigma_rel: float) -> None:
        self.model: Model = copy.deepcopy(model).eval().requires_grad_(False)
        self.sigma_rel = sigma_rel
        self._gamma = gamma_of(sigma_rel)

    @torch.no_grad()
    def update(self, model: Model, updates: int) -> None:
        """Take the model's present weights into the average.

        Args:
            model: The model in training; buffers are copied, parameters averaged, of a model that is spread over
                processes each process's part.
            updates: How many updates were made before.
        """
        share = 1 - (1 - 1 / (updates + 1)) ** (self._gamma + 1)
        averages = [own_part(average) for average in self.model.parameters()]
        weights = [own_part(weight.detach()) for weight in model.parameters()]
        torch._foreach_lerp_(averages, weights, share)
        for average, value in zip(self.model.buffers(), model.buffers(), strict=True):
            average.copy_(value)


@dataclass(frozen=True)
class Profile:
    """Name an average: its width relative to the training's length, and how many updates it is over."""

    sigma_rel: float
    updates: int


def profile_shares(profile: Profile) -> npt.NDArray[np.float64]:
    """Give the share of each update's weights in an average, (updates,), which add up to 1."""
    places = np.arange(profile.updates + 1, dtype=np.float64) / profile.updates
    return np.diff(places ** (gamma_of(profile.sigma_rel) + 1))


def combine_profiles(snapshots: Sequence[Profile], target: Profile) -> npt.NDArray[np.float64]:
    """Give the factors with which snapshots are added to come closest to another average.

    The closest in the least-squares sense over the shares of all updates (arXiv:2312.02696, appendix C.3), of which the
    products are summed exactly, not integrated.

    Args:
        snapshots: What there is.
        target: What is wanted; it may not reach beyond the last snapshot.

    Returns:
        A factor for each snapshot, (number of snapshots,).

    Raises:
        ValueError: If there are no snapshots, or `target` is over more updates than the last of them.
    """
    last = max((snapshot.updates for snapshot in snapshots), default=0)
    if not 1 <= target.updates <= last:
        raise ValueError(
            f"`target` is over {target.updates} updates, but the snapshots reach {last}; give 1 to {last}."
        )
    every = [*snapshots, target]
    products = _products(every, last)
    # Neighbouring snapshots are much alike: directions that float64 cannot tell apart get no part.
    factors, *_ = np.linalg.lstsq(products[:-1, :-1], products[:-1, -1], rcond=1e-13)
    return np.asarray(factors, dtype=np.float64)


def combination_error(snapshots: Sequence[Profile], factors: npt.NDArray[np.float64], target: Profile) -> float:
    """Give how far a combination's shares are from the wanted ones, relative to those, as a root of squares."""
    products = _products([*snapshots, target], max(profile.updates for profile in [*snapshots, target]))
    difference = np.append(factors, -1.0)
    return math.sqrt(max(0.0, float(difference @ products @ difference)) / float(products[-1, -1]))


def _products(profiles: Sequence[Profile], last: int) -> npt.NDArray[np.float64]:
    """Give the sums over updates of the products of all pairs of profiles' shares."""
    widths = sorted({profile.sigma_rel for profile in profiles})
    powers = {width: gamma_of(width) + 1 for width in widths}
    # In units of the whole training, so that high powers stay in range.
    places = np.arange(last + 1, dtype=np.float64) / last
    steps = {width: np.diff(places ** powers[width]) for width in widths}
    sums = {(a, b): np.cumsum(steps[a] * steps[b]) for a in widths for b in widths if a <= b}
    products = np.empty((len(profiles), len(profiles)))
    for i, first in enumerate(profiles):
        for j, second in enumerate(profiles):
            pair = (min(first.sigma_rel, second.sigma_rel), max(first.sigma_rel, second.sigma_rel))
            scale = (places[first.updates] ** powers[first.sigma_rel]) * (
                places[second.updates] ** powers[second.sigma_rel]
            )
            products[i, j] = sums[pair][min(first.updates, second.updates) - 1] / scale
    return products
