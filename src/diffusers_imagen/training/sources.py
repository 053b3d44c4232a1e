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
    _check_output_is_elsewhere(config)
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


def _check_output_is_elsewhere(config: TrainConfig) -> None:
    """Refuse a run within a folder all of whose pictures are trained on: its previews would be among them."""
    folder, output = Path(config.data.folder), Path(config.output_dir)
    if not output.resolve().is_relative_to(folder.resolve()):
        return
    if _kind(config.data) == "folder" and not (folder / "metadata.jsonl").is_file():
        raise ValueError(
            f"`output_dir` is {config.output_dir!r}, within `data.folder`, {config.data.folder!r}, so the run's previews "
            "would become training pictures; give a folder elsewhere."
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
