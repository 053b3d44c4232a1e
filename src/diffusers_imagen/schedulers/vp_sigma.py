# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""Drive schedulers that hold sigma / alpha per step and walk in the variance-preserving space.

With `use_flow_sigmas` they walk in the flow-matching space, alpha = 1 - sigma, instead. Chosen by `bridge.py`.
"""

import math
from collections.abc import Sequence

import torch
from diffusers.schedulers.scheduling_utils import SchedulerMixin
from torch import Tensor

from diffusers_imagen.diffusion.prediction import from_x_0
from diffusers_imagen.schedulers.family import SchedulerBridge

_SPACINGS = ("use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas", "use_lu_lambdas")


class VPSigmaBridge(SchedulerBridge):
    """Drive DPM-Solver++ and its kin.

    A learned variance is ignored, as their formulas have no place for it.

    Raises:
        ValueError: If the scheduler's settings contradict one another or make NaN.
    """

    prediction_types = ("epsilon", "sample", "v_prediction", "flow_prediction")
    clipping_options = (("thresholding", "sample_max_value"),)

    def __init__(self, scheduler: SchedulerMixin) -> None:
        super().__init__(scheduler)
        problem = self._problem()
        if problem:
            raise ValueError(f"{self._name} {problem}")

    def set_timesteps(
        self,
        num_inference_steps: int | None,
        device: str | torch.device | None,
        timesteps: Sequence[float] | None = None,
        sigmas: Sequence[float] | None = None,
    ) -> Tensor:
        """Lay out the steps; see `SchedulerBridge.set_timesteps`."""
        if timesteps is not None and self.scheduler.config.use_flow_sigmas:
            raise ValueError(
                f"`timesteps` cannot be set for {self._name} with use_flow_sigmas=True; give `num_inference_steps`."
            )
        return super().set_timesteps(num_inference_steps, device, timesteps, sigmas)

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

    def _problem(self) -> str | None:
        """Say what cannot work in the scheduler's settings, and the remedy."""
        config = self.scheduler.config
        spacing = next((option for option in _SPACINGS if config[option]), None)
        predicts_x_0 = config.algorithm_type.endswith("++")
        if config.algorithm_type == "sde-dpmsolver":
            return 'has algorithm_type "sde-dpmsolver", which diverges at large noise; take "sde-dpmsolver++".'
        if config.prediction_type == "flow_prediction" and not config.use_flow_sigmas:
            return (
                'has prediction_type="flow_prediction" but walks in the variance-preserving space; make it with '
                'use_flow_sigmas=True too, or with prediction_type="sample".'
            )
        if config.use_flow_sigmas and spacing:
            return f"has use_flow_sigmas and {spacing}, which are in different units; make it with one of the two."
        if config.use_flow_sigmas and not predicts_x_0 and config.prediction_type not in ("epsilon", "sample"):
            return (
                f'has algorithm_type "{config.algorithm_type}", whose {config.prediction_type} is not made for '
                'use_flow_sigmas; make it with prediction_type="sample" or algorithm_type="dpmsolver++".'
            )
        curved = config.solver_order > 2 or (config.solver_order == 2 and config.solver_type == "heun")
        if config.final_sigmas_type == "sigma_min" and spacing and curved:
            return (
                f'with {spacing} and final_sigmas_type="sigma_min" divides by a last step of length zero; make it '
                'with solver_order=2 and solver_type="midpoint".'
            )
        return None
