# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""Noise levels of a model that was trained on numbered timesteps, such as DeepFloyd IF's thousand.

Schedules in continuous time are in `noise.py`. Called by the adapters of foreign U-Nets.
"""

import torch
from torch import Tensor

from diffusers_imagen.diffusion.noise import alpha_sigma

# What float32 leaves of a whole number on the way through log_snr and back.
_WHOLE = 1e-3


class NoiseTable:
    """Map timesteps 0 to N - 1 to log_snr and back, linear in log_snr between two of them.

    Args:
        alphas_cumprod: (N,), alpha^2 of each timestep with alpha^2 + sigma^2 = 1, as Diffusers' schedulers have it.

    Raises:
        ValueError: values that do not fall, or that reach 0 or 1, where log_snr is infinite.
    """

    def __init__(self, alphas_cumprod: Tensor) -> None:
        squares = alphas_cumprod.double()
        if len(squares) < 2 or not bool((squares.diff() < 0).all() and squares[-1] > 0 and squares[0] < 1):
            raise ValueError(
                "`alphas_cumprod` must fall from below 1 to above 0; give a noise schedule without zero terminal "
                "signal-to-noise ratio."
            )
        self.alphas_cumprod = alphas_cumprod
        self._rising = (1 - squares).log() - squares.log()
        self.log_snr_min, self.log_snr_max = -float(self._rising[-1]), -float(self._rising[0])

    @property
    def last(self) -> int:
        """The noisiest timestep, N - 1."""
        return len(self._rising) - 1

    def clamp(self, log_snr: Tensor) -> Tensor:
        """Bring log_snr into the range of the table."""
        return log_snr.clamp(self.log_snr_min, self.log_snr_max)

    def log_snr(self, t: Tensor) -> Tensor:
        """Give the log_snr at times in [0, 1], where 0 is the first timestep and 1 the last."""
        place = t.double().clamp(0, 1) * self.last
        below = place.floor().long().clamp(max=self.last - 1)
        rising = self._rising.to(t.device)
        return -torch.lerp(rising[below], rising[below + 1], place - below).to(torch.float32)

    def t(self, log_snr: Tensor) -> Tensor:
        """Give the times in [0, 1] at which the table has these levels."""
        return self.timestep(log_snr) / self.last

    def timestep(self, log_snr: Tensor) -> Tensor:
        """Give the timesteps in [0, N - 1] at which the table has these levels, whole numbers where they are meant.

        Args:
            log_snr: noise levels, any shape; clamped to the table's range.

        Returns:
            Timesteps in the shape of `log_snr`, float32.
        """
        rising = self._rising.to(log_snr.device)
        wanted = -self.clamp(log_snr.double()).contiguous()
        below = (torch.searchsorted(rising, wanted, right=True) - 1).clamp(0, self.last - 1)
        place = below + (wanted - rising[below]) / (rising[below + 1] - rising[below])
        whole = place.round()
        return torch.where((place - whole).abs() < _WHOLE, whole, place).to(torch.float32)

    def alpha_sigma(self, log_snr: Tensor) -> tuple[Tensor, Tensor]:
        """Give (alpha, sigma) of a log_snr (B,) in the table's range, of whole timesteps to the bit as schedulers do."""
        place = self.timestep(log_snr)
        whole = place.round()
        between = alpha_sigma(log_snr)
        in_table = self.alpha_sigma_at(whole.long())
        alpha, sigma = (torch.where(place == whole, a, b) for a, b in zip(in_table, between, strict=True))
        return alpha, sigma

    def alpha_sigma_at(self, timestep: Tensor) -> tuple[Tensor, Tensor]:
        """Give (alpha, sigma) at whole timesteps, in the table's own precision."""
        squares = self.alphas_cumprod.to(timestep.device)[timestep]
        return squares**0.5, (1 - squares) ** 0.5
