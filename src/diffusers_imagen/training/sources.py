# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""Open the pictures that a configuration names, for training or held out. Called by the loop and the dry run."""

from pathlib import Path

from diffusers_imagen.data.folder import ImageFolder
from diffusers_imagen.training.config import TrainConfig


def open_pictures(config: TrainConfig, held_out: bool = False, quarantine: Path | None = None) -> ImageFolder:
    """List the pictures of a run without reading them.

    Args:
        config: Of the run.
        held_out: Those held out instead of those trained on.
        quarantine: A file that shall list what cannot be read.

    Raises:
        ValueError: If there are none.
    """
    data = config.data
    return ImageFolder.open(
        data.folder,
        data.size,
        held_out=held_out,
        validation_fraction=data.validation_fraction,
        quarantine=quarantine,
    )
