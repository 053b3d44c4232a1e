# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""Read WebDataset and img2dataset tar shards as an indexed source: index -> picture.

A sample is the members of one key: a picture, and a caption in `.txt` or in fields of `.json`. Where each lies is
found in `shard_index.py`. Called where a run opens its data.
"""

import hashlib
import io
import json
import os
import tarfile
from collections.abc import Sequence
from contextlib import suppress
from itertools import groupby
from pathlib import Path, PurePosixPath

import numpy as np
import numpy.typing as npt

from diffusers_imagen.data.folder import captions_of
from diffusers_imagen.data.quarantine import Quarantine
from diffusers_imagen.data.shard_index import (
    PICTURE_EXTENSIONS,
    TEXT_EXTENSIONS,
    ShardIndex,
    members_of,
    open_index,
)
from diffusers_imagen.data.source import PictureSource, StoredPicture, is_text


class TarShards(PictureSource):
    """Give the pictures of tar shards by index, each by one read.

    Args:
        folder: The folder of the shards.
        index: What is in them.
        places: Numbers of the samples that are given, ascending.
        side: Height and width of the pictures given.
        window: Shards that are shuffled together.
        quarantine: What keeps the list of bad pictures, or the file that shall list them; None for warnings only.
        caption_fields: Fields of the `.json` members that hold captions; none for the `.txt` members.
    """

    def __init__(
        self,
        folder: str | Path,
        index: ShardIndex,
        places: npt.NDArray[np.int64],
        side: int,
        window: int = 16,
        quarantine: Quarantine | str | Path | None = None,
        caption_fields: Sequence[str] = (),
    ) -> None:
        super().__init__(side, quarantine)
        self.window = window
        self._folder = Path(folder)
        self._shards, self._records = index
        self._places = places
        self._fields = tuple(caption_fields)

    @classmethod
    def open(
        cls,
        folder: str | Path,
        side: int,
        held_out: bool = False,
        validation_fraction: float = 0.0,
        window: int = 16,
        quarantine: Quarantine | str | Path | None = None,
        caption_fields: Sequence[str] = (),
    ) -> "TarShards":
        """Find the samples of a folder's shards, through its index, which is made if need be.

        Args:
            folder: A folder with `.tar` files, in subfolders too.
            side: Height and width of the pictures given.
            held_out: Give the held-out pictures instead of those for training.
            validation_fraction: Share of pictures that is held out, chosen by key.
            window: Shards that are shuffled together.
            quarantine: What keeps the list of bad pictures, or the file that shall list them.
            caption_fields: Fields of the `.json` members that hold captions; none for the `.txt` members.

        Returns:
            The source, ordered by shard and place within it.

        Raises:
            ValueError: If there is no such folder, or no picture is left.
        """
        if not 0 <= validation_fraction < 1:
            raise ValueError(f"`validation_fraction` is {validation_fraction}; give a share in [0, 1).")
        index = open_index(folder)
        places = np.flatnonzero((index.records["hash"] < validation_fraction * 2**32) == held_out)
        if not len(places):
            kind = "held-out" if held_out else "training"
            raise ValueError(
                f"`folder` is {str(folder)!r}, whose {len(index.records)} samples give no {kind} picture; "
                "add pictures or change `validation_fraction`."
            )
        return cls(folder, index, places, side, window, quarantine, caption_fields)

    def __len__(self) -> int:
        return len(self._places)

    def name(self, index: int) -> str:
        """Give shard and file, such as `00001/000010042.jpg`."""
        try:
            return self._members(index)[0]
        except (OSError, ValueError):
            record = self._records[self._places[index]]
            return f"{self._shards[int(record['shard'])].name}, byte {record['offset']}"

    def read(self, index: int) -> StoredPicture:
        """Read a sample's picture and captions.

        Raises:
            ValueError: If the sample is not what was indexed, or the captions are not where `caption_fields` says.
            OSError: If the shard cannot be reached.
        """
        name, members = self._members(index)
        content = next(members[extension] for extension in members if extension in PICTURE_EXTENSIONS)
        return StoredPicture(name, content, self._captions_in(members))

    def check_low_res_names(self) -> None:
        """Pass: pictures of one shard and one key are one sample, so no two have the same name but for the ending."""

    def picture_sizes(self) -> npt.NDArray[np.int64]:
        """Give height and width of all pictures, (N, 2), as the index has them."""
        chosen = self._records[self._places]
        return np.stack([chosen["height"], chosen["width"]], axis=1).astype(np.int64)

    @property
    def groups(self) -> npt.NDArray[np.int64]:
        """First index of each shard."""
        _, starts = np.unique(self._records["shard"][self._places], return_index=True)
        return starts.astype(np.int64)

    @property
    def captions(self) -> set[str]:
        """All captions in the shards, held-out ones too, from a walk through the tars that passes over pictures."""
        captions: set[str] = set()
        for shard in self._shards:
            # What is damaged was told when it was indexed.
            with suppress(tarfile.TarError), tarfile.open(self._folder / shard.name, "r:") as archive:
                for _, group in groupby(members_of(archive), key=lambda member: member.key):
                    members: dict[str, bytes] = {}
                    for member in group:
                        file = archive.extractfile(member.info) if member.extension in TEXT_EXTENSIONS else None
                        members.setdefault(member.extension, b"" if file is None else file.read())
                    captions.update(self._readable_captions_in(members))
        return captions

    @property
    def content_digest(self) -> str:
        """A hash of the shards' layouts and captions, the choice among them and their order."""
        shards = [(shard.name, shard.digest) for shard in self._shards]
        chosen = hashlib.sha256(self._places.tobytes()).hexdigest()
        return hashlib.sha256(json.dumps([shards, chosen, self._fields, self.window]).encode()).hexdigest()

    def _members(self, index: int) -> tuple[str, dict[str, bytes]]:
        """Read all files of a sample, by extension, and the name of its picture."""
        record = self._records[self._places[index]]
        shard = self._shards[int(record["shard"])].name
        content = _read_at(self._folder / shard, int(record["offset"]), int(record["length"]))
        name: str | None = None
        members: dict[str, bytes] = {}
        try:
            with tarfile.open(fileobj=io.BytesIO(content), mode="r:") as archive:
                for member in members_of(archive):
                    file = archive.extractfile(member.info)
                    members.setdefault(member.extension, b"" if file is None else file.read())
                    if name is None and member.extension in PICTURE_EXTENSIONS:
                        name = (PurePosixPath(shard).with_suffix("") / member.info.name).as_posix()
        except tarfile.TarError as error:
            raise ValueError(f"{shard} has changed since it was indexed: {error}") from error
        if name is None:
            raise ValueError(f"{shard} has changed since it was indexed")
        return name, members

    def _readable_captions_in(self, members: dict[str, bytes]) -> tuple[str, ...]:
        try:
            return tuple(caption for caption in self._captions_in(members) if is_text(caption))
        except ValueError:
            # Told when the sample is read.
            return ()

    def _captions_in(self, members: dict[str, bytes]) -> tuple[str, ...]:
        if not self._fields:
            return (members["txt"].decode("utf-8-sig", errors="replace").strip(),) if "txt" in members else ()
        if "json" not in members:
            raise ValueError("there is no .json with its captions")
        return captions_of(json.loads(members["json"].decode("utf-8-sig", errors="replace")), self._fields)


def _read_at(path: Path, offset: int, length: int) -> bytes:
    file = os.open(path, os.O_RDONLY)
    try:
        return os.pread(file, length, offset)
    finally:
        os.close(file)
