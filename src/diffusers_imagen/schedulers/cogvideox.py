# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""Drive CogVideoX's DPM solver, which has its caller remember the step before. Chosen by `bridge.py`."""

from typing import Any

from diffusers.schedulers.scheduling_utils import SchedulerMixin
from torch import Tensor

from diffusers_imagen.schedulers.family import Generators
from diffusers_imagen.schedulers.vp_index import UnclippedVPIndexBridge


class CogVideoXDPMBridge(UnclippedVPIndexBridge):
    """Drive CogVideoXDPM, a stochastic DPM-Solver++ of second order."""

    def __init__(self, scheduler: SchedulerMixin) -> None:
        super().__init__(scheduler)
        self._before: tuple[Tensor | None, Tensor | None] = (None, None)

    def _lay_out(self, request: dict[str, Any], device: Any) -> None:
        super()._lay_out(request, device)
        self._before = (None, None)

    def _advance(self, output: Tensor, t: Tensor, sample: Tensor, generator: Generators) -> Tensor:
        x_0_before, t_before = self._before
        result, x_0 = self.scheduler.step(
            output, x_0_before, t, t_before, sample, generator=generator, return_dict=False
        )
        self._before = (x_0, t)
        return result
