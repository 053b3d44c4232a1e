# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""Drive schedulers that hold sigma / alpha per step and walk in the variance-preserving space.

With `use_flow_sigmas` they walk in the flow-matching space, alpha = 1 - sigma, instead. Chosen by `bridge.py`.
"""

import math
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import torch
from diffusers.schedulers.scheduling_utils import SchedulerMixin
from torch import Tensor

from diffusers_imagen.diffusion.prediction import from_x_0
from diffusers_imagen.schedulers.family import SchedulerBridge

_SPACINGS = ("use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas", "use_lu_lambdas")


class VPSigmaBridge(SchedulerBridge):
    """Drive DPM-Solver++, DEIS and their kin.

    A learned variance is ignored, as their formulas have no place for it.

    Raises:
        ValueError: If the scheduler's settings contradict one another or make NaN.
    """

    family = "DPM solver"
    prediction_types: ClassVar[tuple[str, ...]] = ("sample", "epsilon", "v_prediction", "flow_prediction")
    flow_spacings: ClassVar[tuple[str, ...]] = ()
    """Spacings that the class knows how to turn into flow sigmas."""

    def __init__(self, scheduler: SchedulerMixin) -> None:
        super().__init__(scheduler)
        problem = self._problem()
        if problem:
            raise ValueError(f"{self._name} {problem}")

    @property
    def reads_x_0(self) -> bool:
        """Whether the solver integrates x_0; otherwise it integrates eps."""
        return self.scheduler.config.algorithm_type != "dpmsolver"

    def noise_level(self, t: Tensor) -> tuple[float, float]:
        """Give (alpha, sigma) of the step."""
        sigma = float(self.scheduler.sigmas[self._step_index(t)])
        if self.scheduler.config.use_flow_sigmas:
            return 1 - sigma, sigma
        norm = math.hypot(1, sigma)
        return 1 / norm, sigma / norm

    def model_output(self, x_0: Tensor, sample: Tensor, t: Tensor, variance: Tensor | None = None) -> Tensor:
        """Write x_0 as eps, x_0, v or flow; the variance is ignored."""
        alpha, sigma = self.noise_level(t)
        prediction_type = self.scheduler.config.prediction_type
        if prediction_type == "v_prediction":
            # The schedulers' own v, which in the flow space is not that of the sample scaled to unit variance.
            dtype = torch.promote_types(x_0.dtype, torch.float32)
            return (alpha * sample.to(dtype) - x_0) / sigma
        return from_x_0(x_0, sample, alpha, sigma, prediction_type)

    def _corrections(self, config: Mapping[str, Any]) -> dict[str, Any]:
        corrections = super()._corrections(config)
        if config.get("variance_type") in ("learned", "learned_range"):
            # It would have the scheduler drop all channels but the first three.
            corrections["variance_type"] = None
        return corrections

    def _check_request(self, request: Mapping[str, Any]) -> None:
        super()._check_request(request)
        if "timesteps" in request and self.scheduler.config.use_flow_sigmas:
            raise ValueError(
                f"`timesteps` cannot be set for {self._name} with use_flow_sigmas=True; give `num_inference_steps`."
            )

    def _growth(self, before: tuple[float, float], now: tuple[float, float]) -> float:
        return before[1] / now[1] if self.reads_x_0 else before[0] / now[0]

    def _problem(self) -> str | None:
        """Say what cannot work in the scheduler's settings, and the remedy."""
        config = self.scheduler.config
        spacing = next((option for option in _SPACINGS if config.get(option)), None)
        if config.get("algorithm_type") == "sde-dpmsolver":
            return 'has algorithm_type "sde-dpmsolver", which diverges at large noise; take "sde-dpmsolver++".'
        if config.prediction_type == "flow_prediction" and not config.use_flow_sigmas:
            return (
                'has prediction_type="flow_prediction" but walks in the variance-preserving space; make it with '
                'use_flow_sigmas=True too, or with prediction_type="sample".'
            )
        if config.use_flow_sigmas and spacing and spacing not in self.flow_spacings:
            return f"has use_flow_sigmas and {spacing}, which are in different units; make it with one of the two."
        if config.use_flow_sigmas and not self.reads_x_0 and config.prediction_type not in ("epsilon", "sample"):
            return (
                f"integrates eps, and its {config.prediction_type} is not made for use_flow_sigmas; make it with "
                'prediction_type="sample", or have it integrate x_0 (algorithm_type="dpmsolver++", predict_x0=True).'
            )
        if config.use_flow_sigmas and config.get("use_dynamic_shifting"):
            return (
                "has use_dynamic_shifting, whose shift is tuned to the sequence lengths of latent models; make it "
                "with use_dynamic_shifting=False and a fixed shift, such as flow_shift=3.0."
            )
        return None


class SinglestepBridge(VPSigmaBridge):
    """Drive DPM-Solver++'s single-step form, whose second evaluation goes on from the sample of the first.

    Raises:
        ValueError: See `VPSigmaBridge`; and for thresholding with `algorithm_type="dpmsolver"`, which fails there.
    """

    kept_sample = "sample"

    def _problem(self) -> str | None:
        if self.scheduler.config.thresholding and not self.reads_x_0:
            return "cannot threshold while it integrates eps; make it with thresholding=False: the stage thresholds."
        return super()._problem()


class UniPCBridge(VPSigmaBridge):
    """Drive UniPC, whose corrector goes back to the sample before.

    Raises:
        ValueError: See `VPSigmaBridge`; and for another scheduler as its predictor.
    """

    kept_sample = "last_sample"
    flow_spacings: ClassVar[tuple[str, ...]] = ("use_karras_sigmas",)

    @property
    def reads_x_0(self) -> bool:
        """Whether the solver integrates x_0; otherwise it integrates eps."""
        return self.scheduler.config.predict_x0

    def _corrections(self, config: Mapping[str, Any]) -> dict[str, Any]:
        corrections = super()._corrections(config)
        if config["use_flow_sigmas"] and config["prediction_type"] == "epsilon":
            # Its first alpha is 1e-6, where eps says nothing about x_0 in float32.
            corrections["prediction_type"] = "sample"
        return corrections

    def _lay_out(self, request: dict[str, Any], device: Any) -> None:
        if "sigmas" in request:
            # It shifts them, for which a list will not do.
            request = {"sigmas": np.array(request["sigmas"], dtype=np.float64)}
        super()._lay_out(request, device)

    def _ends_with_x_0(self, t: Tensor) -> bool:
        # At sigma 0 its formulas divide by it, with all settings but the usual ones, with which x_0 is the result.
        return super()._ends_with_x_0(t) or bool(self.scheduler.sigmas[self._step_index(t) + 1] == 0)

    def _problem(self) -> str | None:
        if self.scheduler.config.solver_p is not None:
            return "has another scheduler as solver_p, which nobody tells the noise level; make it with solver_p=None."
        return super()._problem()


class SASolverBridge(VPSigmaBridge):
    """Drive the stochastic Adams solver, whose corrector goes back to the sample before.

    Raises:
        ValueError: See `VPSigmaBridge`; and for thresholding with "noise_prediction", which fails there.
    """

    kept_sample = "last_sample"
    least_steps_on_eps: ClassVar[int] = 25
    """Below which the solver of eps is unstable: of normal data with a spread of 0.2 it makes 1.5 with 20, 41 with 12."""

    @property
    def reads_x_0(self) -> bool:
        """Whether the solver integrates x_0; otherwise it integrates eps."""
        return self.scheduler.config.algorithm_type == "data_prediction"

    def _check_schedule(self, num_inference_steps: int | None) -> None:
        super()._check_schedule(num_inference_steps)
        if not self.reads_x_0 and len(self._timesteps()) < self.least_steps_on_eps:
            raise ValueError(
                f'{self._name} with algorithm_type="noise_prediction" draws noise in fewer than {self.least_steps_on_eps} '
                'steps; take as many, or algorithm_type="data_prediction".'
            )

    def _growth(self, before: tuple[float, float], now: tuple[float, float]) -> float:
        growth = super()._growth(before, now)
        if not self.reads_x_0:
            return growth
        # Its noise takes some more of what came before; tau says how much.
        tau = float(self.scheduler.tau_func(self.scheduler.timestep_list[-1]))
        half_log_snr_gain = math.log(now[0] / now[1]) - math.log(before[0] / before[1])
        return growth * math.exp(tau**2 * half_log_snr_gain)

    def _problem(self) -> str | None:
        if self.scheduler.config.thresholding and not self.reads_x_0:
            return "cannot threshold while it integrates eps; make it with thresholding=False: the stage thresholds."
        return super()._problem()
