# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""The option `--scheduler` of `diffusers-imagen generate`: its text to a scheduler."""

import inspect
import json
from collections.abc import Mapping
from typing import Any

EXAMPLE = "base=DPMSolverMultistepScheduler:use_karras_sigmas=true:solver_order=3,sr_1=DDIMScheduler"
# What a class that shares nothing else takes over: how noise was added in training.
_BETAS = ("beta_schedule", "beta_start", "beta_end", "num_train_timesteps")


def parse_schedulers(text: str | None) -> dict[str, tuple[str, dict[str, Any]]]:
    """Read `Name:option=value` as the base's scheduler, and `base=Name:option=value,sr_1=Name` by stage.

    Args:
        text: what was given, or `None`.

    Returns:
        Class name and options by stage. Values are read as JSON (`true`, `3`, `null`), or else as words.

    Raises:
        ValueError: what is neither.
    """
    return parse_classes("scheduler", text, EXAMPLE)


def parse_classes(option: str, text: str | None, example: str) -> dict[str, tuple[str, dict[str, Any]]]:
    """Read classes with options by stage, as `parse_schedulers` says.

    Args:
        option: its name, for messages.
        text: what was given, or `None`.
        example: of what may be given.

    Raises:
        ValueError: what is neither.
    """
    wanted: dict[str, tuple[str, dict[str, Any]]] = {}
    for part in [] if text is None else text.split(","):
        head, *options = part.split(":")
        stage, _, name = head.rpartition("=")
        stage = stage.strip() or "base"
        pairs = [option.partition("=") for option in options]
        if not name.strip() or stage in wanted or not all(key.strip() and value for key, _, value in pairs):
            raise ValueError(f"`--{option}` is {text!r}; give a class name or stage=class pairs, such as {example}.")
        wanted[stage] = (name.strip(), {key.strip(): _value(value) for key, _, value in pairs})
    return wanted


def make_scheduler(name: str, options: dict[str, Any], present: Any) -> Any:
    """Make a scheduler by the name of its class, as far as possible from the configuration of another.

    Args:
        name: a scheduler class of Diffusers.
        options: arguments of its constructor.
        present: the scheduler whose place it takes.

    Raises:
        ValueError: a name that is no Diffusers scheduler, an option that it does not have or take, or a package that it
            needs and that is not installed.
    """
    import diffusers.schedulers
    from diffusers import SchedulerMixin

    found: Any = getattr(diffusers.schedulers, name, None) if name.endswith("Scheduler") else None
    missing = [package for package in getattr(found, "_backends", ()) if package != "torch"]
    if missing:
        raise ValueError(
            f"`--scheduler` is {name!r}, which needs {' and '.join(missing)}: pip install 'diffusers-imagen[schedulers]'."
        )
    if not (isinstance(found, type) and issubclass(found, SchedulerMixin)):
        raise ValueError(
            f"`--scheduler` is {name!r}, which is no scheduler of Diffusers; give a class name such as "
            "DPMSolverMultistepScheduler; `diffusers-imagen schedulers` prints all of them."
        )
    scheduler_class: Any = found
    parameters = inspect.signature(scheduler_class.__init__).parameters
    known = [key for key in parameters if key != "self"]
    for option in options:
        if option not in known:
            raise ValueError(f"`--scheduler` gives {name} the option {option!r}; it has {', '.join(known)}.")
    check_numbers("scheduler", name, parameters, options)
    betas = {key: present.config[key] for key in _BETAS if key in known and key in present.config}
    attempts = [betas if "beta_schedule" in betas else {}, {}]
    if found in present.compatibles:
        # Only related classes share settings: a flow scheduler would take over spacings that mean nothing to it.
        attempts.insert(0, dict(present.config))
    for settings in attempts:
        try:
            return scheduler_class.from_config(settings, **options)
        except (ValueError, TypeError, NotImplementedError, ImportError) as error:
            # Related or not, it may have no place for a setting of the one before, such as its kind of algorithm: some
            # of Diffusers' constructors say so by NotImplementedError.
            reason = error
    raise ValueError(f"`--scheduler` cannot make a {name} with {options}: {reason}") from reason


def check_numbers(
    option: str, name: str, parameters: Mapping[str, inspect.Parameter], given: Mapping[str, Any]
) -> None:
    """Refuse words for what is a number, which Diffusers' constructors take.

    Args:
        option: the command's, for messages.
        name: of the class.
        parameters: of its constructor.
        given: values by parameter.

    Raises:
        ValueError: naming the parameter and the value.
    """
    for key, value in given.items():
        if isinstance(value, str) and isinstance(parameters[key].default, int | float):
            kind = "true or false" if isinstance(parameters[key].default, bool) else "a number"
            raise ValueError(f"`--{option}` gives {name} {value!r} as {key!r}; give {kind}.")
        # Diffusers writes some floats' defaults without a point.
        if (
            isinstance(value, float)
            and type(parameters[key].default) is int
            and parameters[key].annotation is not float
        ):
            raise ValueError(f"`--{option}` gives {name} {value!r} as {key!r}; give a whole number.")


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text.strip()
