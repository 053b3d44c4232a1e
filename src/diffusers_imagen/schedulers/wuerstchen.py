# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""Drive Wuerstchen's DDPM, which walks in continuous time from 1 to 0. Chosen by `bridge.py`."""

import math
from typing import Any

from torch import Tensor

from diffusers_imagen.diffusion.prediction import from_x_0
from diffusers_imagen.schedulers.family import Generators, SchedulerBridge


class WuerstchenBridge(SchedulerBridge):
    """Drive DDPMWuerstchen, which expects eps, a time for each image, and the 0 at the end of custom timesteps.

    It never goes below a noise of 0.01, which is left in the picture.
    """

    family = "Wuerstchen"

    def noise_level(self, t: Tensor) -> tuple[float, float]:
        """Give (alpha, sigma) at time t."""
        alpha_squared = float(self.scheduler._alpha_cumprod(t.reshape(1).cpu(), "cpu"))
        return math.sqrt(alpha_squared), math.sqrt(1 - alpha_squared)

    def model_output(self, x_0: Tensor, sample: Tensor, t: Tensor, variance: Tensor | None = None) -> Tensor:
        """Write x_0 as eps; the variance is ignored."""
        return from_x_0(x_0, sample, *self.noise_level(t), "epsilon")

    def _lay_out(self, request: dict[str, Any], device: Any) -> None:
        if "timesteps" in request and request["timesteps"][-1] > 0:
            request = {"timesteps": [*request["timesteps"], 0.0]}
        super()._lay_out(request, device)

    def _advance(self, output: Tensor, t: Tensor, sample: Tensor, generator: Generators) -> Tensor:
        return super()._advance(output, t.expand(sample.shape[0]), sample, generator)

    def _timesteps(self) -> Tensor:
        return self.scheduler.timesteps[:-1]

    def _falling(self) -> Tensor:
        return self.scheduler.timesteps

    def _largest_timestep(self) -> float:
        return 1.0
