# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""Read a folder of pictures with captions as an indexed source: index -> picture.

Captions are in `metadata.jsonl`, a line `{"file_name": "a/1.png", "text": "a cat"}` for each picture (`text` may be a
list of equally good captions), or in a `.txt` file beside each picture. Called by the training loop's batches.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from diffusers_imagen.data.quarantine import Quarantine
from diffusers_imagen.data.schedule import is_held_out
from diffusers_imagen.data.source import PictureSource, StoredPicture, is_text, picture_size

PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff")


class ImageFolder(PictureSource):
    """Give the pictures of a folder by index.

    Args:
        folder: The folder.
        entries: File names within the folder and the captions of each.
        side: Height and width of the pictures given.
        quarantine: What keeps the list of bad pictures, or the file that shall list them; None for warnings only.
    """

    def __init__(
        self,
        folder: str | Path,
        entries: Sequence[tuple[str, tuple[str, ...]]],
        side: int,
        quarantine: Quarantine | str | Path | None = None,
    ) -> None:
        super().__init__(side, quarantine)
        self._folder = Path(folder)
        self._entries = list(entries)

    @classmethod
    def open(
        cls,
        folder: str | Path,
        side: int,
        held_out: bool = False,
        validation_fraction: float = 0.0,
        quarantine: Quarantine | str | Path | None = None,
        caption_fields: Sequence[str] = (),
        prompts: Sequence[str] = (),
    ) -> "ImageFolder":
        """List the pictures of a folder without reading them.

        Args:
            folder: A folder with `metadata.jsonl`, or with a `.txt` file beside each picture.
            side: Height and width of the pictures given.
            held_out: Give the held-out pictures instead of those for training.
            validation_fraction: Share of pictures that is held out, chosen by file name.
            quarantine: What keeps the list of bad pictures, or the file that shall list them.
            caption_fields: Fields of `metadata.jsonl` that hold captions; none for `text`.
            prompts: Captions of the pictures that have no `.txt` file; none to refuse these.

        Returns:
            The source, ordered by file name.

        Raises:
            ValueError: If the folder or its metadata is missing or malformed, or no picture is left.
        """
        folder = Path(folder)
        entries = read_entries(folder, caption_fields, prompts)
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

    def name(self, index: int) -> str:
        """Give the file name within the folder."""
        return self._entries[index][0]

    def read(self, index: int) -> StoredPicture:
        """Read a picture's file.

        Raises:
            OSError: If it cannot be reached.
        """
        file_name, captions = self._entries[index]
        return StoredPicture(file_name, (self._folder / file_name).read_bytes(), captions)

    def stored_size(self, index: int) -> tuple[int, int]:
        """Read height and width from a picture's header, (0, 0) where there is none."""
        return picture_size(self._folder / self._entries[index][0])

    @property
    def captions(self) -> set[str]:
        """All captions of the folder, of pictures that cannot be read too."""
        return {caption for _, captions in self._entries for caption in captions if is_text(caption)}

    @property
    def content_digest(self) -> str:
        """A hash of all file names and captions in their order."""
        return hashlib.sha256(json.dumps(self._entries).encode()).hexdigest()


def read_entries(
    folder: Path, caption_fields: Sequence[str] = (), prompts: Sequence[str] = ()
) -> list[tuple[str, tuple[str, ...]]]:
    """List the pictures of a folder with their captions, ordered by file name.

    Bytes that are not UTF-8 become U+FFFD in a caption; a byte order mark is passed over.

    Args:
        folder: A folder with `metadata.jsonl` or with `.txt` files.
        caption_fields: Fields of `metadata.jsonl` that hold captions; none for `text`.
        prompts: Captions of the pictures that have no `.txt` file; none to refuse these.

    Returns:
        File names within the folder, with forward slashes, and the captions of each.

    Raises:
        ValueError: If the folder is missing, `metadata.jsonl` is malformed or a picture has no caption.
    """
    if not folder.is_dir():
        raise ValueError(f"`folder` is {str(folder)!r}, which is not a folder; give one with captioned pictures.")
    metadata = folder / "metadata.jsonl"
    entries = (
        _entries_of_metadata(metadata, caption_fields or ("text",))
        if metadata.is_file()
        else _entries_of_sidecars(folder, tuple(prompts))
    )
    if not entries:
        raise ValueError(f"`folder` is {str(folder)!r}, which has no pictures; give one with captioned pictures.")
    names = [file_name for file_name, _ in entries]
    if len(set(names)) < len(names):
        twice = next(name for name, following in pairwise(sorted(names)) if name == following)
        raise ValueError(f"{metadata} names {twice!r} twice; give one line with a list of captions.")
    return sorted(entries)


def captions_of(record: Mapping[str, object], fields: Sequence[str]) -> tuple[str, ...]:
    """Collect captions from fields that hold a string, a list of strings or null.

    Args:
        record: What is known of a picture.
        fields: The fields of it that hold captions.

    Returns:
        All captions; none where all fields are null.

    Raises:
        ValueError: If a field is missing or holds anything else.
    """
    captions: list[str] = []
    for field in fields:
        if field not in record:
            raise ValueError(f"there is no `{field}`, only {', '.join(record)}")
        value = record[field]
        several: list[Any] = list(value) if isinstance(value, list | tuple) else [] if value is None else [value]
        if not all(isinstance(caption, str) for caption in several):
            raise ValueError(f"`{field}` is {value!r}; give a string or a list of strings")
        captions += several
    return tuple(captions)


def _entries_of_metadata(metadata: Path, fields: Sequence[str]) -> list[tuple[str, tuple[str, ...]]]:
    entries = []
    for number, line in enumerate(metadata.read_text(encoding="utf-8-sig", errors="replace").split("\n"), start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
            file_name, values = record["file_name"], [record[field] for field in fields]
        except json.JSONDecodeError as error:
            raise ValueError(f"{metadata}, line {number}: this is no JSON ({error}); mend the line.") from error
        except (KeyError, TypeError) as error:
            names = " and ".join(f"`{field}`" for field in ("file_name", *fields))
            raise ValueError(f"{metadata}, line {number}: give an object with {names}.") from error
        if not isinstance(file_name, str) or not file_name:
            raise ValueError(
                f"{metadata}, line {number}: `file_name` is {file_name!r}; give a name within the folder."
            )
        try:
            captions = captions_of(record, fields)
        except ValueError as error:
            raise ValueError(f"{metadata}, line {number}: {error}.") from error
        if not captions:
            raise ValueError(f"{metadata}, line {number}: `{fields[0]}` is {values[0]!r}; give at least one caption.")
        entries.append((file_name, captions))
    return entries


def _entries_of_sidecars(folder: Path, prompts: tuple[str, ...]) -> list[tuple[str, tuple[str, ...]]]:
    entries: list[tuple[str, tuple[str, ...]]] = []
    for path in folder.rglob("*"):
        if path.suffix.lower() not in PICTURE_SUFFIXES:
            continue
        sidecar = path.with_suffix(".txt")
        captions = prompts
        if sidecar.is_file():
            captions = (sidecar.read_text(encoding="utf-8-sig", errors="replace").strip(),)
        if not captions:
            raise ValueError(
                f"{path} has no caption; write {sidecar.name} beside it, or a metadata.jsonl, or give one prompt for all "
                "such pictures (`data.prompts`)."
            )
        entries.append((path.relative_to(folder).as_posix(), captions))
    return entries
