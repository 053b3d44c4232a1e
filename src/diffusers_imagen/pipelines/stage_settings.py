# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""How a stage samples: its settings, their defaults, and the arguments of a call laid over them."""

import math
import numbers
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, get_args

from diffusers_imagen.diffusion.resize import ResizeMode
from diffusers_imagen.diffusion.thresholding import ThresholdMode

STAGES = ("base", "sr_1", "sr_2")
# A slip of the finger beyond this would run for days; no scheduler gains anything there.
MAX_STEPS = 10_000


@dataclass(frozen=True, kw_only=True)
class StageSettings:
    """Settings of one stage, saved in a checkpoint's `stages` and changed by the arguments of a call."""

    num_inference_steps: int = 50
    """Steps, from 1 to `MAX_STEPS`."""
    guidance_scale: float = 5.0
    """Weight of the text, Imagen's w; 1 switches guidance off and halves the cost."""
    guidance_rescale: float = 0.0
    """In [0, 1], how far the guided picture's contrast is brought back (arXiv:2305.08891)."""
    guidance_interval: tuple[float, float] = (0.0, 1.0)
    """Two fractions of the steps, a tuple or (from JSON) a list, between which guidance is on (arXiv:2404.07724)."""
    thresholding: ThresholdMode = "dynamic"
    """"dynamic" (Imagen, section 2.3), "static" or "none"."""
    threshold_percentile: float = 0.995
    """In (0, 1], of the absolute pixel values; the paper's is 0.995."""
    threshold_max: float | None = None
    """Upper bound of the dynamic threshold, at least 1; `None` for none."""
    noise_level: float = 0.0
    """In [0, 1], noise added to the smaller picture before it is enlarged; none for a base."""
    resize: ResizeMode = "bicubic"
    """How the smaller picture is brought to this stage's size."""
    keep_color: bool = False
    """Whether an enlargement has the mean colour of the smaller picture at every step; nothing to a base."""
    max_batch_size: int | None = None
    """Pictures that the U-Net gets at once, at least 1, twice as many rows with guidance; `None` for all of them."""
    noise: Mapping[str, Any] | None = None
    """What a foreign U-Net was trained on, as its adapter takes it; `None` for those whose config says it."""

    def __post_init__(self) -> None:
        _check_settings(self)


def default_settings(stage: str) -> StageSettings:
    """Return what a stage does where its checkpoint says nothing: a guided base, unguided enlargements."""
    if stage == "base":
        return StageSettings()
    return StageSettings(num_inference_steps=20, guidance_scale=1.0, noise_level=0.1)


def saved_settings(saved: Mapping[str, Any] | None) -> dict[str, StageSettings]:
    """Return the settings of every stage from a checkpoint's `stages`.

    Raises:
        ValueError: an unknown stage or setting, or a value out of range.
    """
    saved = {} if saved is None else saved
    if not isinstance(saved, Mapping):
        raise ValueError(f"`stages` is {saved!r}, but must map stage names to settings.")
    _check_names("stages", saved)
    known = {item.name for item in fields(StageSettings)}
    settings = {}
    for stage in STAGES:
        values = saved.get(stage) or {}
        if not isinstance(values, Mapping):
            raise ValueError(f"`stages[{stage!r}]` is {values!r}; give a mapping from settings to values.")
        unknown = sorted(set(values) - known)
        if unknown:
            raise ValueError(f"`stages[{stage!r}]` holds {unknown}, but the settings are {sorted(known)}.")
        settings[stage] = replace(default_settings(stage), **values)
    return settings


def override_settings(
    settings: dict[str, StageSettings], arguments: Mapping[str, Any], stages: Sequence[str]
) -> dict[str, StageSettings]:
    """Lay the arguments of a call over saved settings.

    Args:
        settings: each stage's saved settings.
        arguments: for each name of a setting `None` (keep what is saved), one value, which sets the base, or a
            mapping from stage names to values.
        stages: the stages that this cascade has; naming another is refused.

    Raises:
        ValueError: a stage that the cascade does not have, or a value out of range.
    """
    changes: dict[str, dict[str, Any]] = {stage: {} for stage in settings}
    for name, argument in arguments.items():
        for stage, value in per_stage(name, argument, stages).items():
            changes[stage][name] = value
    result = {stage: replace(settings[stage], **changes[stage]) for stage in settings}
    if "noise_level" in changes["base"] and result["base"].noise_level:
        raise ValueError(
            f"`noise_level` is {arguments['noise_level']!r}, but the base has no smaller picture to add noise to; "
            'name the enlargement: noise_level={"sr_1": ...}.'
        )
    return result


def per_stage(name: str, argument: Any, stages: Sequence[str]) -> dict[str, Any]:
    """Return an argument as a mapping from stages: `None` sets none, a mapping those it names, else the base.

    Raises:
        ValueError: a mapping that names a stage that is not in `stages`.
    """
    if argument is None:
        return {}
    if not isinstance(argument, Mapping):
        return {"base": argument}
    _check_names(name, argument, stages)
    return dict(argument)


def for_every_stage(argument: Any, stages: Sequence[str]) -> Any:
    """Return an argument whose single value is for all stages, not for the base, as the mapping that says so."""
    return argument if argument is None or isinstance(argument, Mapping) else dict.fromkeys(stages, argument)


def _check_names(name: str, mapping: Mapping[str, Any], stages: Sequence[str] = STAGES) -> None:
    for stage in mapping:
        if stage not in stages:
            raise ValueError(f"`{name}` names the stage {stage!r}, but the stages are {', '.join(stages)}.")


def _check_settings(settings: StageSettings) -> None:
    steps = settings.num_inference_steps
    if not is_integer(steps) or not 1 <= steps <= MAX_STEPS:
        raise ValueError(f"`num_inference_steps` is {steps!r}; give a whole number from 1 to {MAX_STEPS}.")
    at_once = settings.max_batch_size
    if at_once is not None and (not is_integer(at_once) or at_once < 1):
        raise ValueError(f"`max_batch_size` is {at_once!r}; give a whole number of at least 1, or None for no limit.")
    _check_number("guidance_scale", settings.guidance_scale, -math.inf, math.inf)
    _check_number("guidance_rescale", settings.guidance_rescale, 0, 1)
    _check_number(
        "noise_level", settings.noise_level, 0, 1, hint=" It is a share, not a timestep: for 250 of 1000 0.25."
    )
    _check_number("threshold_percentile", settings.threshold_percentile, 0, 1)
    if settings.threshold_percentile == 0:
        raise ValueError("`threshold_percentile` is 0; give a share above 0, such as 0.995.")
    if settings.threshold_max is not None:
        _check_number("threshold_max", settings.threshold_max, 1, math.inf)
    for name, value, allowed in (
        ("thresholding", settings.thresholding, get_args(ThresholdMode)),
        ("resize", settings.resize, get_args(ResizeMode)),
    ):
        if value not in allowed:
            raise ValueError(f"`{name}` is {value!r}; choose one of {', '.join(allowed)}.")
    if not isinstance(settings.keep_color, bool):
        raise ValueError(f"`keep_color` is {settings.keep_color!r}; give True or False.")
    interval = settings.guidance_interval
    is_pair = isinstance(interval, list | tuple) and len(interval) == 2 and all(map(is_number, interval))
    if not (is_pair and 0 <= interval[0] <= interval[1] <= 1):
        raise ValueError(
            f"`guidance_interval` is {interval!r}; give two fractions of the steps, 0 <= start <= stop <= 1."
        )


def _check_number(name: str, value: Any, low: float, high: float, hint: str = "") -> None:
    if not (is_number(value) and low <= value <= high):
        bounds = "a finite number" if high == math.inf and low == -math.inf else f"a number from {low} to {high}"
        raise ValueError(f"`{name}` is {value!r}; give {bounds}.{hint}")


def is_number(value: Any) -> bool:
    """Say whether a value is a finite number, Python's or NumPy's, and no truth value."""
    return not isinstance(value, bool) and isinstance(value, numbers.Real) and math.isfinite(value)


def is_integer(value: Any) -> bool:
    """Say whether a value is a whole number, Python's or NumPy's, and no truth value."""
    return not isinstance(value, bool) and isinstance(value, numbers.Integral)
