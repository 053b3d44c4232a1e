# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""Find the training presets: complete YAML files in `presets/` that lack the run's own folders. Called by the command line."""

from collections.abc import Iterator
from pathlib import Path

_FOLDER = Path(__file__).parent / "presets"


def preset_names() -> list[str]:
    """Give the names of all presets."""
    return sorted(path.stem for path in _FOLDER.glob("*.yaml"))


def preset_path(name: str) -> Path:
    """Give the file of a preset.

    Raises:
        ValueError: If there is none of this name.
    """
    if name not in preset_names():
        raise ValueError(f"`preset` is {name!r}; choose one of {', '.join(preset_names())}.")
    return _FOLDER / f"{name}.yaml"


def describe_presets() -> Iterator[str]:
    """Give each preset's name and the first line of its comment."""
    width = max(map(len, preset_names()))
    for name in preset_names():
        first = preset_path(name).read_text(encoding="utf-8").splitlines()[0]
        yield f"{name:{width}}  {first.removeprefix('# ')}"
