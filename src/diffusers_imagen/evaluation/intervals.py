# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""Rates and differences of rates with 95 % confidence intervals. Numbers only: what was counted is the caller's.

Closed forms where there are good ones, since a bootstrap of a rate of 0 or 1 has no width; the bootstrap for the rest.
Trials that share something, such as a scene and its seed, are clusters: their intervals are those of as many independent
trials as would vary alike (Kish's design effect, at least 1).
"""

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

_Z_95 = 1.959963984540054


@dataclass(frozen=True)
class Rate:
    """Hold `hits` of `trials` with the 95 % interval from `low` to `high`; all NaN without trials."""

    hits: int
    trials: int
    low: float
    high: float

    @property
    def value(self) -> float:
        """Return hits by trials."""
        return self.hits / self.trials if self.trials else math.nan

    def __str__(self) -> str:
        """Write the rate in percent with its interval and N."""
        return f"{self.value:.1%} [{self.low:.1%}, {self.high:.1%}] (N = {self.trials})"


@dataclass(frozen=True)
class Estimate:
    """Hold an estimate with its 95 % interval and the number of units (pairs, or the smaller group) behind it."""

    value: float
    low: float
    high: float
    trials: int

    def within(self, bound: float) -> Literal["yes", "no", "undecided"]:
        """Tell whether a difference is within `bound` of 0.

        Args:
            bound: Largest difference that counts as none, such as 0.03 for three points.

        Returns:
            "yes" if the whole interval lies inside, "no" if it lies outside, "undecided" if it crosses the bound.
        """
        if -bound < self.low and self.high < bound:
            return "yes"
        return "no" if self.low >= bound or self.high <= -bound else "undecided"

    def __str__(self) -> str:
        """Write the difference in points with its interval and N."""
        return f"{100 * self.value:+.1f} [{100 * self.low:+.1f}, {100 * self.high:+.1f}] points (N = {self.trials})"


def wilson_rate(hits: int, trials: int, independent: float | None = None) -> Rate:
    """Compute a rate with its Wilson score interval (Wilson 1927).

    Args:
        hits: Successes.
        trials: Trials; with none, everything is NaN.
        independent: How many independent trials they are worth; `None` for all of them.

    Raises:
        ValueError: If `hits` is not in [0, trials].
    """
    if not 0 <= hits <= trials:
        raise ValueError(f"`hits` is {hits} of {trials} `trials`; give a number from 0 to {trials}.")
    if trials == 0:
        return Rate(0, 0, math.nan, math.nan)
    z2 = _Z_95**2
    share, n = hits / trials, trials if independent is None else independent
    middle = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = _Z_95 / (1 + z2 / n) * math.sqrt(share * (1 - share) / n + z2 / (4 * n**2))
    # At the ends the interval touches 0 and 1 exactly; the formula does so but for rounding.
    low = 0.0 if hits == 0 else middle - half
    high = 1.0 if hits == trials else middle + half
    return Rate(hits, trials, low, high)


def clustered_rate(hits: Sequence[bool], clusters: Sequence[Hashable]) -> Rate:
    """Compute a rate with the Wilson interval of as many independent trials as the clustered ones are worth.

    Args:
        hits: Whether each trial is a hit.
        clusters: The cluster of each.
    """
    return wilson_rate(sum(hits), len(hits), len(hits) / _design_effect(hits, clusters) if hits else None)


def _design_effect(values: Sequence[float], clusters: Sequence[Hashable]) -> float:
    """Return the variance of the mean of clustered values by that of independent ones, at least 1."""
    count, mean = len(values), sum(values) / len(values)
    sums: dict[Hashable, float] = {}
    for value, cluster in zip(values, clusters, strict=True):
        sums[cluster] = sums.get(cluster, 0.0) + value - mean
    spread = sum((value - mean) ** 2 for value in values)
    if spread == 0 or len(sums) == 1:
        # Nothing tells how alike a cluster's trials are: take them as one.
        return count / len(sums)
    return max(1.0, sum(total**2 for total in sums.values()) * len(sums) / (len(sums) - 1) / spread)


def paired_difference(
    first: Sequence[bool], second: Sequence[bool], clusters: Sequence[Hashable] | None = None
) -> Estimate:
    """Compute the difference of two rates over the same units, first less second (Bonett and Price 2012, eq. 4).

    Args:
        first: Whether each unit is a hit in the first condition.
        second: The same units in the second condition.
        clusters: The cluster of each unit; `None` if all are independent.

    Raises:
        ValueError: If the two are not of one length, or empty.
    """
    if len(first) != len(second) or not first:
        raise ValueError(
            f"`first` and `second` have {len(first)} and {len(second)} units; give the same, at least one."
        )
    pairs = list(zip(first, second, strict=True))
    only_first = sum(a and not b for a, b in pairs)
    only_second = sum(b and not a for a, b in pairs)
    differences = [float(a) - float(b) for a, b in pairs]
    effect = 1.0 if clusters is None else _design_effect(differences, clusters)
    n = len(pairs) / effect
    gained, lost = (only_first / effect + 1) / (n + 2), (only_second / effect + 1) / (n + 2)
    half = _Z_95 * math.sqrt((gained + lost - (gained - lost) ** 2) / (n + 2))
    middle = gained - lost
    value = (only_first - only_second) / len(pairs)
    return Estimate(value, max(-1.0, middle - half), min(1.0, middle + half), len(pairs))


def independent_difference(first: Rate, second: Rate) -> Estimate:
    """Compute the difference of two rates over different units, first less second (Newcombe 1998, method 10).

    Raises:
        ValueError: If one of the rates has no trials.
    """
    if not first.trials or not second.trials:
        raise ValueError(f"`first` and `second` have {first.trials} and {second.trials} trials; both need some.")
    value = first.value - second.value
    below = math.hypot(first.value - first.low, second.high - second.value)
    above = math.hypot(first.high - first.value, second.value - second.low)
    return Estimate(value, value - below, value + above, min(first.trials, second.trials))


def ratio(first: Rate, second: Rate) -> Estimate:
    """Compute first by second with the interval that follows from theirs (Donner and Zou 2012, MOVER-R).

    The two are taken as independent; where they are paired and go together, the interval is wider than it need be.

    Raises:
        ValueError: If one of the rates has no trials.
    """
    if not first.trials or not second.trials:
        raise ValueError(f"`first` and `second` have {first.trials} and {second.trials} trials; both need some.")
    if not second.hits:
        return Estimate(math.nan, math.nan, math.nan, second.trials)
    product = first.value * second.value

    def end(of_first: float, of_second: float, sign: int) -> float:
        scale = of_second * (2 * second.value - of_second)
        if scale <= 0:
            return math.inf
        root = max(0.0, product**2 - of_first * (2 * first.value - of_first) * scale)
        return (product + sign * math.sqrt(root)) / scale

    return Estimate(
        first.value / second.value, end(first.low, second.high, -1), end(first.high, second.low, 1), second.trials
    )


def bootstrap(
    statistic: Callable[..., float], columns: Sequence[Sequence[float]], resamples: int = 2000, seed: int = 0
) -> Estimate:
    """Compute a statistic of units with its percentile bootstrap interval.

    Args:
        statistic: Takes one float64 array for each column and returns a number; samples where it is NaN are left out.
        columns: Values of the units, one sequence for each column; units are drawn whole, all columns together.
        resamples: Number of bootstrap samples.
        seed: Seed of the draws.

    Raises:
        ValueError: If the columns are not of one length, or empty.
    """
    arrays = [np.asarray(column, dtype=np.float64) for column in columns]
    count = len(arrays[0]) if arrays else 0
    if not count or any(len(array) != count for array in arrays):
        raise ValueError(f"`columns` have {[len(array) for array in arrays]} units; give the same, at least one.")
    rng = np.random.default_rng(seed)
    drawn = [_resample(statistic, arrays, rng.integers(count, size=count)) for _ in range(resamples)]
    low, high = np.nanquantile(drawn, [0.025, 0.975]) if not np.all(np.isnan(drawn)) else (math.nan, math.nan)
    return Estimate(float(statistic(*arrays)), float(low), float(high), count)


def _resample(statistic: Callable[..., float], arrays: list[NDArray[np.float64]], chosen: NDArray[np.int64]) -> float:
    return statistic(*(array[chosen] for array in arrays))
