# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""Where a checkpoint is, and what is refused of one that loads or is about to be saved. Called by the pipeline."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from diffusers.schedulers.scheduling_utils import SchedulerMixin
from safetensors import safe_open

from diffusers_imagen.builtin.library import builtin_names, builtin_path


def checkpoint_place(name: Any, index_name: str) -> str:
    """Return the folder or the Hub repository that a name means: a folder, a built-in cascade, or else the Hub.

    Args:
        name: what the caller gave.
        index_name: the file that a saved pipeline's folder holds.

    Raises:
        ValueError: what is no name at all.
        OSError: a folder that holds no pipeline, or a path to nowhere.
    """
    if not isinstance(name, str | os.PathLike):
        raise ValueError(f"`pretrained_model_name_or_path` is {name!r}; give a folder or a name.")
    place = os.fspath(name)
    if place in builtin_names() and not Path(place).is_dir():
        return str(builtin_path(place))
    if Path(place).is_dir() and not (Path(place) / index_name).is_file():
        raise OSError(
            f"`pretrained_model_name_or_path` is the folder {place!r}, which holds no {index_name}; give the folder "
            "that `save_pretrained` wrote."
        )
    if not Path(place).exists() and (Path(place).is_absolute() or place.startswith(".")):
        raise OSError(f"`pretrained_model_name_or_path` is {place!r}, and there is no such folder; check the path.")
    return place


def check_text_weights(text_encoder: Any) -> None:
    """Refuse a text encoder that was loaded from another model's weights, which Transformers only warns of.

    Args:
        text_encoder: a model of Transformers, or `None`. One that was not loaded from a folder is not checked.

    Raises:
        OSError: naming the folder's files, when fewer than half of the model's weights are in them.
    """
    config = getattr(text_encoder, "config", None)
    place = getattr(config, "name_or_path", "")
    files = sorted(Path(place).glob("*.safetensors")) if place and Path(place).is_dir() else []
    if not files or hasattr(config, "quantization_config") or getattr(text_encoder, "peft_config", None):
        # Quantized and adapted layers have other names.
        return
    stored: set[str] = set()
    for path in files:
        with safe_open(path, framework="pt") as file:
            stored |= {_tail(name) for name in file.keys()}  # noqa: SIM118 (no dictionary)
    wanted = [_tail(name) for name, _ in text_encoder.named_parameters()]
    if sum(name in stored for name in wanted) * 2 < len(wanted):
        raise OSError(
            f"{', '.join(f'{path.parent.name}/{path.name}' for path in files)} holds the weights of another model than "
            f"{type(text_encoder).__name__}, which its config.json tells of."
        )


def check_saved_schedulers(components: Mapping[str, Any]) -> None:
    """Refuse to save a scheduler with a setting that no file can hold, before anything is written.

    Args:
        components: of a pipeline, by name.

    Raises:
        ValueError: naming the scheduler.
    """
    for name, component in components.items():
        if isinstance(component, SchedulerMixin):
            try:
                component.to_json_string()
            except TypeError as error:
                raise ValueError(
                    f"`{name}` ({type(component).__name__}) cannot be saved: {error}. Make it with settings that are numbers, "
                    "words or lists, such as no function, and give it the function again after loading."
                ) from error


def _tail(name: str) -> str:
    """Return the end of a weight's name: models that stand in larger ones have their prefix."""
    return ".".join(name.split(".")[-3:])
