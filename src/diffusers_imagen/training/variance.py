# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""The loss of a learned variance: the variational bound, whose gradient the predicted mean does not get.

Improved DDPM's hybrid objective (arXiv:2102.09672, section 3.1), which DeepFloyd IF's U-Nets were trained with. Called by
their training task.
"""

import math

import torch
from torch import Tensor

from diffusers_imagen.diffusion.noise import per_sample
from diffusers_imagen.diffusion.noise_table import NoiseTable
from diffusers_imagen.diffusion.prediction import to_x_0
from diffusers_imagen.models.stage_protocol import Prediction

# Half the distance between two of a picture's 256 values in [-1, 1].
_HALF_STEP = 1 / 255


class LearnedVariance:
    """The variational bound on a table of timesteps, of each step from timestep t to t - 1.

    Args:
        table: The timesteps.
    """

    def __init__(self, table: NoiseTable) -> None:
        squares = table.alphas_cumprod.double().cpu()
        before = torch.cat([squares.new_ones(1), squares[:-1]])
        betas = 1 - squares / before
        posterior = betas * (1 - before) / (1 - squares)
        # At timestep 0 nothing is left to be drawn; the next one's stands in, so that its logarithm is finite.
        posterior[0] = posterior[1]
        self._table = table
        self._log_betas, self._log_posterior = betas.log().float(), posterior.log().float()
        self._from_x_0 = (betas * before.sqrt() / (1 - squares)).float()
        self._from_x_t = ((1 - before) * (1 - betas).sqrt() / (1 - squares)).float()

    def loss(self, prediction: Prediction, prediction_type: str, x_0: Tensor, x_t: Tensor, timestep: Tensor) -> Tensor:
        """Give the bound of each sample, scaled as the hybrid objective has it.

        Args:
            prediction: The value, and the variance as a place between the logarithms of the posterior's variance (-1)
                and of beta (1), (B, C, H, W) both.
            prediction_type: Of the value.
            x_0: Clean images (B, C, H, W).
            x_t: Noisy images (B, C, H, W).
            timestep: Whole numbers (B,).

        Returns:
            Bits per value times the number of timesteps / 1000, (B,), float32: what the hybrid objective adds to the
            mean squared error of eps.
        """
        if prediction.variance is None:
            raise ValueError("`prediction` has no variance; give that of a U-Net which learns one.")
        x_0, x_t = x_0.float(), x_t.float()
        alpha, sigma = self._table.alpha_sigma_at(timestep)
        # The mean is what the squared error teaches; the bound, far noisier, shall not.
        seen = to_x_0(prediction.value.detach(), x_t, alpha, sigma, prediction_type)
        mean = self._mean(seen, x_t, timestep)
        low, high = (self._at(values, timestep, x_0) for values in (self._log_posterior, self._log_betas))
        log_variance = torch.lerp(low, high, (prediction.variance.float() + 1) / 2)
        divergence = _gaussian_divergence(self._mean(x_0, x_t, timestep), low, mean, log_variance)
        surprise = _discrete_surprise(x_0, mean, log_variance)
        bits = torch.where(per_sample(timestep == 0, x_0), surprise, divergence) / math.log(2)
        return bits.flatten(1).mean(1) * (self._table.last + 1) / 1000

    def _mean(self, x_0: Tensor, x_t: Tensor, timestep: Tensor) -> Tensor:
        return self._at(self._from_x_0, timestep, x_0) * x_0 + self._at(self._from_x_t, timestep, x_0) * x_t

    @staticmethod
    def _at(values: Tensor, timestep: Tensor, like: Tensor) -> Tensor:
        return per_sample(values.to(timestep.device)[timestep], like)


def _gaussian_divergence(mean: Tensor, log_variance: Tensor, other_mean: Tensor, other_log_variance: Tensor) -> Tensor:
    """Give the Kullback-Leibler divergence of the second normal distribution from the first, value by value."""
    difference = log_variance - other_log_variance
    return 0.5 * (difference.exp() - 1 - difference + (mean - other_mean).square() * (-other_log_variance).exp())


def _discrete_surprise(x_0: Tensor, mean: Tensor, log_variance: Tensor) -> Tensor:
    """Give minus the logarithm of the probability of 8-bit values in [-1, 1], the first and the last with their tails."""
    scale = (-0.5 * log_variance).exp()
    below = torch.special.ndtr((x_0 - mean - _HALF_STEP) * scale)
    above = torch.special.ndtr((x_0 - mean + _HALF_STEP) * scale)
    below = torch.where(x_0 < -0.999, torch.zeros_like(below), below)
    above = torch.where(x_0 > 0.999, torch.ones_like(above), above)
    return -(above - below).clamp(min=1e-12).log()
