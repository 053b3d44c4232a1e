# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""Drive schedulers that walk over the indices of a variance-preserving noise schedule.

Their sample is sqrt(alphas_cumprod[t]) * x_0 + sqrt(1 - alphas_cumprod[t]) * eps. Chosen by `bridge.py`.
"""

import math
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from diffusers.schedulers.scheduling_utils import SchedulerMixin
from torch import Tensor

from diffusers_imagen.diffusion.prediction import from_x_0
from diffusers_imagen.schedulers.family import Generators, SchedulerBridge, with_settings


class VPIndexBridge(SchedulerBridge):
    """Drive DDIM and its kin.

    Their clipping is on by default (`clip_sample=True`). DDIM moreover clips x_0 only, and keeps the direction to the
    noise that belongs to the unclipped one; so a stage without thresholding wants `clip_sample=False`.

    DDIM steps back by `num_train_timesteps` // steps indices, wherever the next step begins. With "leading" spacing,
    or "trailing" and a number of steps that divides `num_train_timesteps`, the two agree; otherwise some noise stays
    in the sample that nobody accounts for.

    Raises:
        ValueError: If the scheduler expects eps but its noise schedule ends at zero signal-to-noise.
    """

    family = "noise index"
    prediction_types: ClassVar[tuple[str, ...]] = ("sample", "epsilon", "v_prediction")

    def __init__(self, scheduler: SchedulerMixin) -> None:
        super().__init__(scheduler)
        reads_eps = self.scheduler.config.prediction_type == "epsilon"
        if reads_eps and bool((scheduler.alphas_cumprod == 0).any()):
            raise ValueError(
                f"`prediction_type` of {self._name} is 'epsilon' and its noise schedule ends at zero signal-to-noise "
                "(rescale_betas_zero_snr), where x_0 cannot be read from eps; make it with "
                'prediction_type="v_prediction". The stage\'s model keeps its own.'
            )

    def noise_level(self, t: Tensor) -> tuple[float, float]:
        """Give (alpha, sigma) at index t."""
        alpha_squared = float(self.scheduler.alphas_cumprod[int(t)])
        return math.sqrt(alpha_squared), math.sqrt(1 - alpha_squared)

    def model_output(self, x_0: Tensor, sample: Tensor, t: Tensor, variance: Tensor | None = None) -> Tensor:
        """Write x_0 as eps, x_0 or v; the variance is ignored."""
        alpha, sigma = self.noise_level(t)
        return from_x_0(x_0, sample, alpha, sigma, self.scheduler.config.prediction_type)

    def _check_request(self, request: Mapping[str, Any]) -> None:
        super()._check_request(request)
        steps, limit = request.get("num_inference_steps", 0), self.scheduler.config.num_train_timesteps
        if steps > limit:
            raise ValueError(
                f"`num_inference_steps` is {steps}, but {self._name} has {limit} noise levels; give {limit} or fewer."
            )

    def _timesteps(self) -> Tensor:
        # With "trailing", rounding gives 62 of the step counts up to 1000 (61 is the first) one index too many, -1.
        timesteps: Tensor = self.scheduler.timesteps
        return timesteps[timesteps >= 0]

    def _falling(self) -> Tensor:
        return self._timesteps()


class UnclippedVPIndexBridge(VPIndexBridge):
    """Drive those that have the settings for clipping but never clip: TCD and CogVideoX's DDIM."""

    clips = False


class DDPMBridge(VPIndexBridge):
    """Drive DDPM, whose noise may have a variance that the network learned.

    Raises:
        ValueError: See `VPIndexBridge`; and for `variance_type="fixed_large_log"`, of which DDPM makes NaN.
    """

    fixed_variance = "fixed_small"

    def __init__(self, scheduler: SchedulerMixin) -> None:
        super().__init__(scheduler)
        if self.scheduler.config.variance_type == "fixed_large_log":
            raise ValueError(
                f"`variance_type` of {self._name} is 'fixed_large_log', the square root of a negative logarithm; make "
                'it with variance_type="fixed_large".'
            )

    @property
    def needs_variance(self) -> bool:
        """Whether the scheduler's `variance_type` is a learned one."""
        return self.scheduler.config.variance_type in ("learned", "learned_range")

    def step(
        self,
        x_0: Tensor,
        t: Tensor,
        sample: Tensor,
        variance: Tensor | None = None,
        generator: Generators = None,
    ) -> Tensor:
        """Go one step; see `SchedulerBridge.step`.

        With a learned variance x_0 goes in as it is. Written as eps and read back it would lose bits, and pictures
        could differ from those of the pipeline that the model comes from.
        """
        if not self.needs_variance:
            return super().step(x_0, t, sample, variance, generator)
        given = self.scheduler
        self.scheduler = with_settings(given, {"prediction_type": "sample"})
        try:
            return super().step(x_0, t, sample, variance, generator)
        finally:
            self.scheduler = given

    def model_output(self, x_0: Tensor, sample: Tensor, t: Tensor, variance: Tensor | None = None) -> Tensor:
        """Write x_0 as eps, x_0 or v, and append the variance on the channel axis where it is learned.

        Raises:
            ValueError: If the variance is learned and None.
        """
        output = super().model_output(x_0, sample, t)
        if not self.needs_variance:
            return output
        if variance is None:
            raise ValueError(
                f"`variance_type` of {self._name} is {self.scheduler.config.variance_type!r}, but the stage's model "
                f'predicts no variance; make the scheduler with variance_type="{self.fixed_variance}".'
            )
        return torch.cat([output, variance.to(output)], dim=1)
