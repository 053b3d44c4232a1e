# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""Join separately trained U-Nets and a text encoder into a saved cascade.

What is checked is read from configuration files alone, so that a part that does not fit is refused before any weights
are loaded. Called by the command line.
"""

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig

from diffusers_imagen.models.unet_efficient import EfficientUNet2DConditionModel
from diffusers_imagen.models.unet_imagen import ImagenUNet2DConditionModel
from diffusers_imagen.pipelines.pipeline_imagen_cascade import ImagenCascadePipeline
from diffusers_imagen.pipelines.stage_plan import check_unets
from diffusers_imagen.pipelines.stage_settings import STAGES, saved_settings
from diffusers_imagen.schedulers.defaults import default_scheduler
from diffusers_imagen.text.encoding import TextSettings
from diffusers_imagen.text.loading import load_text_encoder

_CLASSES = {kind.__name__: kind for kind in (ImagenUNet2DConditionModel, EfficientUNet2DConditionModel)}


def order_stages(folders: Sequence[Path], factors: Mapping[Path, int] | None = None) -> dict[str, Path]:
    """Name saved U-Nets by the places that they take in a cascade.

    Args:
        folders: Folders of saved U-Nets in any order: one base, and at most two enlargements.
        factors: How many times smaller the pictures were that an enlargement was trained to enlarge, where known.

    Returns:
        The folders by stage, "base" first, enlargements by the size of their pictures.

    Raises:
        ValueError: If a folder holds no U-Net of this package, or they make no cascade.
    """
    if not folders:
        raise ValueError("`stages` is empty; give the folder of a base, and those of its enlargements.")
    unets = {folder: _without_weights(folder) for folder in folders}
    bases = [folder for folder, unet in unets.items() if unet.config.low_res_channels == 0]
    if len(bases) != 1 or len(unets) != len(folders) or len(folders) > len(STAGES):
        raise ValueError(
            f"`stages` names {len(folders)} folders ({len(unets)} different ones), {len(bases)} of them of a base; "
            f"give one base and at most {len(STAGES) - 1} enlargements, each once."
        )
    enlargements = [folder for folder in unets if folder not in bases]
    ordered = dict(zip(STAGES, [*bases, *sorted(enlargements, key=lambda folder: _side(unets[folder]))], strict=False))
    check_unets({stage: unets[folder] for stage, folder in ordered.items()})
    sides = {stage: _side(unets[folder]) for stage, folder in ordered.items()}
    if sorted(set(sides.values())) != list(sides.values()):
        raise ValueError(f"The stages draw {sides} pixels; give U-Nets of which each enlarges the one before.")
    for before, stage in pairwise(ordered):
        factor = (factors or {}).get(ordered[stage])
        if factor is not None and sides[before] * factor != sides[stage]:
            raise ValueError(
                f"{stage!r} ({str(ordered[stage])!r}) was trained to enlarge {sides[stage] // factor} pixels to "
                f"{sides[stage]}, but {before!r} draws {sides[before]}; give stages that were trained for each other."
            )
    return ordered


def check_text_encoder(stages: Mapping[str, Path], text_folder: Path, text: TextSettings) -> None:
    """Refuse a text encoder that the U-Nets were not trained with, as far as its configuration tells.

    Args:
        stages: As `order_stages` returns them.
        text_folder: Folder with `tokenizer` and `text_encoder`.
        text: How prompts are encoded.

    Raises:
        ValueError: If there is no such encoder, or layers, width or length do not fit.
    """
    for part in ("tokenizer", "text_encoder"):
        if not (text_folder / part).is_dir():
            raise ValueError(
                f"`text` is {str(text_folder)!r}, which has no subfolder {part!r}; save the {part} there."
            )
    longest, width = check_unets({stage: _without_weights(folder) for stage, folder in stages.items()})
    config = AutoConfig.from_pretrained(text_folder / "text_encoder").get_text_config()
    given = len(text.layers) * config.hidden_size
    if given != width:
        raise ValueError(
            f"`text` is {str(text_folder)!r}, whose {len(text.layers)} layer(s) of width {config.hidden_size} make "
            f"{given}, but the U-Nets take {width}; give the encoder and the `layers` that they were trained with."
        )
    count = config.num_hidden_layers
    if not all(-count - 1 <= layer <= count for layer in text.layers):
        raise ValueError(f"`layers` is {text.layers}, but the text encoder has the layers 0 to {count}.")
    if text.max_length > longest:
        raise ValueError(f"`max_length` is {text.max_length}, but the U-Nets take {longest} tokens; give {longest}.")


def assemble(
    stages: Mapping[str, Path],
    text_folder: Path,
    text: TextSettings,
    settings: Mapping[str, Mapping[str, Any]],
    output: Path,
) -> ImagenCascadePipeline:
    """Join the parts and save the cascade; it appears under its name only when it is whole.

    Args:
        stages: As `order_stages` returns them.
        text_folder: Folder with `tokenizer` and `text_encoder`.
        text: How prompts are encoded.
        settings: Saved settings by stage, as `StageSettings` has them.
        output: The new cascade's folder.

    Returns:
        The cascade.

    Raises:
        ValueError: If the parts do not fit, a setting is unknown, or there is something at `output`; before any work.
    """
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise ValueError(f"`output` is {str(output)!r}, which is there already; give a new folder.")
    saved_settings(settings)
    check_text_encoder(stages, text_folder, text)
    output.absolute().parent.mkdir(parents=True, exist_ok=True)
    temporary = output.with_name(f".{output.name}-unfinished-{os.getpid()}")
    try:
        pipe = _join(stages, text_folder, text, settings)
        pipe.save_pretrained(temporary)
        if output.is_dir():
            output.rmdir()
        temporary.rename(output)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return pipe


def _join(
    stages: Mapping[str, Path], text_folder: Path, text: TextSettings, settings: Mapping[str, Mapping[str, Any]]
) -> ImagenCascadePipeline:
    unets = {stage: _class_of(folder).from_pretrained(folder) for stage, folder in stages.items()}
    schedulers = {stage: default_scheduler(unet.noise_process) for stage, unet in unets.items()}
    tokenizer, text_encoder = load_text_encoder(text_folder)
    return ImagenCascadePipeline(
        tokenizer=tokenizer,
        text_encoder=text_encoder,
        unet=unets["base"],
        scheduler=schedulers["base"],
        sr_unet_1=unets.get("sr_1"),
        sr_scheduler_1=schedulers.get("sr_1"),
        sr_unet_2=unets.get("sr_2"),
        sr_scheduler_2=schedulers.get("sr_2"),
        stages={stage: dict(settings.get(stage, {})) for stage in stages},
        text=text.saved(),
    )


def _side(unet: Any) -> int:
    return int(unet.config.sample_size)


def _without_weights(folder: Path) -> Any:
    """Make a saved U-Net's layers without memory, for all that its configuration says."""
    kind = _class_of(folder)
    with torch.device("meta"):
        return kind.from_config(kind.load_config(folder))


def _class_of(folder: Path) -> Any:
    if not (folder / "config.json").is_file():
        raise ValueError(f"`stages` names {str(folder)!r}, which holds no U-Net (no config.json); give one's folder.")
    name = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("_class_name")
    if name not in _CLASSES:
        raise ValueError(f"`stages` names {str(folder)!r}, which holds a {name}; give one of {', '.join(_CLASSES)}.")
    return _CLASSES[name]
