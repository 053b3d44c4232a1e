# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""Drive UnCLIP's scheduler, a DDPM that must be told where each step leads. Chosen by `bridge.py`."""

import itertools
from collections.abc import Mapping
from typing import Any, ClassVar

from diffusers.schedulers.scheduling_utils import SchedulerMixin
from torch import Tensor

from diffusers_imagen.schedulers.family import Generators
from diffusers_imagen.schedulers.vp_index import DDPMBridge


class UnCLIPBridge(DDPMBridge):
    """Drive UnCLIP's scheduler: without `prev_timestep` it would step back by a single index.

    It knows two kinds of variance; another one, taken over from a DDPM, is driven as "fixed_small_log".
    """

    prediction_types: ClassVar[tuple[str, ...]] = ("sample", "epsilon")
    fixed_variance = "fixed_small_log"

    def __init__(self, scheduler: SchedulerMixin) -> None:
        super().__init__(scheduler)
        if self.scheduler is not scheduler:
            # Its step reads this attribute instead of the setting.
            self.scheduler.variance_type = self.scheduler.config.variance_type
        self._next: dict[int, int] = {}

    def _corrections(self, config: Mapping[str, Any]) -> dict[str, Any]:
        corrections = super()._corrections(config)
        if config["variance_type"] in ("fixed_small", "fixed_large", "fixed_large_log"):
            corrections["variance_type"] = self.fixed_variance
        return corrections

    def _lay_out(self, request: dict[str, Any], device: Any) -> None:
        if request["num_inference_steps"] == 1:
            raise ValueError("it needs 2 steps or more.")
        super()._lay_out(request, device)
        timesteps = self.scheduler.timesteps.tolist()
        self._next = dict(itertools.pairwise(timesteps))

    def _advance(self, output: Tensor, t: Tensor, sample: Tensor, generator: Generators) -> Tensor:
        following = self._next.get(int(t))
        return self.scheduler.step(output, t, sample, prev_timestep=following, generator=generator).prev_sample
