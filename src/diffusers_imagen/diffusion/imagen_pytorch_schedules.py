# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""The noise schedules that imagen-pytorch and MinImagen train on, in their own parametrisation.

Everywhere else in the package a schedule is `noise.NoiseSchedule`; these say what converted weights have seen. Called
by the models and the conversion.
"""

import math
from functools import lru_cache
from typing import Literal

import torch
from torch import Tensor

ScheduleKind = Literal["cosine", "linear"]
# The cosine schedule's offset from the clean end (arXiv:2102.09672, equation 17).
_OFFSET = 0.008
# How far from a whole step float32 may bring a level that is one.
_STEP_ROUNDING = 1e-2


def log_snr_at(kind: ScheduleKind, t: float) -> float:
    """Return imagen-pytorch's log-SNR at time t in [0, 1] of its continuous schedules, in float64.

    "cosine" is -2 ln tan((t + s) / (1 + s) pi / 2) with s = 0.008, "linear" -ln(expm1(1e-4 + 10 t^2)). At t = 1 the
    cosine is infinite; float32 makes -33.89 of it, and so does this.
    """
    if kind == "linear":
        return -math.log(math.expm1(1e-4 + 10 * t * t))
    angle = (t + _OFFSET) / (1 + _OFFSET) * math.pi / 2
    if math.cos(angle) < 1e-7:
        cosine = torch.cos(torch.tensor(math.pi / 2, dtype=torch.float32))
        return -float(torch.log(cosine**-2 - 1))
    return -2 * math.log(math.tan(angle))


def low_res_level(kind: ScheduleKind, t: float) -> float:
    """Return the `noise_level` of this package, in [0, 1], that is imagen-pytorch's level t on its own schedule."""
    return level_of_log_snr(log_snr_at(kind, t))


def level_of_log_snr(log_snr: float) -> float:
    """Return the `noise_level` of this package, in [0, 1], at a log-SNR."""
    return 2 / math.pi * math.atan(math.exp(-log_snr / 2))


@lru_cache(maxsize=8)
def discrete_log_snrs(kind: ScheduleKind, num_steps: int) -> Tensor:
    """Return the log-SNR (num_steps,) of every step of DDPM's schedules, in float64 and falling.

    "linear" is 1e-4 to 0.02 over 1000 steps, scaled to other counts; "cosine" arXiv:2102.09672's, betas clipped at
    0.999.
    """
    if kind == "linear":
        scale = 1000 / num_steps
        betas = torch.linspace(scale * 1e-4, scale * 0.02, num_steps, dtype=torch.float64)
    else:
        places = torch.linspace(0, 1, num_steps + 1, dtype=torch.float64)
        cosines = torch.cos((places + _OFFSET) / (1 + _OFFSET) * math.pi / 2) ** 2
        betas = (1 - cosines[1:] / cosines[:-1]).clamp(0, 0.999)
    # 20 linear steps end at a beta of 1.
    signal = torch.cumprod(1 - betas, 0).clamp(min=torch.finfo(torch.float32).tiny)
    return torch.log(signal) - torch.log1p(-signal)


def step_at(log_snr: Tensor, kind: ScheduleKind, num_steps: int) -> Tensor:
    """Return the step (B,) of a discrete schedule that has these log-SNRs (B,), between two steps a fraction."""
    table = discrete_log_snrs(kind, num_steps).to(log_snr.device)
    wanted = log_snr.double().clamp(float(table[-1]), float(table[0]))
    after = torch.searchsorted(-table, -wanted).clamp(1, num_steps - 1)
    upper, lower = table[after - 1], table[after]
    steps = after - 1 + (upper - wanted) / (upper - lower)
    whole = steps.round()
    return torch.where((steps - whole).abs() < _STEP_ROUNDING, whole, steps).float()
