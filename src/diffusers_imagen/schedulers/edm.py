# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""Drive schedulers of EDM (arXiv:2206.00364), sample = x_0 + sigma * eps with a preconditioned network.

Chosen by `bridge.py`.
"""

import math
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from diffusers.schedulers.scheduling_utils import SchedulerMixin
from torch import Tensor

from diffusers_imagen.schedulers.brownian import noise_sampler
from diffusers_imagen.schedulers.family import Generators, SchedulerBridge


class EDMBridge(SchedulerBridge):
    """Drive EDM's schedulers, which read x_0 = c_skip * sample + c_out * output (arXiv:2206.00364, table 1).

    Raises:
        ValueError: If a stochastic solver is asked for an order that it does not know.
    """

    family = "EDM"
    prediction_types: ClassVar[tuple[str, ...]] = ("epsilon", "v_prediction")
    adds_noise: ClassVar[bool] = False
    """Whether the class adds noise whatever its settings."""

    def __init__(self, scheduler: SchedulerMixin) -> None:
        super().__init__(scheduler)
        config = self.scheduler.config
        if config.get("solver_order", 1) > 2 and (
            self.adds_noise or config.get("algorithm_type") == "sde-dpmsolver++"
        ):
            raise ValueError(
                f"`solver_order` of {self._name} is {config.solver_order}, but with noise it knows the orders 1 and 2; "
                "make it with solver_order=2."
            )

    def noise_level(self, t: Tensor) -> tuple[float, float]:
        """Give (1, sigma) of the step."""
        return 1.0, float(self.scheduler.sigmas[self._step_index(t)])

    def model_output(self, x_0: Tensor, sample: Tensor, t: Tensor, variance: Tensor | None = None) -> Tensor:
        """Write x_0 as the output of the preconditioned network, whose sign is the other one for v."""
        _, sigma = self.noise_level(t)
        sigma_data = self.scheduler.config.sigma_data
        c_skip = sigma_data**2 / (sigma**2 + sigma_data**2)
        c_out = sigma * sigma_data / math.hypot(sigma, sigma_data)
        if self.scheduler.config.prediction_type == "v_prediction":
            c_out = -c_out
        dtype = torch.promote_types(x_0.dtype, torch.float32)
        return (x_0.to(dtype) - c_skip * sample.to(dtype)) / c_out

    def _check_request(self, request: Mapping[str, Any]) -> None:
        super()._check_request(request)
        if "sigmas" in request:
            raise ValueError(
                f"`sigmas` cannot be set for {self._name}, which takes them for places between its sigma_max and "
                "sigma_min; give `num_inference_steps`, or make it with another sigma_min, sigma_max and rho."
            )


class CosineDPMBridge(EDMBridge):
    """Drive CosineDPMSolverMultistep, whose noise is a Brownian path; it comes from the call's generator."""

    adds_noise = True

    def _advance(self, output: Tensor, t: Tensor, sample: Tensor, generator: Generators) -> Tensor:
        if self.scheduler.noise_sampler is None:
            self.scheduler.noise_sampler = noise_sampler(sample, self.scheduler.sigmas, generator)
        return super()._advance(output, t, sample, generator)
