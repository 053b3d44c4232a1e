# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""Say what the sampling loop asks of a scheduler, and what all families of schedulers share.

The families are in the files beside this one and the choice among them in `bridge.py`.
"""

import inspect
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

import torch
from diffusers.schedulers.scheduling_utils import SchedulerMixin
from torch import Tensor


class SchedulerBridge(ABC):
    """Stand between the sampling loop, which knows x_0, and a scheduler, which wants a model output.

    The scheduler is used as it is: nothing but its own `set_timesteps`, `set_begin_index` and `step` changes it.

    Clipping: some schedulers clip x_0 themselves (`clip_sample`, `thresholding`). After the stage's own thresholding
    x_0 lies within [-1, 1], where theirs changes nothing, so it is let through; a narrower range is refused. A stage
    without thresholding is another matter, since such a scheduler would threshold after all: `clips_x_0` tells.

    Args:
        scheduler: A Diffusers scheduler of this family.

    Raises:
        ValueError: If the scheduler's config asks for something that cannot work.
    """

    prediction_types: ClassVar[tuple[str, ...]]
    """Values of the scheduler's `prediction_type` that its `step` understands; empty if it has no such setting."""

    clipping_options: ClassVar[tuple[tuple[str, str], ...]] = ()
    """Settings by which the scheduler clips x_0 itself, each with the one that says to which range."""

    def __init__(self, scheduler: SchedulerMixin) -> None:
        self.scheduler = scheduler
        self._name = type(scheduler).__name__
        self._step_takes_generator = "generator" in inspect.signature(scheduler.step).parameters
        if self.prediction_types and scheduler.config.prediction_type not in self.prediction_types:
            raise ValueError(
                f"`prediction_type` of {self._name} is {scheduler.config.prediction_type!r}, which its step() does "
                f"not know; make it with one of {', '.join(self.prediction_types)}. Any will do: the stage's model "
                "keeps its own."
            )
        for option, limit in self.clipping_options:
            if scheduler.config[option] and scheduler.config[limit] < 1:
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
        return any(self.scheduler.config[option] for option, _ in self.clipping_options)

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
            sigmas: Custom noise levels instead, likewise.

        Returns:
            The timesteps to walk through (steps,), each of them to be passed to `step` as it is.

        Raises:
            ValueError: If not exactly one of the three is given, if the scheduler does not take it, or if it cannot
                make a falling sequence of noise levels of it.
        """
        self._check_request({"num_inference_steps": num_inference_steps, "timesteps": timesteps, "sigmas": sigmas})
        if timesteps is not None:
            self.scheduler.set_timesteps(timesteps=list(timesteps), device=device)
        elif sigmas is not None:
            self.scheduler.set_timesteps(sigmas=list(sigmas), device=device)
        else:
            self.scheduler.set_timesteps(num_inference_steps, device=device)
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
        generator: torch.Generator | list[torch.Generator] | None = None,
    ) -> Tensor:
        """Go one step towards the clean image.

        Args:
            x_0: Predicted clean images (B, C, H, W).
            t: The element of the timesteps.
            sample: Current sample (B, C, H, W).
            variance: Learned variance (B, C, H, W), or None.
            generator: Source of the noise that the scheduler adds, one or one per image; unused by most.

        Returns:
            The next sample (B, C, H, W).
        """
        output = self.model_output(x_0, sample, t, variance)
        if self._step_takes_generator:
            return self.scheduler.step(output, t, sample, generator=generator).prev_sample
        return self.scheduler.step(output, t, sample).prev_sample

    def _timesteps(self) -> Tensor:
        return self.scheduler.timesteps

    def _falling(self) -> Tensor:
        """Give the numbers that have to fall from step to step."""
        return self.scheduler.sigmas[:-1]

    def _step_index(self, t: Tensor) -> int:
        """Give the place of the next evaluation in the scheduler's list of noise levels."""
        for index in (self.scheduler.step_index, self.scheduler.begin_index):
            if index is not None:
                return index
        return self.scheduler.index_for_timestep(t)

    def _check_request(self, request: dict[str, int | Sequence[float] | None]) -> None:
        given = [name for name, value in request.items() if value is not None]
        if len(given) != 1:
            raise ValueError(
                "Give exactly one of `num_inference_steps`, `timesteps` and `sigmas`, not "
                f"{' and '.join(f'`{name}`' for name in given) or 'none of them'}."
            )
        (name,) = given
        value = request[name]
        if isinstance(value, Sequence) and len(value) == 0:
            raise ValueError(f"`{name}` is empty; give at least one.")
        if name == "timesteps" and isinstance(value, Sequence):
            steps = self.scheduler.config.num_train_timesteps
            wrong = [t for t in value if not 0 <= t < steps]
            if wrong:
                raise ValueError(f"`timesteps` holds {wrong[0]}; give numbers from 0 to {steps - 1}.")
        if isinstance(value, int) and value < 1:
            raise ValueError(f"`{name}` is {value}; give 1 or more.")
        if name not in inspect.signature(self.scheduler.set_timesteps).parameters:
            raise ValueError(f"`{name}` cannot be set for {self._name}; give `num_inference_steps`.")

    def _check_schedule(self, num_inference_steps: int | None) -> None:
        timesteps, falling = self._timesteps(), self._falling()
        if not bool((falling.diff() < 0).all()):
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
