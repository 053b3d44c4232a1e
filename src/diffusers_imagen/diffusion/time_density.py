# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""Say how often training sees each level of noise.

How much a level counts once it is drawn is in `weighting`. Called where training batches are made.
"""

import math
from statistics import NormalDist
from typing import Literal, get_args

TimeDensity = Literal["uniform", "logit_normal"]


def time_at(quantile: float, density: TimeDensity, mean: float = 0.0, std: float = 1.0) -> float:
    """Give the time below which training draws a share of its times.

    "logit_normal" is sigmoid(mean + std * n) of a standard normal n (arXiv:2403.03206, section 3.1): a mean above 0
    prefers noisy pictures, where it is decided what is where, below 0 clean ones, where details are.

    Args:
        quantile: The share, in [0, 1].
        density: "uniform" over [0, 1] or "logit_normal".
        mean: Of the logit of the time; for "logit_normal".
        std: Of the same, above 0.

    Returns:
        A time in [0, 1], 0 being clean.

    Raises:
        ValueError: If `quantile` is outside [0, 1], `density` is unknown or `std` is not above 0.
    """
    if not 0 <= quantile <= 1:
        raise ValueError(f"`quantile` is {quantile}; give a share in [0, 1].")
    if density == "uniform":
        return quantile
    if density != "logit_normal":
        raise ValueError(f"`density` is {density!r}; choose one of {', '.join(get_args(TimeDensity))}.")
    if not std > 0:
        raise ValueError(f"`std` is {std}; give a number above 0, such as 1.")
    if quantile in (0, 1):
        return float(quantile)
    logit = mean + std * NormalDist().inv_cdf(quantile)
    # Of the two forms the one whose exponential cannot overflow.
    return 1 / (1 + math.exp(-logit)) if logit > 0 else math.exp(logit) / (1 + math.exp(logit))
