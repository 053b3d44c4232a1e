# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""Save and load the state of a run so that neither a crash nor a damaged disk goes unnoticed.

A checkpoint is a folder `step-00001234` of safetensors files, `record.json` and `manifest.json` with the sha256 of
each. It appears under its name only when it is complete. What is in it is the concern of `state.py`.
"""

import hashlib
import json
import logging
import os
import re
import shutil
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

_logger = logging.getLogger(__name__)

_MANIFEST, _RECORD = "manifest.json", "record.json"
_TEMPORARY = ".unfinished-"


class CheckpointError(ValueError):
    """Report a checkpoint that is incomplete or damaged."""


@dataclass(frozen=True)
class Checkpoint:
    """Hold the state of a run: tensors by file name (without suffix) and their own name, and JSON values."""

    step: int
    tensors: Mapping[str, Mapping[str, Tensor]]
    record: Mapping[str, Any]


def save_checkpoint(folder: Path, checkpoint: Checkpoint, keep: int, passed_by: Collection[int] = ()) -> Path:
    """Write a checkpoint, then remove older ones.

    Everything is written to a temporary folder and synced to disk before it gets its name, so a crash at any moment
    leaves the checkpoints before it untouched. Checkpoints of later steps, which are left over when a damaged one was
    passed by, are removed as well, and those that were passed by count for nothing.

    Args:
        folder: Where the checkpoints of the run are.
        checkpoint: What to save.
        keep: How many to keep, at least 1.
        passed_by: Steps whose checkpoints are damaged.

    Returns:
        The new checkpoint's folder.

    Raises:
        OSError: If it cannot be written; the checkpoints before it are untouched.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for leftover in folder.glob(f"{_TEMPORARY}*"):
        shutil.rmtree(leftover)
    temporary = folder / f"{_TEMPORARY}{os.getpid()}"
    try:
        _write(temporary, checkpoint)
    except (OSError, SafetensorError) as error:
        # What is half written would keep the room that the next try needs.
        shutil.rmtree(temporary, ignore_errors=True)
        raise OSError(
            f"The checkpoint of step {checkpoint.step} cannot be written to {folder} ({error}); make room there, or see "
            "that it can be written to, and start the run again: the checkpoint before is untouched."
        ) from error

    final = folder / f"step-{checkpoint.step:08d}"
    replaced = folder / f"{_TEMPORARY}{final.name}"
    if final.exists():
        final.rename(replaced)
    temporary.rename(final)
    _sync(folder)
    shutil.rmtree(replaced, ignore_errors=True)
    steps = checkpoint_steps(folder)
    damaged = set(passed_by) - {checkpoint.step}
    for step, path in steps.items():
        newer = sum(1 for other in steps if step < other <= checkpoint.step and other not in damaged)
        if step > checkpoint.step or step in damaged or newer >= keep:
            shutil.rmtree(path)
    return final


def _write(temporary: Path, checkpoint: Checkpoint) -> None:
    """Write all files of a checkpoint into a new folder, and sync them to disk."""
    temporary.mkdir()
    for name, tensors in checkpoint.tensors.items():
        contiguous = {key: value.detach().cpu().contiguous() for key, value in tensors.items()}
        save_file(contiguous, temporary / f"{name}.safetensors")
    _write_json(temporary / _RECORD, {"step": checkpoint.step, **checkpoint.record})
    _write_json(temporary / _MANIFEST, {path.name: _sha256(path) for path in sorted(temporary.iterdir())})
    for path in temporary.iterdir():
        _sync(path)
    _sync(temporary)


def checkpoint_steps(folder: Path) -> dict[int, Path]:
    """List the checkpoints of a folder, the newest first, good or not."""
    found = {}
    for path in folder.glob("step-*"):
        if match := re.fullmatch(r"step-(\d{8,})", path.name):
            found[int(match[1])] = path
    return dict(sorted(found.items(), reverse=True))


def load_checkpoint(path: Path) -> Checkpoint:
    """Load a checkpoint after comparing each of its files with the manifest.

    Args:
        path: The checkpoint's folder.

    Returns:
        Its content, tensors on the CPU. No code from the files is run.

    Raises:
        CheckpointError: If a file is missing or not what was written; the message names it.
    """
    manifest = _read_json(path / _MANIFEST)
    unlisted = sorted({file.name for file in path.glob("*.safetensors")} - set(manifest))
    if unlisted or _RECORD not in manifest:
        raise CheckpointError(f"{path / _MANIFEST} is damaged: it does not list {(unlisted or [_RECORD])[0]}.")
    for name, digest in manifest.items():
        file = path / name
        if not file.is_file():
            raise CheckpointError(f"The checkpoint lacks the file {file}; delete the checkpoint or restore the file.")
        if _sha256(file) != digest:
            raise CheckpointError(f"{file} is damaged: its sha256 is not the one in {_MANIFEST}.")
    record = _read_json(path / _RECORD)
    tensors = {Path(name).stem: load_file(path / name) for name in manifest if name.endswith(".safetensors")}
    return Checkpoint(int(record.pop("step")), tensors, record)


def load_newest(folder: Path) -> Checkpoint | None:
    """Load the newest good checkpoint, passing by damaged ones with a warning.

    Args:
        folder: Where the checkpoints of the run are.

    Returns:
        The checkpoint, or None if the folder has none at all.

    Raises:
        CheckpointError: If there are checkpoints, but none is good.
    """
    found = checkpoint_steps(folder)
    for path in found.values():
        try:
            return load_checkpoint(path)
        except CheckpointError as error:
            _logger.warning("%s Going back to the checkpoint before.", error)
    if found:
        raise CheckpointError(f"None of the {len(found)} checkpoints in {folder} is good; start in another folder.")
    return None


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _write_json(path: Path, value: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}.") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{path} holds no JSON object.")
    return value


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
