# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""Write a folder or a file whole or not at all. Called by converters and exports."""

import os
import shutil
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from safetensors import SafetensorError


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """Give a temporary folder beside `folder` that takes its place when the block ends, and goes when it fails.

    Args:
        folder: a place that holds nothing yet, or an empty folder.

    Raises:
        ValueError: a place that holds something, or where nothing can be written.
        OSError: a disk that is full or fails.
    """
    place = check_free(folder)
    with _temporary(place) as temporary:
        temporary.mkdir()
        yield temporary
        check_free(folder)
        if place.is_dir():
            place.rmdir()
        temporary.replace(place)


@contextmanager
def new_file(file: Path) -> Iterator[Path]:
    """Give a temporary place beside `file` that takes its place when the block ends, and goes when it fails.

    Args:
        file: a place where nothing is yet.

    Raises:
        ValueError: a place where something is, or where nothing can be written.
        OSError: a disk that is full or fails.
    """
    place = check_free(file, is_file=True)
    with _temporary(place) as temporary:
        yield temporary
        check_free(file, is_file=True)
        temporary.replace(place)


def check_free(place: Path, is_file: bool = False) -> Path:
    """Refuse a place that holds something or cannot be written to, before anything is read.

    Args:
        place: of a folder that is to be, which may be there if it is empty, or of a file.
        is_file: whether of a file.

    Returns:
        The place without links.

    Raises:
        ValueError: naming the place.
    """
    try:
        real = place.resolve()
        is_free = not real.exists() or (not is_file and real.is_dir() and not any(real.iterdir()))
        parent = next(folder for folder in real.parents if folder.exists())
    except (OSError, RuntimeError) as error:
        raise ValueError(f"{str(place)!r} cannot be looked at ({error}); give another place.") from error
    if not is_free:
        wanted = "file" if is_file else "or an empty folder"
        raise ValueError(f"{str(place)!r} holds something already; give a new {wanted}.")
    if real == Path.cwd():
        raise ValueError(f"{str(place)!r} is the folder that this runs in, which cannot be replaced; give another.")
    if not parent.is_dir() or not os.access(parent, os.W_OK | os.X_OK):
        raise ValueError(f"{str(place)!r} cannot be made, as {str(parent)!r} is no folder that can be written to.")
    return real


@contextmanager
def _temporary(place: Path) -> Iterator[Path]:
    """Give a name beside a place; what is there when the block ends, however it ends, is removed."""
    temporary = place.with_name(f".{place.name}.{os.getpid()}.tmp")
    made = [folder for folder in place.parents if not folder.exists()]
    with _ended_by_signals():
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            yield temporary
        except BaseException as error:
            _remove(temporary)
            for folder in made:
                if folder.is_dir() and not any(folder.iterdir()):
                    folder.rmdir()
            if isinstance(error, SafetensorError):
                raise OSError(f"{str(place)!r} could not be written: {error}") from error
            raise


def _remove(place: Path) -> None:
    if place.is_dir():
        shutil.rmtree(place, ignore_errors=True)
    else:
        place.unlink(missing_ok=True)


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    """Have the signals that end a program end the block by an exception, unless the program handles them itself."""

    def end(number: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    names = [name for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    is_main = threading.current_thread() is threading.main_thread()
    ending = [one for name in names if is_main and signal.getsignal(one := getattr(signal, name)) is signal.SIG_DFL]
    for one in ending:
        signal.signal(one, end)
    try:
        yield
    finally:
        for one in ending:
            signal.signal(one, signal.SIG_DFL)
