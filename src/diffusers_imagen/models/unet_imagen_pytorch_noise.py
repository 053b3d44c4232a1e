# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""Noise levels as imagen-pytorch's U-Nets are told them, and EDM's preconditioning around them.

Everywhere else in the package a level is a log-SNR; here it becomes the number that goes into the U-Net. Called by the
stage adapter.
"""

import math
from typing import Any

import torch
from torch import Tensor

from diffusers_imagen.diffusion.imagen_pytorch_schedules import log_snr_at, step_at
from diffusers_imagen.diffusion.noise import NoiseProcess, NoiseSchedule


def noise_process_of(config: Any) -> NoiseProcess:
    """Return what a U-Net with this configuration was trained on."""
    schedule = NoiseSchedule(config.noise_schedule, config.log_snr_min, config.log_snr_max)
    return NoiseProcess(config.prediction_type, schedule)


def noise_condition(config: Any, log_snr: Tensor) -> Tensor:
    """Return what the U-Net is told of its noisy picture: log-SNR, a quarter of ln sigma, or the step; (B,)."""
    if config.sigma_data is not None:
        return -log_snr / 8
    if config.noise_condition == "step":
        return step_at(log_snr, config.noise_schedule, config.num_train_timesteps)
    return log_snr


def low_res_condition(config: Any, noise_level: Tensor) -> Tensor:
    """Return what the U-Net is told of its smaller picture, (B,).

    Args:
        config: the U-Net's.
        noise_level: (B,) in [0, 1], on the cosine schedule of `diffusion.augmentation`.
    """
    angle = noise_level.double() * (math.pi / 2)
    log_snr = 2 * (angle.cos().log() - angle.sin().log())
    kind = config.low_res_noise_schedule
    if config.low_res_time_frequencies is None:
        return step_at(log_snr, kind, config.num_train_timesteps)
    return log_snr.clamp(log_snr_at(kind, 1), log_snr_at(kind, 0)).float()


def preconditioned_input(x_t: Tensor, log_snr: Tensor, sigma_data: float) -> Tensor:
    """Scale noisy pictures of unit variance as EDM's network takes them (arXiv:2206.00364, table 1: c_in).

    Args:
        x_t: (B, C, H, W).
        log_snr: (B,).
        sigma_data: standard deviation of the clean pictures.
    """
    sigma = torch.exp(-log_snr / 2)[:, None, None, None]
    return x_t * ((1 + sigma**2) / (sigma**2 + sigma_data**2)).sqrt()


def preconditioned_output(output: Tensor, x_t: Tensor, log_snr: Tensor, sigma_data: float) -> Tensor:
    """Read x_0 out of what EDM's network gave (arXiv:2206.00364, equation 7: c_skip and c_out); shapes as above."""
    sigma = torch.exp(-log_snr / 2)[:, None, None, None]
    total = sigma**2 + sigma_data**2
    x_ve = x_t * (1 + sigma**2).sqrt()
    return sigma_data**2 / total * x_ve + sigma * sigma_data / total.sqrt() * output
