# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""Drive SCM, the sampler of TrigFlow (arXiv:2410.11081), sample = cos(t) * x_0 + sin(t) * sigma_data * eps.

Chosen by `bridge.py`.
"""

import math
from typing import Any, ClassVar

import torch
from torch import Tensor

from diffusers_imagen.schedulers.family import SchedulerBridge


class TrigFlowBridge(SchedulerBridge):
    """Drive SCM, which draws new noise at each step and expects the velocity of TrigFlow."""

    family = "trigflow"
    prediction_types: ClassVar[tuple[str, ...]] = ("trigflow",)

    @property
    def init_noise_sigma(self) -> float:
        """Standard deviation of the noise that sampling starts from: not 1, as the scheduler says."""
        return self.scheduler.config.sigma_data

    def noise_level(self, t: Tensor) -> tuple[float, float]:
        """Give (cos t, sigma_data sin t)."""
        # Its largest angle, 1.5708, lies a little beyond pi / 2.
        return max(math.cos(float(t)), 0.0), math.sin(float(t)) * self.scheduler.config.sigma_data

    def model_output(self, x_0: Tensor, sample: Tensor, t: Tensor, variance: Tensor | None = None) -> Tensor:
        """Write x_0 as TrigFlow's velocity; the variance is ignored."""
        dtype = torch.promote_types(x_0.dtype, torch.float32)
        return (math.cos(float(t)) * sample.to(dtype) - x_0) / math.sin(float(t))

    def _lay_out(self, request: dict[str, Any], device: Any) -> None:
        if "timesteps" in request:
            angles = [*request["timesteps"], 0.0] if request["timesteps"][-1] > 0 else [*request["timesteps"]]
            self.scheduler.set_timesteps(
                len(angles) - 1, timesteps=angles, device=device, max_timesteps=None, intermediate_timesteps=None
            )
        elif request["num_inference_steps"] == 2:
            super()._lay_out(request, device)
        else:
            self.scheduler.set_timesteps(**request, device=device, intermediate_timesteps=None)

    def _timesteps(self) -> Tensor:
        return self.scheduler.timesteps[:-1]

    def _falling(self) -> Tensor:
        return self.scheduler.timesteps

    def _largest_timestep(self) -> float:
        return 1.5708
