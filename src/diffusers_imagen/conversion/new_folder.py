# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""Write a folder of files whole or not at all. Called by converters and exports."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """Give a temporary folder beside `folder` that takes its place when the block ends, and goes when it fails.

    Args:
        folder: a place that holds nothing yet, or an empty folder.

    Raises:
        ValueError: a place that holds something.
    """
    check_free(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    temporary.mkdir()
    try:
        yield temporary
        check_free(folder)
        if folder.is_dir():
            folder.rmdir()
        temporary.replace(folder)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def check_free(folder: Path) -> None:
    """Refuse a place that holds something.

    Raises:
        ValueError: if it does.
    """
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise ValueError(f"{str(folder)!r} holds something already; give a new or an empty folder.")
