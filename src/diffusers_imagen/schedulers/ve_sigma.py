# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""Drive schedulers of the variance-exploding space, sample = x_0 + sigma * eps. Chosen by `bridge.py`."""

from collections.abc import Sequence

import torch
from torch import Tensor

from diffusers_imagen.diffusion.prediction import from_x_0
from diffusers_imagen.schedulers.family import SchedulerBridge


class VESigmaBridge(SchedulerBridge):
    """Drive Euler and its kin; they never clip."""

    prediction_types = ("epsilon", "sample", "original_sample", "v_prediction")

    def set_timesteps(
        self,
        num_inference_steps: int | None,
        device: str | torch.device | None,
        timesteps: Sequence[float] | None = None,
        sigmas: Sequence[float] | None = None,
    ) -> Tensor:
        """Lay out the steps; see `SchedulerBridge.set_timesteps`."""
        if sigmas is not None and len(sigmas) and sigmas[-1] > 0:
            # Euler takes the last of its own sigmas for the end: without the 0 it would stop a step early, still noisy.
            sigmas = [*sigmas, 0.0]
        return super().set_timesteps(num_inference_steps, device, timesteps, sigmas)

    def noise_level(self, t: Tensor) -> tuple[float, float]:
        """Give (1, sigma) of the step."""
        return 1.0, float(self.scheduler.sigmas[self._step_index(t)])

    def model_output(self, x_0: Tensor, sample: Tensor, t: Tensor, variance: Tensor | None = None) -> Tensor:
        """Write x_0 as eps, x_0 or v; the variance is ignored."""
        alpha, sigma = self.noise_level(t)
        # Two names for the same thing.
        prediction_type = self.scheduler.config.prediction_type.replace("original_sample", "sample")
        return from_x_0(x_0, sample, alpha, sigma, prediction_type)

    def step(
        self,
        x_0: Tensor,
        t: Tensor,
        sample: Tensor,
        variance: Tensor | None = None,
        generator: torch.Generator | list[torch.Generator] | None = None,
    ) -> Tensor:
        """Go one step towards the clean image; see `SchedulerBridge.step`."""
        # The loop scales the sample itself; without this call on an empty one the scheduler warns at every step.
        self.scheduler.scale_model_input(sample[:0], t)
        return super().step(x_0, t, sample, variance, generator)
