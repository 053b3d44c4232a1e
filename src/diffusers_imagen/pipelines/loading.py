# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""Where a checkpoint is, and what is wrong with one that cannot be loaded or saved. Called by the pipeline."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from diffusers.schedulers.scheduling_utils import SchedulerMixin
from huggingface_hub import snapshot_download
from safetensors import SafetensorError, safe_open

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


def unreadable(name: str, error: Exception, options: Mapping[str, Any]) -> OSError:
    """Return the error that tells what is wrong with a checkpoint that could not be loaded.

    Args:
        name: a folder, or what is no folder and was looked for on the Hub.
        error: what was raised.
        options: the arguments of `from_pretrained`, which say where what the Hub gave is kept.
    """
    folder = Path(name) if Path(name).is_dir() else fetched_folder(name, options)
    if folder is None:
        revision = f" at the revision {options['revision']!r}" if options.get("revision") else ""
        return OSError(
            f"`pretrained_model_name_or_path` is {name!r}{revision}: there is no such folder, it is no built-in cascade (there is "
            f"{', '.join(builtin_names())}), and the Hub did not give it: {error}"
        )
    damaged = damaged_weights(folder)
    what = f"{', '.join(damaged)} cannot be read" if damaged else f"something is missing or damaged: {error}"
    return OSError(
        f"`pretrained_model_name_or_path` is {name!r}, where {what.rstrip('.')}; fetch or save the checkpoint again."
    )


def fetched_folder(name: str, options: Mapping[str, Any]) -> Path | None:
    """Return where the Hub's cache holds a repository, if it was fetched as a whole."""
    try:
        return Path(
            snapshot_download(
                name,
                revision=options.get("revision"),
                cache_dir=options.get("cache_dir"),
                allow_patterns="*.safetensors",
                local_files_only=True,
            )
        )
    except (OSError, ValueError):
        return None


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


def damaged_weights(folder: Path) -> list[str]:
    """Return the files of weights in a saved pipeline's folder that are cut off or are none."""
    damaged = []
    for path in sorted(folder.glob("*/*.safetensors")):
        try:
            safe_open(path, framework="pt")
        except SafetensorError:
            damaged.append(str(path.relative_to(folder)))
    return damaged
