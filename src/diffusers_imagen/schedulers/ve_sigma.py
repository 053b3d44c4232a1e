# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""Drive schedulers of the variance-exploding space, sample = x_0 + sigma * eps. Chosen by `bridge.py`."""

import math
from typing import Any, ClassVar

import torch
from torch import Tensor

from diffusers_imagen.diffusion.prediction import from_x_0
from diffusers_imagen.schedulers.brownian import noise_sampler
from diffusers_imagen.schedulers.family import Generators, SchedulerBridge


class VESigmaBridge(SchedulerBridge):
    """Drive Euler and its kin, with one evaluation of the model for each noise level."""

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
        # In steps from 20000 to 3 the scheduler's float32 loses the small one, and finds roots of negative numbers.
        self.scheduler.sigmas = self.scheduler.sigmas.double()


class LMSBridge(VESigmaBridge):
    """Drive LMS, which ends here with the last prediction.

    Its last step goes to sigma 0, which with exponential spacing and 250 steps is 16 times as long as the one before:
    the polynomial through the last four predictions would multiply their errors by hundreds.
    """

    def _advance(self, output: Tensor, t: Tensor, sample: Tensor, generator: Generators) -> Tensor:
        if self.scheduler.sigmas[self._step_index(t) + 1] == 0:
            return self.scheduler.step(output, t, sample, order=1).prev_sample
        return super()._advance(output, t, sample, generator)


class EulerAncestralBridge(VESigmaBridge):
    """Drive Euler with noise added at each step, which reads eps and v only."""

    prediction_types: ClassVar[tuple[str, ...]] = ("v_prediction", "epsilon")


class HeunBridge(VESigmaBridge):
    """Drive Heun, which evaluates at the end of each step once more and goes on from its beginning.

    A long step from sigma 20000 to 3 and back multiplies the rounding of the sample at 3 by 20000, and what the model says at
    3 and did not say at 20000 by as much: of such a step, the second evaluation is not used, which makes it Euler's.
    """

    kept_sample = "sample"
    needs_float64 = True
    longest_ratio: ClassVar[float] = 10.0
    """Of the sigmas at a step's beginning and end, up to which the second evaluation is used."""

    def model_output(self, x_0: Tensor, sample: Tensor, t: Tensor, variance: Tensor | None = None) -> Tensor:
        """Write x_0 as eps, x_0 or v, at the second evaluation of a long step the first one's; the variance is ignored."""
        if self.scheduler.state_in_first_order:
            self._first_x_0 = x_0
        else:
            begin, end = (float(self.scheduler.sigmas[self._step_index(t) - back]) for back in (1, 0))
            x_0 = self._first_x_0 if begin > self.longest_ratio * end else x_0
        return super().model_output(x_0, sample, t, variance)


class KDPM2Bridge(HeunBridge):
    """Drive KDPM2, which evaluates at sigma and at a sigma in between, and reads eps and v only."""

    prediction_types: ClassVar[tuple[str, ...]] = ("v_prediction", "epsilon")
    longest_ratio = math.inf

    def noise_level(self, t: Tensor) -> tuple[float, float]:
        """Give (1, sigma) of this evaluation."""
        if self.scheduler.state_in_first_order:
            return super().noise_level(t)
        return 1.0, self._sigma_in_between(t)

    def _sigma_in_between(self, t: Tensor) -> float:
        return float(self.scheduler.sigmas_interpol[self._step_index(t)])


class KDPM2AncestralBridge(KDPM2Bridge):
    """Drive KDPM2 with noise added at each step, whose sigma in between belongs to the evaluation before.

    Of the noise sigma_next to arrive at, sigma_down = sigma_next^2 / sigma is reached by the solver and the rest added;
    in between of sigma and sigma_down, by geometric mean, is sigma_next. The scheduler computes the three in float32,
    which where a step is long makes NaN, and so they are replaced by the exact ones.
    """

    longest_ratio = HeunBridge.longest_ratio

    def _sigma_in_between(self, t: Tensor) -> float:
        return float(self.scheduler.sigmas_interpol[self._step_index(t) - 1])

    def _lay_out(self, request: dict[str, Any], device: Any) -> None:
        super()._lay_out(request, device)
        sigmas = self.scheduler.sigmas
        sigmas_next = torch.cat([sigmas[1:], sigmas.new_zeros(1)])
        ratio = (sigmas_next / sigmas).nan_to_num()
        self.scheduler.sigmas_interpol = sigmas_next
        self.scheduler.sigmas_down = sigmas_next * ratio
        self.scheduler.sigmas_up = sigmas_next * (1 - ratio**2).sqrt()
        timesteps = self.scheduler.timesteps
        self.scheduler.timesteps = torch.where(timesteps.isnan(), timesteps.roll(-1), timesteps)


class DPMSolverSDEBridge(KDPM2Bridge):
    """Drive the stochastic DPM-Solver, whose noise is a Brownian path; it comes from the call's generator."""

    def _sigma_in_between(self, t: Tensor) -> float:
        return float(self.scheduler.mid_point_sigma)

    def _advance(self, output: Tensor, t: Tensor, sample: Tensor, generator: Generators) -> Tensor:
        if self.scheduler.noise_sampler is None and self.scheduler.config.noise_sampler_seed is None:
            self.scheduler.noise_sampler = noise_sampler(sample, self.scheduler.sigmas, generator)
        return super()._advance(output, t, sample, generator)
