# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""A saved cascade as its files describe it, and what is wrong with one that must not be published.

Reads configurations and the headers of safetensors files, never weights. Called by the card, the upload and the export.
"""

import json
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

INDEX = "model_index.json"
PIPELINE = "ImagenCascadePipeline"
STAGES = {
    "base": ("unet", "scheduler"),
    "sr_1": ("sr_unet_1", "sr_scheduler_1"),
    "sr_2": ("sr_unet_2", "sr_scheduler_2"),
}
_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")
_WEIGHTS = re.compile(
    r"(?P<name>[^.]+?)(\.(?P<variant>[^.]+?))?(-\d{5}-of-\d{5})?\.safetensors(\.index(\.(?P<of_index>[^.]+))?\.json)?"
)


@dataclass(frozen=True)
class SavedComponent:
    """A component: its place in the pipeline, its class, its configuration, and how many weights it has."""

    name: str
    library: str
    class_name: str
    config: dict[str, Any]
    parameters: int
    dtypes: tuple[str, ...]


@dataclass(frozen=True)
class SavedCascade:
    """A saved cascade: its folder, its index and its components by name."""

    folder: Path
    index: dict[str, Any]
    components: dict[str, SavedComponent]

    @property
    def stages(self) -> dict[str, tuple[SavedComponent, SavedComponent]]:
        """U-Net and scheduler of each stage that there is, in order."""
        return {
            stage: (self.components[unet], self.components[scheduler])
            for stage, (unet, scheduler) in STAGES.items()
            if unet in self.components and scheduler in self.components
        }

    @property
    def sizes(self) -> list[int]:
        """Side of each stage's pictures in pixels."""
        return [unet.config["sample_size"] for unet, _ in self.stages.values()]

    @property
    def parameters(self) -> int:
        """Weights of all components together."""
        return sum(component.parameters for component in self.components.values())


def read_cascade(folder: Path) -> SavedCascade:
    """Read a folder that `save_pretrained` wrote, and refuse one that nobody could load.

    Args:
        folder: of a whole cascade.

    Raises:
        ValueError: naming the file that is missing, damaged or no safetensors, and the remedy.
    """
    if not (folder / INDEX).is_file():
        raise ValueError(
            f"`folder` is {str(folder)!r}, which holds no {INDEX}; give a folder that `save_pretrained` wrote."
        )
    index = _read_json(folder, INDEX)
    if index.get("_class_name") != PIPELINE:
        raise ValueError(
            f"`folder` is {str(folder)!r}, whose {INDEX} tells of a {index.get('_class_name')!r}; give one of a {PIPELINE}."
        )
    _refuse_pickles(folder)
    parts = {name: value for name, value in index.items() if isinstance(value, list) and value[0] is not None}
    components = {name: _read_component(folder, name, *value) for name, value in sorted(parts.items())}
    for name in ("unet", "scheduler"):
        if name not in components:
            raise ValueError(f"`folder` is {str(folder)!r}, whose {INDEX} names no `{name}`; save the whole cascade.")
    return SavedCascade(folder, index, components)


def weights_kind(name: str) -> tuple[str, str] | None:
    """Return what a file of weights, or an index of its parts, is a copy of: name and variant; `None` for other files."""
    found = _WEIGHTS.fullmatch(name)
    return None if found is None else (found["name"], found["variant"] or found["of_index"] or "")


def read_header(path: Path) -> dict[str, Any]:
    """Return the header of a safetensors file: type, shape and place of each tensor by its name.

    Raises:
        ValueError: a file that is cut off, has too much, or is none.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        text = file.read(length) if 8 + length <= size else b""
    try:
        header = json.loads(text)
        header.pop("__metadata__", None)
        end = max((entry["data_offsets"][1] for entry in header.values()), default=0)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"{str(path)!r} is no whole safetensors file; save or fetch it again.") from error
    if size != 8 + length + end:
        raise ValueError(f"{str(path)!r} has {size} bytes instead of {8 + length + end}; save or fetch it again.")
    return dict(header)


def _read_component(folder: Path, name: str, library: str, class_name: str) -> SavedComponent:
    place = folder / name
    if not place.is_dir():
        raise ValueError(
            f"{str(folder)!r} has no folder {name!r}, which its {INDEX} names; save the whole cascade again."
        )
    configs = sorted(path.name for path in place.glob("*config.json"))
    if not configs:
        raise ValueError(f"{str(place)!r} holds no configuration; save the whole cascade again.")
    # A model's comes before what is generated with it, a tokenizer's before its special tokens.
    config = _read_json(folder, f"{name}/{'config.json' if 'config.json' in configs else configs[0]}")
    files = sorted(path for path in place.glob("*.safetensors") if path.is_file())
    if not files and (place / "config.json").is_file():
        raise ValueError(f"{str(place)!r} holds no safetensors file; save it with `safe_serialization=True`.")
    headers = {path: read_header(path) for path in files}
    # Other variants are the same weights once more.
    first = [header for path, header in headers.items() if weights_kind(path.name) == weights_kind(files[0].name)]
    _check_shards(place, {path.name for path in files})
    tensors = [entry for header in first for entry in header.values()]
    return SavedComponent(
        name=name,
        library=library,
        class_name=class_name,
        config=config,
        parameters=sum(math.prod(entry["shape"]) for entry in tensors),
        dtypes=tuple(sorted({entry["dtype"] for entry in tensors})),
    )


def _check_shards(place: Path, names: set[str]) -> None:
    for index in place.glob("*.safetensors.index*.json"):
        missing = sorted(set(_read_json(place, index.name).get("weight_map", {}).values()) - names)
        if missing:
            raise ValueError(f"{str(place)!r} lacks {missing[0]!r}, which its {index.name} names; save it again.")


def _refuse_pickles(folder: Path) -> None:
    for path in sorted(folder.rglob("*")):
        if path.suffix in _PICKLES:
            raise ValueError(
                f"{str(path)!r} may run code when it is read and is not published; save the cascade as safetensors."
            )


def _read_json(folder: Path, name: str) -> dict[str, Any]:
    try:
        content = json.loads((folder / name).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{str(folder / name)!r} cannot be read ({error}); save the cascade again.") from error
    if not isinstance(content, dict):
        raise ValueError(f"{str(folder / name)!r} is no configuration; save the cascade again.")
    return content
