# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""Say what the sampling loop asks of a scheduler, and what all families of schedulers share.

The families are in the files beside this one and the choice among them in `bridge.py`.
"""

import copy
import inspect
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from diffusers.schedulers.scheduling_utils import SchedulerMixin
from torch import Tensor

Generators = torch.Generator | list[torch.Generator] | None

# Settings by which schedulers clip x_0 themselves, each with the one that says to which range.
_CLIPPING: Mapping[str, str | None] = {
    "thresholding": "sample_max_value",
    "clip_sample": "clip_sample_range",
    "clip_denoised": None,
}
# Ways to write x_0 that a scheduler may stand in for one another: the stage's model keeps its own.
_INTERCHANGEABLE = ("epsilon", "sample", "original_sample", "v_prediction")
# float32 has 7 digits: below an alpha of 1e-6 next to none of x_0 is left in eps.
_LEAST_ALPHA_SQUARED = 1e-12
# Beyond this no noise is more, and float32 loses the last sigmas beside it.
_LARGEST_SIGMA = 1e6
# What set_timesteps raises when it is asked for what it cannot do.
_LAYOUT_ERRORS = (ValueError, TypeError, IndexError, ArithmeticError, AssertionError, RuntimeError)


class SchedulerBridge(ABC):
    """Stand between the sampling loop, which knows x_0, and a scheduler, which wants a model output.

    The scheduler is used as it is: nothing but its own `set_timesteps`, `set_begin_index` and `step` changes it. Where
    it carries a setting from another class that its own `step` does not know, such as `prediction_type="sample"` in a
    scheduler that reads eps and v only, a copy without that setting is driven: for the picture it makes no difference.

    Clipping: some schedulers clip x_0 themselves (`clip_sample`, `thresholding`). After the stage's own thresholding
    x_0 lies within [-1, 1], where theirs changes nothing, so it is let through; a narrower range is refused. A stage
    without thresholding is another matter, since such a scheduler would threshold after all: `clips_x_0` tells.

    Args:
        scheduler: A Diffusers scheduler of this family.

    Raises:
        ValueError: If the scheduler's config asks for something that cannot work.
    """

    family: ClassVar[str]
    """What `diffusers-imagen schedulers` calls the family."""

    prediction_types: ClassVar[tuple[str, ...]] = ()
    """Values of `prediction_type` that `step` understands, the most exact one first; empty if it reads none."""

    clips: ClassVar[bool] = True
    """Whether `step` really clips when the settings say so."""

    kept_sample: ClassVar[str | None] = None
    """Attribute in which the scheduler keeps an earlier sample that its next step starts from."""

    needs_float64: ClassVar[bool] = False
    """Whether the scheduler's own sums cancel so much that float32 would show in the picture."""

    def __init__(self, scheduler: SchedulerMixin) -> None:
        self._name = type(scheduler).__name__
        _check_noise_schedule(scheduler)
        corrections = self._corrections(scheduler.config)
        if _reads_eps_where_it_says_nothing(scheduler, corrections) and "sample" in self.prediction_types:
            corrections["prediction_type"] = "sample"
        self.scheduler = with_settings(scheduler, corrections)
        self._returned: tuple[Tensor, tuple[float, float]] | None = None
        parameters = inspect.signature(type(scheduler).__init__).parameters
        known = [option for option in _CLIPPING if option in parameters and self.clips]
        self._clipping = [option for option in known if scheduler.config[option]]
        for option in self._clipping:
            limit = _CLIPPING[option]
            if limit is not None and scheduler.config[limit] < 1:
                raise ValueError(
                    f"`{limit}` of {self._name} is {scheduler.config[limit]}, narrower than images in [-1, 1]; make "
                    f"it with {option}=False, since the stage thresholds x_0 itself."
                )

    @property
    def init_noise_sigma(self) -> float:
        """Standard deviation of the noise that sampling starts from; known after `set_timesteps`."""
        return float(getattr(self.scheduler, "init_noise_sigma", 1.0))

    @property
    def needs_variance(self) -> bool:
        """Whether `step` works only with a learned variance, which not every stage's model gives."""
        return False

    @property
    def accepts_variance(self) -> bool:
        """Whether `step` makes use of a learned variance; any other scheduler ignores it."""
        return self.needs_variance

    @property
    def clips_x_0(self) -> bool:
        """Whether the scheduler clips x_0 itself, so that a stage without thresholding would still be clipped."""
        return bool(self._clipping)

    def set_timesteps(
        self,
        num_inference_steps: int | None,
        device: str | torch.device | None,
        timesteps: Sequence[float] | None = None,
        sigmas: Sequence[float] | None = None,
    ) -> Tensor:
        """Lay out the steps and start before the first one.

        Args:
            num_inference_steps: How many steps; None with `timesteps` or `sigmas`.
            device: Where the timesteps shall lie.
            timesteps: Custom timesteps instead, as the scheduler's own `set_timesteps` takes them.
            sigmas: Custom noise levels instead, likewise; the 0 of the clean picture may be left out.

        Returns:
            The timesteps to walk through, one for each evaluation of the model and as many as `num_inference_steps`
            or up to twice as many, each of them to be passed to `step` as it is.

        Raises:
            ValueError: If not exactly one of the three is given, if the scheduler does not take it, or if it cannot
                make a falling sequence of noise levels of it.
        """
        request = {"num_inference_steps": num_inference_steps, "timesteps": timesteps, "sigmas": sigmas}
        request = {name: value for name, value in request.items() if value is not None}
        self._check_request(request)
        self._returned = None
        try:
            self._lay_out(request, device)
        except _LAYOUT_ERRORS as error:
            ((name, value),) = request.items()
            raise ValueError(f"{self._name} cannot lay out `{name}` {value}: {error}") from error
        if hasattr(self.scheduler, "set_begin_index"):
            # Karras and other spacings repeat timesteps, and a search by value would start at the second.
            self.scheduler.set_begin_index(0)
        self._check_schedule(num_inference_steps)
        return self._timesteps()

    @abstractmethod
    def noise_level(self, t: Tensor) -> tuple[float, float]:
        """Say how noisy the sample is at the evaluation that the next `step` consumes.

        Args:
            t: The element of the timesteps that this evaluation is for.

        Returns:
            (alpha, sigma) in float64, with sample = alpha * x_0 + sigma * eps; alpha may be 0.
        """

    @abstractmethod
    def model_output(self, x_0: Tensor, sample: Tensor, t: Tensor, variance: Tensor | None = None) -> Tensor:
        """Write x_0 as the raw model output that the scheduler's `step` expects.

        Args:
            x_0: Predicted clean images (B, C, H, W).
            sample: Current sample (B, C, H, W) in the scheduler's own space.
            t: The element of the timesteps.
            variance: Learned variance (B, C, H, W) as the network gave it, or None.

        Returns:
            The model output (B, C, H, W), float32 at least; (B, 2 C, H, W) where the variance is appended.
        """

    def step(
        self,
        x_0: Tensor,
        t: Tensor,
        sample: Tensor,
        variance: Tensor | None = None,
        generator: Generators = None,
    ) -> Tensor:
        """Go one step towards the clean image.

        Args:
            x_0: Predicted clean images (B, C, H, W).
            t: The element of the timesteps.
            sample: Current sample (B, C, H, W), the one returned last or a changed one.
            variance: Learned variance (B, C, H, W), or None.
            generator: Source of the noise that the scheduler adds, one or one per image; unused by most.

        Returns:
            The next sample (B, C, H, W). Where the scheduler would end with a step of length zero, and so throw the
            prediction at the least noise away, that prediction is the result.
        """
        if self._ends_with_x_0(t):
            return x_0.to(sample.dtype)
        dtype = sample.dtype
        if self.needs_float64 and sample.device.type != "mps":
            x_0, sample = x_0.double(), sample.double()
        output = self.model_output(x_0, sample, t, variance)
        if getattr(self.scheduler, "is_scale_input_called", True) is False:
            # The loop scales the sample itself; without this call on an empty one the scheduler would warn.
            self.scheduler.scale_model_input(sample[:0], t)
        if self.kept_sample is None:
            return self._advance(output, t, sample, generator).to(dtype)
        level = self.noise_level(t)
        self._pass_changes_on(sample, level)
        result = self._advance(output, t, sample, generator).to(dtype)
        self._returned = (result.clone(), level)
        return result

    def _corrections(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """Give the settings to be driven with where `step` does not know the scheduler's own."""
        kind = config.get("prediction_type")
        if not self.prediction_types or kind in self.prediction_types:
            return {}
        if kind not in _INTERCHANGEABLE:
            raise ValueError(
                f"`prediction_type` of {self._name} is {kind!r}, which its step() does not know; make it with one of "
                f"{', '.join(self.prediction_types)}. Any will do: the stage's model keeps its own."
            )
        return {"prediction_type": self.prediction_types[0]}

    def _lay_out(self, request: dict[str, Any], device: str | torch.device | None) -> None:
        """Have the scheduler lay out its steps; the request has one entry, named as in `set_timesteps`."""
        self.scheduler.set_timesteps(**request, device=device)

    def _advance(self, output: Tensor, t: Tensor, sample: Tensor, generator: Generators) -> Tensor:
        """Have the scheduler take the step."""
        if "generator" in inspect.signature(self.scheduler.step).parameters:
            return self.scheduler.step(output, t, sample, generator=generator).prev_sample
        return self.scheduler.step(output, t, sample).prev_sample

    def _ends_with_x_0(self, t: Tensor) -> bool:
        """Say whether this is the last step and its result is x_0: here if it leads to the noise level where it starts."""
        if not (hasattr(self.scheduler, "sigmas") and hasattr(self.scheduler, "step_index")):
            return False
        index = self._step_index(t)
        return index == len(self._timesteps()) - 1 and math.isclose(*self.scheduler.sigmas[-2:], rel_tol=1e-4)

    def _pass_changes_on(self, sample: Tensor, level: tuple[float, float]) -> None:
        """Let a scheduler that goes on from an earlier sample know what was changed in the one it returned since."""
        if self.kept_sample is None or self._returned is None:
            return
        returned, level_before = self._returned
        kept = getattr(self.scheduler, self.kept_sample)
        if kept is not None:
            growth = self._growth(level_before, level)
            setattr(self.scheduler, self.kept_sample, kept + (sample - returned) * growth)

    def _growth(self, before: tuple[float, float], now: tuple[float, float]) -> float:
        """Say by what a change of the sample has to grow so that the step from the earlier level scales it back."""
        return before[1] / now[1]

    def _timesteps(self) -> Tensor:
        return self.scheduler.timesteps

    def _falling(self) -> Tensor:
        """Give the numbers that have to fall from step to step; of two evaluations for a step the first one's."""
        return self.scheduler.sigmas[: len(self._timesteps()) : getattr(self.scheduler, "order", 1)]

    def _largest_timestep(self) -> float:
        return self.scheduler.config.num_train_timesteps - 1

    def _step_index(self, t: Tensor) -> int:
        """Give the place of the next evaluation in the scheduler's list of noise levels."""
        for index in (self.scheduler.step_index, self.scheduler.begin_index):
            if index is not None:
                return index
        return self.scheduler.index_for_timestep(t)

    def _check_request(self, request: Mapping[str, Any]) -> None:
        if len(request) != 1:
            raise ValueError(
                "Give exactly one of `num_inference_steps`, `timesteps` and `sigmas`, not "
                f"{' and '.join(f'`{name}`' for name in request) or 'none of them'}."
            )
        ((name, value),) = request.items()
        if isinstance(value, Sequence) and len(value) == 0:
            raise ValueError(f"`{name}` is empty; give at least one.")
        if isinstance(value, int) and value < 1:
            raise ValueError(f"`{name}` is {value}; give 1 or more.")
        if name not in inspect.signature(self.scheduler.set_timesteps).parameters:
            raise ValueError(f"`{name}` cannot be set for {self._name}; give `num_inference_steps`.")
        if name == "sigmas":
            # The clean picture may stand at the end alone: from it nothing is left to go.
            wrong = [s for s in value[:-1] or value if not 0 < s <= _LARGEST_SIGMA] + [
                s for s in value[-1:] if not s >= 0
            ]
            if wrong:
                raise ValueError(
                    f"`sigmas` holds {wrong[0]}; give numbers above 0 and up to {_LARGEST_SIGMA:g}, after which a single 0 may stand."
                )
        if name == "timesteps":
            wrong = [t for t in value if not 0 <= t <= self._largest_timestep()]
            if wrong:
                raise ValueError(f"`timesteps` holds {wrong[0]}; give numbers from 0 to {self._largest_timestep():g}.")

    def _check_schedule(self, num_inference_steps: int | None) -> None:
        timesteps, falling = self._timesteps(), self._falling()
        if len(timesteps) == 0 or not bool((falling.diff() < 0).all()):
            request = (
                "the custom steps" if num_inference_steps is None else f"`num_inference_steps` {num_inference_steps}"
            )
            raise ValueError(
                f"{self._name} makes noise levels that do not fall from step to step out of {request}; give fewer "
                "steps, or custom ones in falling order."
            )
        alpha, sigma = self.noise_level(timesteps[0])
        if alpha < 0 or sigma < 0:
            raise ValueError(f"`sigmas` starts at {sigma:g}, beyond pure noise for {self._name}; give at most 1.")
        if num_inference_steps is not None and not sigma > alpha:
            raise ValueError(
                f"`num_inference_steps` is {num_inference_steps}, and {self._name} would take the noise that sampling "
                f'starts from for an almost clean image; make it with timestep_spacing="trailing", or take more steps.'
            )


def _check_noise_schedule(scheduler: SchedulerMixin) -> None:
    """Refuse a noise schedule that is none: Diffusers' constructors make one of any numbers."""
    name, count = type(scheduler).__name__, scheduler.config.get("num_train_timesteps", 1)
    if count < 1:
        raise ValueError(f"`num_train_timesteps` of {name} is {count}; make it with 1 or more, usually 1000.")
    levels = getattr(scheduler, "alphas_cumprod", None)
    if not isinstance(levels, Tensor):
        return
    if len(levels) != count:
        raise ValueError(
            f"`trained_betas` of {name} holds {len(levels)} numbers for {count} `num_train_timesteps`; make it with as many."
        )
    betas = getattr(scheduler, "betas", levels.new_zeros(1))
    if not bool(((betas >= 0) & (betas <= 1)).all()):
        raise ValueError(
            f"The betas of {name} are not all between 0 and 1, so its noise does not grow from one timestep to the next; make "
            "it with `beta_start`, `beta_end` and `trained_betas` in that range. The stage's model keeps its own."
        )


def _reads_eps_where_it_says_nothing(scheduler: SchedulerMixin, corrections: Mapping[str, Any]) -> bool:
    """Say whether the noise schedule goes so far that eps, in float32, holds no digit of x_0."""
    levels = getattr(scheduler, "alphas_cumprod", None)
    kind = corrections.get("prediction_type", scheduler.config.get("prediction_type"))
    return kind == "epsilon" and isinstance(levels, Tensor) and 0 < float(levels.min()) < _LEAST_ALPHA_SQUARED


def with_settings(scheduler: SchedulerMixin, settings: dict[str, Any]) -> SchedulerMixin:
    """Give the scheduler itself, or a copy with other settings if there are any to be changed."""
    if not settings:
        return scheduler
    driven = copy.copy(scheduler)
    driven.register_to_config(**settings)
    return driven
