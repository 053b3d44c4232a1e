# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""Read a folder of pictures with captions as an indexed source: index -> picture.

Captions are in `metadata.jsonl`, a line `{"file_name": "a/1.png", "text": "a cat"}` for each picture (`text` may be a
list of equally good captions), or in a `.txt` file beside each picture. Called by the training loop's batches.
"""

import hashlib
import json
import logging
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from diffusers_imagen.data.schedule import is_held_out
from diffusers_imagen.data.transforms import to_rgb, to_square

_logger = logging.getLogger(__name__)

_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff")
# What PIL raises for files that are truncated, damaged, of an unknown kind or absurdly large.
_BAD_PICTURE = (
    OSError, SyntaxError, ValueError, EOFError, UnidentifiedImageError, Image.DecompressionBombError, MemoryError
)  # fmt: skip


@dataclass(frozen=True)
class Picture:
    """Hold a picture: pixels (side, side, 3) of 0 to 255, its captions and its file name within the folder."""

    pixels: npt.NDArray[np.uint8]
    captions: tuple[str, ...]
    file_name: str


class ImageFolder:
    """Give the pictures of a folder by index, squared and resized to one side.

    A picture that cannot be read is put into quarantine: named in a warning and in the quarantine file, and replaced by
    the next good one, always the same.

    Args:
        folder: The folder.
        entries: File names within the folder and the captions of each.
        side: Height and width of the pictures given.
        quarantine: A file that lists what could not be read, one JSON line each; None for the warning only.
    """

    def __init__(
        self,
        folder: str | Path,
        entries: Sequence[tuple[str, tuple[str, ...]]],
        side: int,
        quarantine: str | Path | None = None,
    ) -> None:
        self._folder = Path(folder)
        self._entries = list(entries)
        self._side = side
        self._quarantine = None if quarantine is None else Path(quarantine)
        self._bad: set[int] = set()
        self._lock = threading.Lock()

    @classmethod
    def open(
        cls,
        folder: str | Path,
        side: int,
        held_out: bool = False,
        validation_fraction: float = 0.0,
        quarantine: str | Path | None = None,
    ) -> "ImageFolder":
        """List the pictures of a folder without reading them.

        Args:
            folder: A folder with `metadata.jsonl`, or with a `.txt` file beside each picture.
            side: Height and width of the pictures given.
            held_out: Give the held-out pictures instead of those for training.
            validation_fraction: Share of pictures that is held out, chosen by file name.
            quarantine: A file that shall list what cannot be read.

        Returns:
            The source, ordered by file name.

        Raises:
            ValueError: If the folder or its metadata is missing or malformed, or no picture is left.
        """
        folder = Path(folder)
        entries = read_entries(folder)
        chosen = [entry for entry in entries if is_held_out(entry[0], validation_fraction) == held_out]
        if not chosen:
            kind = "held-out" if held_out else "training"
            raise ValueError(
                f"`folder` is {str(folder)!r}, whose {len(entries)} captioned pictures give no {kind} picture; "
                "add pictures or change `validation_fraction`."
            )
        return cls(folder, chosen, side, quarantine)

    def __len__(self) -> int:
        return len(self._entries)

    def __getitem__(self, index: int) -> Picture:
        """Read the picture at an index, or the next one that can be read.

        Raises:
            ValueError: If no picture of the folder can be read.
            IndexError: If the index is not in [0, len).
        """
        if not 0 <= index < len(self):
            raise IndexError(f"`index` is {index}, but the folder has {len(self)} pictures.")
        for step in range(len(self)):
            place = (index + step) % len(self)
            pixels = None if place in self._bad else self._read(place)
            if pixels is not None:
                file_name, captions = self._entries[place]
                return Picture(pixels, captions, file_name)
        raise ValueError(f"None of the {len(self)} pictures in {str(self._folder)!r} can be read; see the warnings.")

    @property
    def captions(self) -> set[str]:
        """All captions of the folder, of pictures in quarantine too."""
        return {caption for _, captions in self._entries for caption in captions}

    @property
    def digest(self) -> str:
        """Tell collections apart: a hash of all file names and captions in their order."""
        return hashlib.sha256(json.dumps(self._entries).encode()).hexdigest()

    def _read(self, place: int) -> npt.NDArray[np.uint8] | None:
        file_name = self._entries[place][0]
        try:
            with Image.open(self._folder / file_name) as image:
                return np.array(to_square(to_rgb(image), self._side))
        except _BAD_PICTURE as error:
            self._put_in_quarantine(place, f"{type(error).__name__}: {error}")
            return None

    def _put_in_quarantine(self, place: int, reason: str) -> None:
        file_name = self._entries[place][0]
        with self._lock:
            if place in self._bad:
                return
            self._bad.add(place)
            _logger.warning("The picture %s cannot be read (%s); the next one takes its place.", file_name, reason)
            # A resumed run finds the same pictures again.
            if self._quarantine is not None and file_name not in _listed(self._quarantine):
                with self._quarantine.open("a", encoding="utf-8") as file:
                    file.write(json.dumps({"file_name": file_name, "reason": reason}, ensure_ascii=False) + "\n")


def read_entries(folder: Path) -> list[tuple[str, tuple[str, ...]]]:
    """List the pictures of a folder with their captions, ordered by file name.

    Args:
        folder: A folder with `metadata.jsonl` or with `.txt` files.

    Returns:
        File names within the folder, with forward slashes, and the captions of each.

    Raises:
        ValueError: If the folder is missing, `metadata.jsonl` is malformed or a picture has no caption.
    """
    if not folder.is_dir():
        raise ValueError(f"`folder` is {str(folder)!r}, which is not a folder; give one with captioned pictures.")
    metadata = folder / "metadata.jsonl"
    entries = _entries_of_metadata(metadata) if metadata.is_file() else _entries_of_sidecars(folder)
    if not entries:
        raise ValueError(f"`folder` is {str(folder)!r}, which has no pictures; give one with captioned pictures.")
    names = [file_name for file_name, _ in entries]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{metadata} names {twice!r} twice; give one line with a list of captions.")
    return sorted(entries)


def _listed(quarantine: Path) -> set[str]:
    if not quarantine.is_file():
        return set()
    return {json.loads(line)["file_name"] for line in quarantine.read_text(encoding="utf-8").splitlines()}


def _entries_of_metadata(metadata: Path) -> list[tuple[str, tuple[str, ...]]]:
    entries = []
    for number, line in enumerate(metadata.read_text(encoding="utf-8").splitlines(), start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
            file_name, text = record["file_name"], record["text"]
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            raise ValueError(f"{metadata}, line {number}: give an object with `file_name` and `text`.") from error
        captions = (text,) if isinstance(text, str) else tuple(text)
        if not captions or not all(isinstance(caption, str) for caption in captions):
            raise ValueError(f"{metadata}, line {number}: `text` is {text!r}; give a string or a list of strings.")
        entries.append((file_name, captions))
    return entries


def _entries_of_sidecars(folder: Path) -> list[tuple[str, tuple[str, ...]]]:
    entries: list[tuple[str, tuple[str, ...]]] = []
    for path in folder.rglob("*"):
        if path.suffix.lower() not in _SUFFIXES:
            continue
        sidecar = path.with_suffix(".txt")
        if not sidecar.is_file():
            raise ValueError(f"{path} has no caption; write {sidecar.name} beside it, or a metadata.jsonl.")
        caption = sidecar.read_text(encoding="utf-8").strip()
        entries.append((path.relative_to(folder).as_posix(), (caption,)))
    return entries
