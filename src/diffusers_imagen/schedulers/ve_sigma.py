# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""Drive schedulers of the variance-exploding space, sample = x_0 + sigma * eps. Chosen by `bridge.py`."""

from typing import Any, ClassVar

import torch
from torch import Tensor

from diffusers_imagen.diffusion.prediction import from_x_0
from diffusers_imagen.schedulers.brownian import noise_sampler
from diffusers_imagen.schedulers.family import Generators, SchedulerBridge


class VESigmaBridge(SchedulerBridge):
    """Drive Euler, LMS and their kin, with one evaluation of the model for each noise level."""

    family = "sigma"
    prediction_types: ClassVar[tuple[str, ...]] = ("sample", "epsilon", "v_prediction")

    def noise_level(self, t: Tensor) -> tuple[float, float]:
        """Give (1, sigma) of the step."""
        return 1.0, float(self.scheduler.sigmas[self._step_index(t)])

    def model_output(self, x_0: Tensor, sample: Tensor, t: Tensor, variance: Tensor | None = None) -> Tensor:
        """Write x_0 as eps, x_0 or v; the variance is ignored."""
        alpha, sigma = self.noise_level(t)
        return from_x_0(x_0, sample, alpha, sigma, self.scheduler.config.prediction_type)

    def _lay_out(self, request: dict[str, Any], device: Any) -> None:
        if "sigmas" in request and request["sigmas"][-1] > 0:
            # Euler takes the last of its own sigmas for the end: without the 0 it would stop a step early, still noisy.
            request = {"sigmas": [*request["sigmas"], 0.0]}
        super()._lay_out(request, device)


class EulerAncestralBridge(VESigmaBridge):
    """Drive Euler with noise added at each step, which reads eps and v only."""

    prediction_types: ClassVar[tuple[str, ...]] = ("v_prediction", "epsilon")

    def _lay_out(self, request: dict[str, Any], device: Any) -> None:
        super()._lay_out(request, device)
        # Where a step is long, its float32 would make the noise to be added a little too large, and a root of it NaN.
        self.scheduler.sigmas = self.scheduler.sigmas.double()


class HeunBridge(VESigmaBridge):
    """Drive Heun, which evaluates at the end of each step once more and goes on from its beginning."""

    kept_sample = "sample"


class KDPM2Bridge(VESigmaBridge):
    """Drive KDPM2, which evaluates at sigma and at a sigma in between, and reads eps and v only."""

    prediction_types: ClassVar[tuple[str, ...]] = ("v_prediction", "epsilon")
    kept_sample = "sample"

    def noise_level(self, t: Tensor) -> tuple[float, float]:
        """Give (1, sigma) of this evaluation."""
        if self.scheduler.state_in_first_order:
            return super().noise_level(t)
        return 1.0, self._sigma_in_between(t)

    def _sigma_in_between(self, t: Tensor) -> float:
        return float(self.scheduler.sigmas_interpol[self._step_index(t)])


class KDPM2AncestralBridge(KDPM2Bridge):
    """Drive KDPM2 with noise added at each step.

    Its sigma in between belongs to the evaluation before. It is the next sigma, exactly: with sigma_down = sigma_next^2
    / sigma the geometric mean of both; but where a step is long the scheduler's float32 finds NaN.
    """

    def _sigma_in_between(self, t: Tensor) -> float:
        return float(self.scheduler.sigmas_interpol[self._step_index(t) - 1])

    def _lay_out(self, request: dict[str, Any], device: Any) -> None:
        super()._lay_out(request, device)
        in_between, timesteps = self.scheduler.sigmas_interpol, self.scheduler.timesteps
        sigma_next = self.scheduler.sigmas.roll(-1).to(in_between)
        self.scheduler.sigmas_interpol = torch.where(in_between.isnan(), sigma_next, in_between)
        self.scheduler.timesteps = torch.where(timesteps.isnan(), timesteps.roll(-1), timesteps)


class DPMSolverSDEBridge(KDPM2Bridge):
    """Drive the stochastic DPM-Solver, whose noise is a Brownian path; it comes from the call's generator."""

    def _sigma_in_between(self, t: Tensor) -> float:
        return float(self.scheduler.mid_point_sigma)

    def _advance(self, output: Tensor, t: Tensor, sample: Tensor, generator: Generators) -> Tensor:
        if self.scheduler.noise_sampler is None and self.scheduler.config.noise_sampler_seed is None:
            self.scheduler.noise_sampler = noise_sampler(sample, self.scheduler.sigmas, generator)
        return super()._advance(output, t, sample, generator)
