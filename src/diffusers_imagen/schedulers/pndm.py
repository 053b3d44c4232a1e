# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""Drive PNDM, which starts with Runge-Kutta stages and goes on with a linear multistep. Chosen by `bridge.py`."""

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from diffusers_imagen.schedulers.vp_index import VPIndexBridge


class PNDMBridge(VPIndexBridge):
    """Drive PNDM (arXiv:2202.09778).

    It visits each of the first four noise levels three times and the level between two of them twice, so that it
    evaluates the model `num_inference_steps` + 9 times; with `skip_prk_steps=True` it visits one level twice. It mixes
    the outputs of several noise levels, which is exact for eps only: as v its error is ten times larger. Its steps are
    those of "leading" spacing whatever the setting says, and so that is how the noise levels are laid out.
    """

    prediction_types: ClassVar[tuple[str, ...]] = ("epsilon", "v_prediction")

    def _corrections(self, config: Mapping[str, Any]) -> dict[str, Any]:
        corrections = super()._corrections(config)
        if config["timestep_spacing"] != "leading":
            corrections["timestep_spacing"] = "leading"
        return corrections

    def _lay_out(self, request: dict[str, Any], device: Any) -> None:
        if request["num_inference_steps"] < 4 and not self.scheduler.config.skip_prk_steps:
            raise ValueError("its Runge-Kutta stages need 4 steps or more; make it with skip_prk_steps=True.")
        super()._lay_out(request, device)

    def _falling(self) -> Tensor:
        return torch.unique_consecutive(self._timesteps())
