# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""Open the pictures that a configuration names: a folder, tar shards or a Hugging Face dataset.

The sources themselves are in `data/`. Called by the training loop, by previews and by `diagnose`.
"""

import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from diffusers_imagen.data.buckets import assign_buckets
from diffusers_imagen.data.dataset import HuggingFaceDataset
from diffusers_imagen.data.folder import ImageFolder
from diffusers_imagen.data.quarantine import Quarantine
from diffusers_imagen.data.shards import TarShards
from diffusers_imagen.data.source import PictureSource
from diffusers_imagen.training.config import DataConfig, TrainConfig

_logger = logging.getLogger(__name__)


def open_pictures(
    config: TrainConfig,
    held_out: bool = False,
    quarantine: str | Path | None = None,
    samples_per_step: int | None = None,
) -> PictureSource:
    """Open the pictures of a run, without reading them.

    Args:
        config: Which pictures, and how they are cut.
        held_out: Give the held-out pictures instead of those for training.
        quarantine: A file that shall list what cannot be read.
        samples_per_step: Pictures of one optimizer step, over all processes; None for no aspect buckets, all pictures
            then have one size.

    Returns:
        The source.

    Raises:
        ValueError: If there are no pictures, they are not as `config` says, or the run would add to them.
    """
    data = config.data
    check_places(config)
    pictures = open_data(data, held_out, quarantine)
    if data.low_res_folder is not None:
        pictures.pair_with(data.low_res_folder)
        if data.validation_fraction:
            # A training picture and a held-out one must not share a low resolution either.
            open_data(replace(data, validation_fraction=0.0)).check_low_res_names()
    if data.bucket_multiple is not None and samples_per_step is not None:
        buckets = assign_buckets(pictures.picture_sizes(), data.size, data.bucket_multiple, samples_per_step)
        _logger.info("Pictures in buckets of height and width: %s.", buckets.counts)
        pictures.use_buckets(buckets)
    return pictures


def open_data(config: DataConfig, held_out: bool = False, quarantine: str | Path | None = None) -> PictureSource:
    """Open what a configuration's `data` names, without buckets and without smaller pictures of their own.

    Args:
        config: Where the pictures are, and of what size they are given.
        held_out: Give the held-out pictures instead of those for training.
        quarantine: A file that shall list what cannot be read.

    Returns:
        The source.

    Raises:
        ValueError: If there are no pictures, or they are not as `config` says.
    """
    kind = _kind(config)
    split, bad = (held_out, config.validation_fraction), Quarantine(quarantine, config.max_bad_fraction)
    if config.prompts and kind != "folder":
        raise ValueError(
            f"`data.prompts` is {list(config.prompts)}, but `data.folder` is of the kind {kind!r}, whose captions are in "
            "it; leave `data.prompts` out."
        )
    if kind == "shards":
        return TarShards.open(
            config.folder, config.size, *split, config.shard_window, bad, caption_fields=config.captions
        )
    if kind == "dataset":
        return HuggingFaceDataset.open(
            config.folder, config.size, *split, bad, config.split, config.image_column, config.captions,
            config.key_column,
        )  # fmt: skip
    return ImageFolder.open(
        config.folder, config.size, *split, bad, caption_fields=config.captions, prompts=config.prompts
    )


def captions_of(*sources: PictureSource) -> Iterator[str]:
    """Give the captions of sources; they are collected only when the first one is asked for."""
    for source in sources:
        yield from source.captions


def check_places(config: TrainConfig) -> None:
    """Refuse a run that would write pictures, or find smaller ones, among those that it is trained on.

    Args:
        config: Of the run; nothing is written.

    Raises:
        ValueError: If there are no pictures or no text encoder, or the run's folder, its smaller pictures or its prior
            pictures are within the folder of pictures.
    """
    data = config.data
    # A dataset may be one of the Hub's.
    if data.source != "dataset" and not Path(data.folder).is_dir():
        raise ValueError(f"`data.folder` is {data.folder!r}, which is not a folder; give one with captioned pictures.")
    for part in ("tokenizer", "text_encoder"):
        if not (Path(config.text.folder) / part).is_dir():
            raise ValueError(
                f"`text.folder` is {config.text.folder!r}, which has no folder {part!r}; give one that has tokenizer/ and "
                "text_encoder/, as a saved pipeline does, or the name of a built-in cascade."
            )
    places = {
        "output_dir": config.output_dir,
        "data.low_res_folder": data.low_res_folder,
        "prior.folder": config.prior.folder if config.prior else None,
    }
    for name, place in places.items():
        if place is not None:
            check_is_elsewhere(data, place, name)


def check_is_elsewhere(data: DataConfig, place: str | Path, name: str) -> None:
    """Refuse a folder of other pictures within one all of whose pictures are trained on.

    Args:
        data: Where the pictures are; a `metadata.jsonl` there names those that are trained on.
        place: Of the other pictures.
        name: The argument's.

    Raises:
        ValueError: If it is within.
    """
    folder = Path(data.folder)
    if not Path(place).resolve().is_relative_to(folder.resolve()):
        return
    if _kind(data) == "folder" and not (folder / "metadata.jsonl").is_file():
        raise ValueError(
            f"`{name}` is {str(place)!r}, within `data.folder`, {data.folder!r}, so its pictures would become training "
            "pictures; give a folder elsewhere."
        )


def _kind(config: DataConfig) -> str:
    """Give the kind of source that is named, or that the files tell."""
    return _kind_of(Path(config.folder)) if config.source == "auto" else config.source


def _kind_of(folder: Path) -> str:
    """Tell by the files what a folder holds."""
    if (folder / "metadata.jsonl").is_file():
        return "folder"
    endings = {path.suffix for path in folder.rglob("*")}
    if ".tar" in endings:
        return "shards"
    return "dataset" if endings & {".parquet", ".arrow"} else "folder"
