# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""A Diffusers guider at work in one stage: which predictions it wants, and what it makes of them.

Guiders count steps and gather momentum in themselves; here this is kept apart, so that a guider is as it was after a
call and may serve several stages. Called by the sampling loop.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from diffusers.guiders.guider_utils import BaseGuidance
from torch import Tensor

from diffusers_imagen.diffusion.prediction import from_x_0, to_x_0
from diffusers_imagen.guiders.catalogue import OWN, Driven, verdict_on
from diffusers_imagen.guiders.unet_auto_guidance import UNetAutoGuidance
from diffusers_imagen.models.stage_model import StageModel

_NEGATIVE = "negative"


@dataclass(frozen=True)
class StageGuider:
    """A guider that was found fit for a stage.

    Args:
        guider: the user's.
        worse: the worse network that it moves away from, if it wants one.
    """

    guider: BaseGuidance
    worse: StageModel | None = None

    @property
    def scale(self) -> float:
        """The guider's weight of the text, where it has one."""
        return float(getattr(self.guider, "guidance_scale", 1.0))


@dataclass(frozen=True)
class Wanted:
    """A prediction that a guider wants.

    Args:
        negative: with the negative text, not with the text.
        worse: from the worse network, not from the stage's.
    """

    negative: bool = False
    worse: bool = False


class GuiderRun:
    """A guider in one run through the steps of a stage, for pictures that go through the U-Net together.

    What a callback changes in the user's guider, such as its scale, counts from the next step on.

    Args:
        stage_guider: the guider and its worse network.
    """

    def __init__(self, stage_guider: StageGuider) -> None:
        self.worse = stage_guider.worse
        self.wanted: list[Wanted] = []
        self._guider = stage_guider.guider
        verdict = verdict_on(self._guider)
        self._driven = verdict if isinstance(verdict, Driven) else OWN
        self._state: dict[str, Any] = {}
        self._running: Any = None
        self._batches: list[Any] = []

    def begin_step(self, index: int, num_steps: int, timestep: Tensor) -> None:
        """Have `wanted` say which predictions the guider wants, the one that it guides first.

        Args:
            index: of the model's evaluation in the run, from 0.
            num_steps: how many evaluations the run has.
            timestep: the scheduler's.
        """
        self._running = copy.copy(self._guider)
        vars(self._running).update(self._state)
        self._running.set_state(index, num_steps, timestep)
        # At the first step guiders empty their memory here, also where they do not guide.
        self._batches = self._running.prepare_inputs({_NEGATIVE: (False, True)})
        self.wanted = [self._wanted(batch) for batch in self._batches]

    def guide(self, predictions: Sequence[Tensor], x_t: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """Return the guided clean pictures (B, C, H, W).

        Args:
            predictions: clean pictures (B, C, H, W), in the order of `wanted`.
            x_t: (B, C, H, W), the noisy pictures, alpha * x_0 + sigma * eps.
            alpha: (B,), scale of the clean pictures.
            sigma: (B,), scale of the noise.
        """
        space, shape = self._driven.space, x_t.shape
        for batch, x_0 in zip(self._batches, predictions, strict=True):
            given = from_x_0(x_0, x_t, alpha, sigma, space)
            batch.noise_pred = given.flatten(1) if self._driven.flat else given
        guided = self._running(self._batches).pred
        unguided = guided is self._batches[0].noise_pred
        self._keep_state()
        return predictions[0] if unguided else to_x_0(guided.reshape(shape), x_t, alpha, sigma, space)

    def _wanted(self, batch: Any) -> Wanted:
        fields = batch.as_dict()
        negative = fields.pop(_NEGATIVE)
        # What is left is the prediction's name. A "pred_cond_..." is one with the text, whatever Diffusers put beside it:
        # alone beside "pred_cond" it would get the negative one.
        (name,) = fields.values()
        is_worse = name == self._driven.worse
        with_text = name.startswith("pred_cond") or (is_worse and isinstance(self._guider, UNetAutoGuidance))
        return Wanted(negative and not with_text, is_worse)

    def _keep_state(self) -> None:
        """Note what the step has changed, and let go of the predictions."""
        before = vars(self._guider)
        self._state = {key: value for key, value in vars(self._running).items() if before.get(key) is not value}
        self._running, self._batches = None, []
