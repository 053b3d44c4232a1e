# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""Send a run's scalars to TensorBoard, trackio, wandb and others through Accelerate's trackers. Called by the loop."""

import importlib.util
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from accelerate import Accelerator
from accelerate.tracking import LOGGER_TYPE_TO_CLASS

from diffusers_imagen.training.config import TrainConfig

_PROJECT = "diffusers-imagen"


def tracker_names(config: TrainConfig) -> list[str]:
    """Give the names of the run's trackers; without a choice TensorBoard if it is installed.

    Raises:
        ValueError: If one is unknown or not installed.
    """
    if config.trackers is None:
        return ["tensorboard"] if importlib.util.find_spec("tensorboard") else []
    known = sorted(map(str, LOGGER_TYPE_TO_CLASS))
    for name in config.trackers:
        if name not in known:
            raise ValueError(f"`trackers` names {name!r}; choose of {', '.join(known)}.")
        if importlib.util.find_spec(name) is None:
            raise ValueError(f"`trackers` names {name!r}, which is not installed; run `pip install {name}`.")
    return list(config.trackers)


def start_trackers(accelerator: Accelerator, config: TrainConfig, step: int) -> None:
    """Start the trackers of a run in its main process.

    Args:
        accelerator: That knows their names.
        config: Written down as the run's settings.
        step: Steps made so far; what TensorBoard has beyond is of a run that was killed, and is hidden.
    """
    if accelerator.log_with:
        options = {"tensorboard": {"purge_step": step + 1}}
        accelerator.init_trackers(_PROJECT, _flat(asdict(config)), options)


def track(accelerator: Accelerator, values: Mapping[str, float], step: int) -> None:
    """Send the scalars of a step to all trackers; those without a tracker go nowhere."""
    accelerator.log({name: value for name, value in values.items() if name != "step"}, step=step)


def stop_trackers(accelerator: Accelerator) -> None:
    """Let all trackers write what they hold; unlike `end_training`, processes can go on together."""
    for tracker in accelerator.trackers:
        tracker.finish()


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Give nested settings as `section.name`, with values that every tracker takes."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value if isinstance(value, bool | int | float | str) else str(value)
    return flat
