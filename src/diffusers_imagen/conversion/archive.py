# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""Read what `torch.save` wrote, and write it, without running anything that a stranger put into it.

A pickle is a program. PyTorch's restricted reader knows tensors and plain containers and refuses all else, so a file
either holds data or is not read. Called by the converters.
"""

import pickle
import re
import shutil
import zipfile
import zlib
from pathlib import Path
from typing import Any

import torch

from diffusers_imagen.conversion.new_folder import new_file

# What the reader, and the archive code under it, raise for files that are damaged or of another kind.
_DAMAGE = (RuntimeError, ValueError, EOFError, OSError, KeyError, IndexError, AttributeError, TypeError, MemoryError)


def read_archive(path: Path) -> Any:
    """Return the data in a file that `torch.save` wrote, its tensors mapped from the file where that is possible.

    Args:
        path: a `.pt` or `.pth` file.

    Raises:
        ValueError: no file there, a damaged one, or one that holds anything but tensors, numbers, strings and plain
            containers; nothing in it is run.
    """
    if not path.is_file():
        raise ValueError(f"`path` is {str(path)!r}, and there is no such file; check the path.")
    check_sums(path)
    try:
        return _load(path)
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"`path` is {str(path)!r}, which holds more than tensors and plain data, and was not read: "
            f"{_stranger(error)}. Save the state dict alone, `torch.save(imagen.state_dict(), ...)`, where the file "
            "was made."
        ) from error
    except _DAMAGE as error:
        raise ValueError(
            f"`path` is {str(path)!r}, which cannot be read as a file of `torch.save`: {_first_line(error)} It may be "
            "cut off, damaged, or of another kind; fetch it again."
        ) from error


def write_archive(data: Any, path: Path) -> None:
    """Write a new file with `torch.save`, whole or not at all.

    Args:
        data: tensors and plain data.
        path: where nothing is yet.

    Raises:
        ValueError: a place where something is, or where nothing can be written.
        OSError: a disk that is full or fails.
    """
    with new_file(path) as temporary:
        try:
            torch.save(data, temporary)
        except RuntimeError as error:
            room = shutil.disk_usage(temporary.parent).free // 2**20
            raise OSError(
                f"{str(path)!r} could not be written, {room} MiB are free there: {_first_line(error)}"
            ) from error


def check_sums(path: Path) -> None:
    """Read a file once and compare it with the check sums in it, as PyTorch's reader does not.

    Args:
        path: of `torch.save`; one of the format before PyTorch 1.6 has no check sums, and one that was saved without
            (`torch.serialization.set_crc32_options(False)`) has zeros.

    Raises:
        ValueError: a file that does not fit them.
    """
    if not zipfile.is_zipfile(path):
        return
    try:
        with zipfile.ZipFile(path) as archive:
            has_sums = any(entry.CRC for entry in archive.infolist())
            damaged = archive.testzip() if has_sums else None
    except (*_DAMAGE, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(f"`path` is {str(path)!r}, which is damaged: {_first_line(error)} Fetch it again.") from error
    if damaged is not None:
        raise ValueError(
            f"`path` is {str(path)!r}, which is damaged: the check sum of {damaged!r} differs. Fetch it again."
        )


def _load(path: Path) -> Any:
    if zipfile.is_zipfile(path):
        return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    # The format before PyTorch 1.6, which cannot be mapped.
    return torch.load(path, map_location="cpu", weights_only=True)


def _stranger(error: Exception) -> str:
    """Return what a pickle asked for; the rest of PyTorch's message is advice on how to run it after all."""
    found = re.search(r"GLOBAL (\S+)", str(error))
    return f"it asks for {found[1]}" if found else "it is more than a description of data"


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return lines[0].rstrip(".") + "."
