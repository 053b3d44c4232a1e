# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""Where a checkpoint is, and what is wrong with one that cannot be loaded. Called by the pipeline's `from_pretrained`."""

import os
from pathlib import Path
from typing import Any

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


def unreadable(name: str, error: Exception) -> OSError:
    """Return the error that tells what is wrong with a checkpoint that could not be loaded.

    Args:
        name: a folder, or what is no folder and was looked for on the Hub.
        error: what was raised.
    """
    folder = Path(name)
    if not folder.is_dir():
        return OSError(
            f"`pretrained_model_name_or_path` is {name!r}: there is no such folder, it is no built-in cascade (there is "
            f"{', '.join(builtin_names())}), and the Hub did not give it: {error}"
        )
    damaged = damaged_weights(folder)
    what = f"{', '.join(damaged)} cannot be read" if damaged else f"something is missing or damaged: {error}"
    return OSError(
        f"`pretrained_model_name_or_path` is {name!r}, where {what.rstrip('.')}; fetch or save the checkpoint again."
    )


def damaged_weights(folder: Path) -> list[str]:
    """Return the files of weights in a saved pipeline's folder that are cut off or are none."""
    damaged = []
    for path in sorted(folder.glob("*/*.safetensors")):
        try:
            safe_open(path, framework="pt")
        except SafetensorError:
            damaged.append(str(path.relative_to(folder)))
    return damaged
