# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""What is where in a run's folder, and the configuration that a run leaves there for those who come after it.

Written by the training loop; read by the commands that assemble, average and report.
"""

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

from diffusers_imagen.training.config import TrainConfig

CONFIG, LOG, HELD_OUT, UNET, LORA = "train_config.json", "log.jsonl", "held_out.jsonl", "unet", "lora"
_LOCK = ".lock"
CHECKPOINTS, SNAPSHOTS, PREVIEWS, TRACKERS = "checkpoints", "snapshots", "previews", "trackers"


def lock_run(folder: Path) -> IO[str]:
    """Take a run's folder, made if need be, for this process, until the file that is returned is closed.

    Nothing is locked on systems other than POSIX's.

    Args:
        folder: Of the run.

    Raises:
        ValueError: If another process has it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    file = (folder / _LOCK).open("a", encoding="utf-8")
    if os.name != "posix":
        return file
    import fcntl

    try:
        # Unlike flock's, these locks are not inherited by the processes that a run forks.
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        file.close()
        raise ValueError(
            f"`output_dir` is {str(folder)!r}, where another run is at work; end it, or give another folder."
        ) from error
    return file


def forget_lock(folder: Path) -> None:
    """Remove the folder of a run that was refused, if there is nothing but its lock in it."""
    if folder.is_dir() and [path.name for path in folder.iterdir()] == [_LOCK]:
        (folder / _LOCK).unlink(missing_ok=True)
        # Another process of the run may have put something there meanwhile: the folder stays then.
        with suppress(OSError):
            folder.rmdir()


def write_run_config(config: TrainConfig, folder: Path) -> None:
    """Write the whole configuration, defaults too, which `load_config` reads again."""
    temporary = folder / f".{CONFIG}.tmp"
    temporary.write_text(json.dumps(asdict(config), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    temporary.replace(folder / CONFIG)


def read_run_config(folder: Path) -> dict[str, Any] | None:
    """Read the configuration that a run left, as nested dictionaries, or give None where there is none.

    Raises:
        ValueError: If the file is there but is no JSON object.
    """
    path = folder / CONFIG
    if not path.is_file():
        return None
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is no JSON ({error}); start the run again for a moment to write it anew.") from error
    if not isinstance(values, dict):
        raise ValueError(f"{path} holds no JSON object; start the run again for a moment to write it anew.")
    return values


def unet_folder(folder: Path) -> Path:
    """Give the folder of the U-Net that a run exported, or the folder itself if it is a U-Net's.

    Raises:
        ValueError: If there is no U-Net in either place.
    """
    for place in (folder / UNET, folder):
        if (place / "config.json").is_file():
            return place
    if (folder / LORA).is_dir():
        raise ValueError(
            f"{str(folder)!r} is the run of a LoRA, which has no U-Net of its own; load {str(folder / LORA)!r} into the U-Net "
            "that it adapts with its `load_lora_adapter`."
        )
    raise ValueError(
        f"{str(folder)!r} has no trained U-Net; give the `output_dir` of a run, or the folder of a U-Net."
    )


def read_lines(path: Path) -> list[Mapping[str, Any]]:
    """Read a file of JSON lines; a missing file is an empty one, and a half-written last line is left out."""
    if not path.is_file():
        return []
    lines = path.read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines if line.startswith("{") and line.endswith("}")]
