# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""List the pictures that cannot be used, each once, and stop when they are too many.

What makes a picture unusable is decided by `source.py`, which calls this.
"""

import json
import logging
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import IO

if sys.platform != "win32":
    import fcntl

_logger = logging.getLogger(__name__)

# With fewer pictures tried, a few bad ones say nothing about the whole.
_LEAST_TRIED = 1000


class Quarantine:
    """Remember which pictures cannot be used, warn of each and write it to a file.

    Several processes may share the file; a resumed run finds its pictures listed and does not list them again.

    Args:
        path: The file, one JSON line `{"file_name": ..., "reason": ...}` for each picture; None for the warnings only.
        max_fraction: Largest share in [0, 1] of bad pictures among those tried so far, or the first thousand.

    Raises:
        ValueError: If `max_fraction` is not in [0, 1].
    """

    def __init__(self, path: str | Path | None = None, max_fraction: float = 1.0) -> None:
        if not 0 <= max_fraction <= 1:
            raise ValueError(f"`max_bad_fraction` is {max_fraction}; give a share in [0, 1].")
        self._path = None if path is None else Path(path)
        self._max_fraction = max_fraction
        self._bad: set[int] = set()
        self._tried = 0
        self._lock = threading.Lock()

    def __contains__(self, index: int) -> bool:
        return index in self._bad

    def __len__(self) -> int:
        return len(self._bad)

    def count_try(self) -> None:
        """Note that one more picture is about to be read."""
        with self._lock:
            self._tried += 1

    def add(self, index: int, name: str, reason: str, size: int) -> None:
        """Put a picture into quarantine, unless it is there.

        Args:
            index: Of the picture in its source.
            name: What a person finds it by.
            reason: Why it cannot be used.
            size: Number of pictures of the source.

        Raises:
            ValueError: If too large a share is bad.
        """
        with self._lock:
            if index in self._bad:
                return
            self._bad.add(index)
            _logger.warning("The picture %s cannot be read (%s); the next one takes its place.", name, reason)
            if self._path is not None:
                _append_once(self._path, {"file_name": name, "reason": reason})
            tried = min(size, max(self._tried, len(self._bad), _LEAST_TRIED))
            if len(self._bad) > self._max_fraction * tried:
                where = "" if self._path is None else f"; {self._path} lists them"
                raise ValueError(
                    f"{len(self._bad)} of {tried} pictures cannot be read, more than the share {self._max_fraction} "
                    f"that `data.max_bad_fraction` allows; the last is {name} ({reason}){where}."
                )


def _append_once(path: Path, entry: dict[str, str]) -> None:
    line = json.dumps(entry, ensure_ascii=False) + "\n"
    with path.open("a+", encoding="utf-8", errors="backslashreplace") as file:
        _lock_file(file)
        file.seek(0)
        known = file.read()
        if entry["file_name"] not in _names_in(known):
            # A crash may have cut the last line.
            file.write(line if not known or known.endswith("\n") else f"\n{line}")


def _names_in(lines: str) -> set[str]:
    """Give the pictures that are listed; lines that a crash cut short are passed over."""
    names = set()
    for line in lines.split("\n"):
        # A line that a crash cut short names nothing; its picture is listed anew when it is met again.
        with suppress(ValueError, KeyError, TypeError):
            names.add(json.loads(line)["file_name"])
    return names


def _lock_file(file: IO[str]) -> None:
    """Wait until no other process writes; closing the file gives it free."""
    if sys.platform != "win32":
        fcntl.flock(file, fcntl.LOCK_EX)
