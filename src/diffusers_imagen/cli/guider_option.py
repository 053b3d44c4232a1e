# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""The option `--guider` of `diffusers-imagen generate`: its text to guiders by stage."""

import inspect
from collections.abc import Mapping
from typing import Any

from diffusers_imagen.cli.scheduler_option import check_numbers, parse_classes
from diffusers_imagen.guiders.catalogue import GUIDERS, Driven

EXAMPLE = "base=AdaptiveProjectedGuidance:guidance_scale=8:eta=0,sr_1=ClassifierFreeGuidance"


def parse_guiders(text: str | None) -> dict[str, tuple[str, dict[str, Any]]]:
    """Read `Name:option=value` as the base's guider, and `base=Name:option=value,sr_1=Name` by stage.

    Args:
        text: what was given, or `None`.

    Returns:
        Class name and options by stage.

    Raises:
        ValueError: what is neither, or a name that is no guider of Diffusers.
    """
    wanted = parse_classes("guider", text, EXAMPLE)
    for name, _ in wanted.values():
        if name not in GUIDERS:
            usable = [known for known, verdict in GUIDERS.items() if isinstance(verdict, Driven)]
            raise ValueError(
                f"`--guider` is {name!r}, which is no guider of Diffusers; choose one of {', '.join(usable)}."
            )
    return wanted


def make_guiders(wanted: Mapping[str, tuple[str, dict[str, Any]]]) -> dict[str, Any] | None:
    """Make guiders by the names of their classes.

    Args:
        wanted: class name and options by stage, as `parse_guiders` returns them.

    Returns:
        The guiders by stage; `None` for none.

    Raises:
        ValueError: an option that a class does not have or take, a missing package, or a class that needs a U-Net.
    """
    return {stage: _make(*named) for stage, named in wanted.items()} or None


def _make(name: str, options: dict[str, Any]) -> Any:
    import diffusers.guiders

    guider_class: Any = getattr(diffusers.guiders, name, None)
    if guider_class is None:
        raise ValueError(f"`--guider` is {name!r}, which needs a second U-Net; use it from Python (docs/guiders.md).")
    parameters = inspect.signature(guider_class.__init__).parameters
    known = [key for key in parameters if key != "self"]
    for option in options:
        if option not in known:
            raise ValueError(f"`--guider` gives {name} the option {option!r}; it has {', '.join(known)}.")
    check_numbers("guider", name, parameters, options)
    try:
        return guider_class(**options)
    except (ValueError, TypeError, ImportError) as error:
        raise ValueError(f"`--guider` cannot make a {name} with {options}: {error}") from error
