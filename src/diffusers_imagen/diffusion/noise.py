# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""Say how noisy a picture is: noise schedules, (alpha, sigma) pairs and the noise process of a model.

A level of noise is written as log_snr = 2 ln(alpha / sigma), with x_t = alpha * x_0 + sigma * eps. What a network
predicts is in `prediction.py`. Called by the models, the schedulers, the sampling loop and the training objective.
"""

import math
from dataclasses import dataclass
from typing import Literal, Protocol, overload

import torch
import torch.nn.functional as F
from torch import Tensor

PREDICTION_TYPES = ("epsilon", "sample", "v_prediction", "flow_prediction")

_SCHEDULE_KINDS = ("cosine", "linear")
_LINEAR_FIRST_BETA = 1e-4
_LINEAR_LOG_SNR_LIMIT = -math.log(math.expm1(_LINEAR_FIRST_BETA))


@dataclass(frozen=True)
class NoiseSchedule:
    """Map time t in [0, 1] (0 = clean, 1 = noise) to log_snr and back.

    "cosine" is log_snr = -2 ln tan(angle), the angle linear in t (arXiv:2202.00512, section 4; arXiv:2301.11093).
    "linear" is DDPM's linear betas, 1e-4 to 0.02 over 1000 steps, in continuous time (arXiv:2107.00630, appendix):
    log_snr = -ln(expm1(1e-4 + 10 u^2)), u linear in t between the limits (so that the factor 10 has no effect).

    Both are moved up by `shift` and still run from `log_snr_max` to `log_snr_min`: simple diffusion's resolution shift
    (arXiv:2301.11093, equation 4) is 2 ln(64 / d) for pictures of d pixels, below 0 above 64 pixels, since noise hides
    less of a larger picture.

    Args:
        kind: Shape of the schedule, "cosine" or "linear".
        log_snr_min: log_snr at t = 1.
        log_snr_max: log_snr at t = 0; at most 9.21 + `shift` for "linear", whose u starts at 0.
        shift: Added to the log_snr of the schedule's own shape.

    Raises:
        ValueError: If `kind` is unknown or the limits cannot be reached.
    """

    kind: Literal["cosine", "linear"] = "cosine"
    log_snr_min: float = -15.0
    log_snr_max: float = 15.0
    shift: float = 0.0

    def __post_init__(self) -> None:
        """Refuse limits that no t could give."""
        if self.kind not in _SCHEDULE_KINDS:
            raise ValueError(f"`kind` is {self.kind!r}; choose one of {', '.join(_SCHEDULE_KINDS)}.")
        if not -math.inf < self.log_snr_min < self.log_snr_max < math.inf:
            raise ValueError(
                f"`log_snr_min` is {self.log_snr_min} and `log_snr_max` is {self.log_snr_max}; "
                "give two finite numbers, the smaller one first."
            )
        # Not `math.isfinite`, which `torch.compile(dynamic=True)` cannot follow.
        if not -math.inf < self.shift < math.inf:
            raise ValueError(f"`shift` is {self.shift}; give a finite number, 0 for none.")
        limit = _LINEAR_LOG_SNR_LIMIT + self.shift
        if self.kind == "linear" and self.log_snr_max > limit:
            raise ValueError(
                f"`log_snr_max` is {self.log_snr_max}, but the linear schedule starts at {limit:.4f}; give "
                f"{math.floor(100 * limit) / 100} or less."
            )

    def log_snr(self, t: Tensor) -> Tensor:
        """Give the log_snr at time t.

        Args:
            t: Times in [0, 1], any shape; values outside are taken as the nearer end.

        Returns:
            log_snr in the shape of `t`, float32 at least, falling from exactly `log_snr_max` to `log_snr_min`.
        """
        t = _at_least_float32(t)
        inside = self._cosine_log_snr(t) if self.kind == "cosine" else self._linear_log_snr(t)
        inside = torch.where(t <= 0, self.log_snr_max, self.clamp(inside + self.shift))
        return torch.where(t >= 1, self.log_snr_min, inside)

    def t(self, log_snr: Tensor) -> Tensor:
        """Give the time at which the schedule has this log_snr, the inverse of `log_snr`.

        Args:
            log_snr: Noise levels, any shape; clamped to the schedule's range first.

        Returns:
            Times in [0, 1] in the shape of `log_snr`, float32 at least.
        """
        log_snr = self.clamp(_at_least_float32(log_snr)) - self.shift
        if self.kind == "cosine":
            start, stop = self._angles()
            place = torch.atan(torch.exp(-log_snr / 2))
        else:
            start, stop = self._places()
            place = (F.softplus(-log_snr) - _LINEAR_FIRST_BETA).clamp(min=0).sqrt()
        return ((place - start) / (stop - start)).clamp(0, 1)

    def clamp(self, log_snr: Tensor) -> Tensor:
        """Bring log_snr into the range of the schedule, [log_snr_min, log_snr_max]."""
        return log_snr.clamp(self.log_snr_min, self.log_snr_max)

    def alpha_sigma(self, log_snr: Tensor) -> tuple[Tensor, Tensor]:
        """Give the variance-preserving (alpha, sigma) of a log_snr; see the function of this name."""
        return alpha_sigma(log_snr)

    def _cosine_log_snr(self, t: Tensor) -> Tensor:
        start, stop = self._angles()
        angle = start + t * (stop - start)
        # tan(angle) near pi/2 loses four digits in float32; the complement, measured from t = 1, keeps them.
        complement = math.atan(math.exp((self.log_snr_min - self.shift) / 2)) + (1 - t) * (stop - start)
        return 2 * (torch.sin(complement).log() - torch.sin(angle).log())

    def _linear_log_snr(self, t: Tensor) -> Tensor:
        start, stop = self._places()
        integral = _LINEAR_FIRST_BETA + (start + t * (stop - start)).square()
        # ln(expm1(z)) written so that a large z does not overflow.
        return -(integral + torch.log(-torch.expm1(-integral)))

    def _angles(self) -> tuple[float, float]:
        high, low = self.log_snr_max - self.shift, self.log_snr_min - self.shift
        return math.atan(math.exp(-high / 2)), math.atan(math.exp(-low / 2))

    def _places(self) -> tuple[float, float]:
        return self._linear_place(self.log_snr_max - self.shift), self._linear_place(self.log_snr_min - self.shift)

    @staticmethod
    def _linear_place(log_snr: float) -> float:
        softplus = max(-log_snr, 0.0) + math.log1p(math.exp(-abs(log_snr)))
        return math.sqrt(max(softplus - _LINEAR_FIRST_BETA, 0.0))


class TimeSchedule(Protocol):
    """Map time t in [0, 1] (0 = clean, 1 = noise) to log_snr and back: `NoiseSchedule`, or a table of timesteps."""

    @property
    def log_snr_min(self) -> float:
        """log_snr at t = 1."""

    @property
    def log_snr_max(self) -> float:
        """log_snr at t = 0."""

    def log_snr(self, t: Tensor) -> Tensor:
        """Give the log_snr at times in [0, 1]."""

    def t(self, log_snr: Tensor) -> Tensor:
        """Give the times at which the schedule has these levels."""

    def clamp(self, log_snr: Tensor) -> Tensor:
        """Bring log_snr into the range of the schedule."""

    def alpha_sigma(self, log_snr: Tensor) -> tuple[Tensor, Tensor]:
        """Give (alpha, sigma) of a log_snr, with alpha^2 + sigma^2 = 1."""


@dataclass(frozen=True)
class NoiseProcess:
    """Say what a model was trained on: what it predicts, and at which levels of noise.

    Args:
        prediction_type: One of `PREDICTION_TYPES`.
        schedule: The noise schedule of the training.

    Raises:
        ValueError: If `prediction_type` is unknown.
    """

    prediction_type: str
    schedule: TimeSchedule

    def __post_init__(self) -> None:
        """Refuse an unknown prediction type."""
        check_prediction_type(self.prediction_type)


def check_prediction_type(prediction_type: str) -> None:
    """Refuse a prediction type that is not one of `PREDICTION_TYPES`.

    Raises:
        ValueError: If it is not.
    """
    if prediction_type not in PREDICTION_TYPES:
        raise ValueError(f"`prediction_type` is {prediction_type!r}; choose one of {', '.join(PREDICTION_TYPES)}.")


def alpha_sigma(log_snr: Tensor) -> tuple[Tensor, Tensor]:
    """Give the variance-preserving (alpha, sigma) of a log_snr, with alpha^2 + sigma^2 = 1.

    Args:
        log_snr: Noise levels, any shape.

    Returns:
        alpha = sqrt(sigmoid(log_snr)) and sigma = sqrt(sigmoid(-log_snr)), in the shape of `log_snr`.
    """
    return torch.sigmoid(log_snr).sqrt(), torch.sigmoid(-log_snr).sqrt()


def add_noise(x_0: Tensor, eps: Tensor, alpha: float | Tensor, sigma: float | Tensor) -> Tensor:
    """Add noise to clean images: x_t = alpha * x_0 + sigma * eps.

    Args:
        x_0: Clean images (B, C, H, W).
        eps: Standard normal noise (B, C, H, W).
        alpha: Scale of the images, one number or (B,).
        sigma: Scale of the noise, one number or (B,).

    Returns:
        x_t (B, C, H, W).
    """
    return per_sample(alpha, x_0) * x_0 + per_sample(sigma, x_0) * eps


@overload
def per_sample(value: float, like: Tensor) -> float: ...
@overload
def per_sample(value: Tensor, like: Tensor) -> Tensor: ...
def per_sample(value: float | Tensor, like: Tensor) -> float | Tensor:
    """Shape a value per sample so that it multiplies a batch of images.

    Args:
        value: A number, a scalar tensor, or a tensor (B,).
        like: The tensor to be multiplied, (B, C, H, W) or of any other number of axes.

    Returns:
        `value` as (B, 1, 1, 1), with as many axes as `like`; numbers and scalar tensors as they are.
    """
    if not isinstance(value, Tensor) or value.ndim == 0:
        return value
    return value.reshape(-1, *(1,) * (like.ndim - 1))


def _at_least_float32(value: Tensor) -> Tensor:
    return value.to(torch.promote_types(value.dtype, torch.float32))
