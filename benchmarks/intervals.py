# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""Medians with intervals, and slopes, from few noisy rounds. Pure functions, no torch."""

import math
import statistics
from collections.abc import Sequence
from typing import NamedTuple

CONFIDENCE = 0.95


class Interval(NamedTuple):
    """A median with the order statistics around it, which hold the true one with probability `coverage`."""

    median: float
    low: float
    high: float
    coverage: float


def median_interval(values: Sequence[float], confidence: float = CONFIDENCE) -> Interval:
    """Return the median and the narrowest pair of order statistics that covers it with `confidence`.

    Whatever the distribution, each value is above its median with probability 1/2, so the k-th smallest and the k-th
    largest of n lie around it with probability 1 - 2 P(Binomial(n, 1/2) < k). Fewer than six values cannot give 95 %:
    then the interval is their range, and `coverage` says what that is worth.

    Raises:
        ValueError: no values.
    """
    if not values:
        raise ValueError("`values` is empty; give at least one.")
    ordered = sorted(values)
    n, k = len(ordered), 1
    while 2 * (k + 1) <= n and _coverage(n, k + 1) >= confidence:
        k += 1
    return Interval(statistics.median(ordered), ordered[k - 1], ordered[n - k], _coverage(n, k))


def ratios(theirs: Sequence[float], ours: Sequence[float]) -> list[float]:
    """Return how many times more they take than we, round by round."""
    return [their / our for their, our in zip(theirs, ours, strict=True)]


def extreme_ratio(theirs: Sequence[float], ours: Sequence[float]) -> Interval:
    """Return the ratio of medians of values that share no rounds, with the least and the greatest ratio there is."""
    return Interval(
        statistics.median(theirs) / statistics.median(ours), min(theirs) / max(ours), max(theirs) / min(ours), math.nan
    )


def log_slope(x: Sequence[float], y: Sequence[float]) -> float:
    """Return the exponent p of the power law y = c x^p that fits best in logarithms: 1 where y grows linearly."""
    return statistics.linear_regression([math.log(value) for value in x], [math.log(value) for value in y]).slope


def _coverage(n: int, k: int) -> float:
    return 1 - 2 * sum(math.comb(n, i) for i in range(k)) / 2**n
