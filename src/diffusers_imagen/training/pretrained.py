# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""Find the U-Net that a run starts from: in a folder of its own, in another run's, or in a cascade's.

Called where a run's U-Net is made.
"""

import json
import logging
from pathlib import Path
from typing import Any

from diffusers_imagen.models.stored_model import fingerprint
from diffusers_imagen.text.encoding import TextSettings
from diffusers_imagen.training.config import ModelConfig, TrainConfig
from diffusers_imagen.training.run_folder import CONFIG, UNET

_logger = logging.getLogger(__name__)

# What decides which numbers stand for a text.
_TEXT = ("layers", "prefix", "template", "template_tokens")
# Where a cascade keeps a stage's U-Net; the pipelines of DeepFloyd IF's enlargements keep it as their only one.
_PLACES = {"base": (UNET,), "super_resolution": ("sr_unet_1", UNET)}


def pretrained_folder(config: ModelConfig) -> Path:
    """Give the folder of the U-Net that `config.pretrained` means.

    Args:
        config: Of the run's model: `pretrained` is the folder of a U-Net, of a run, or of a cascade, whose base or first
            enlargement it then is.

    Raises:
        ValueError: If there is no U-Net.
    """
    folder = Path(config.pretrained or "")
    for place in (folder, *(folder / name for name in _PLACES[config.model_class])):
        if (place / "config.json").is_file() and not (place / "model_index.json").is_file():
            return place
    raise ValueError(
        f"`model.pretrained` is {config.pretrained!r}, where there is no U-Net for {config.model_class!r}; give the "
        "folder of a U-Net, of a cascade or of a run, or the name of a built-in cascade."
    )


def check_pretrained_text(config: TrainConfig) -> None:
    """Compare how texts are encoded with how they were for the U-Net that a run starts from.

    Args:
        config: Of the run.

    Raises:
        ValueError: If an adapter would be trained with other texts; for all weights there is a warning.
    """
    if config.model.pretrained is None or (saved := _saved_text(pretrained_folder(config.model))) is None:
        return
    now = config.text.settings
    for name in _TEXT:
        was = saved.get(name, getattr(TextSettings(), name))
        was = tuple(was) if isinstance(was, list) else was
        if was == getattr(now, name):
            continue
        message = (
            f"`text.{name}` is {getattr(now, name)!r}, but the U-Net of `model.pretrained` was trained with {was!r}"
        )
        if config.lora is not None:
            raise ValueError(f"{message}; give that: the adapter is drawn with in the same way.")
        _logger.warning("%s.", message)


def _saved_text(folder: Path) -> dict[str, Any] | None:
    """Give the text settings that a cascade or a run says around a U-Net's folder; None where nothing does."""
    for place in (folder, folder.parent):
        for name in ("model_index.json", CONFIG):
            if (place / name).is_file():
                text: dict[str, Any] | None = json.loads((place / name).read_text(encoding="utf-8")).get("text")
                return text
    return None


def pretrained_class(folder: Path) -> str:
    """Give the name of a saved U-Net's class."""
    return str(json.loads((folder / "config.json").read_text(encoding="utf-8"))["_class_name"])


def pretrained_digest(folder: Path) -> dict[str, str]:
    """Give a fingerprint of each file of weights, so that an adapter is not resumed on other weights."""
    return {file.name: fingerprint(file) for file in sorted(folder.glob("*.safetensors"))}
