# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""Index a folder of WebDataset tar shards once, so that any sample is one read away.

The index is `.imagen-index` in the folder: a line of JSON about the shards, then 24 bytes for each sample, mapped into
memory. Samples themselves are read in `shards.py`, which calls this, as does `diffusers-imagen data index`.
"""

import hashlib
import json
import logging
import os
import tarfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path, PurePosixPath
from typing import IO, Any, NamedTuple, cast

import numpy as np
import numpy.typing as npt

from diffusers_imagen.data.schedule import name_hash
from diffusers_imagen.data.source import picture_size

_logger = logging.getLogger(__name__)

INDEX_NAME = ".imagen-index"
PICTURE_EXTENSIONS = ("jpg", "jpeg", "png", "webp", "bmp", "gif", "tif", "tiff", "ppm")
TEXT_EXTENSIONS = ("txt", "json")

_FORMAT = 1
_RECORD = np.dtype(
    [("shard", "<u4"), ("offset", "<u8"), ("length", "<u4"), ("hash", "<u4"), ("height", "<u2"), ("width", "<u2")]
)
_BLOCK = 512
_MAX_SIDE = 2**16 - 1
# A walk that is broken off loses at most this much.
_SECONDS_BETWEEN_SAVES = 60.0

Records = npt.NDArray[np.void]


@dataclass(frozen=True)
class Shard:
    """Describe a tar file as it was when it was indexed.

    Args:
        name: Path within the folder, with forward slashes.
        size: In bytes.
        mtime_ns: Time of its last change.
        samples: Samples found: groups of members of one key with a picture among them.
        digest: Hash of all members' names and sizes, and of what the captions are read from.
        damage: Why the walk ended early; None for a whole file.
    """

    name: str
    size: int
    mtime_ns: int
    samples: int
    digest: str
    damage: str | None


class ShardIndex(NamedTuple):
    """Hold the shards of a folder in the order of their names, and a record for each sample, shard after shard.

    A record has `shard` (number), `offset` and `length` (bytes of all members of the sample, headers too), `hash` (the
    upper half of the key's `name_hash`), `height` and `width` (as seen upright, 0 where unknown).
    """

    shards: tuple[Shard, ...]
    records: Records


class Member(NamedTuple):
    """Hold a file within a tar: the sample's key, the extension in lower case, and tar's own description."""

    key: str
    extension: str
    info: tarfile.TarInfo


def open_index(folder: str | Path) -> ShardIndex:
    """Read the index of a folder, after indexing the shards that are new or have changed.

    Args:
        folder: A folder with `.tar` files, in subfolders too.

    Returns:
        The index, its records mapped into memory where the folder can be written.

    Raises:
        ValueError: If there is no such folder, or no sample in it.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ValueError(f"`folder` is {str(folder)!r}, which is not a folder; give one with .tar files.")
    paths = sorted(folder.rglob("*.tar"), key=lambda path: path.relative_to(folder).as_posix())
    known = _read(folder / INDEX_NAME)
    index = known if known is not None and _is_fresh(known, folder, paths) else _walk_all(folder, paths, known)
    if not len(index.records):
        raise ValueError(f"`folder` is {str(folder)!r}, whose {len(paths)} .tar files hold no picture; give another.")
    return index


def members_of(archive: tarfile.TarFile) -> Iterator[Member]:
    """Give the files of a tar with their WebDataset keys: the path up to the first dot of the file's name."""
    for info in archive:
        if info.isfile():
            path = PurePosixPath(info.name)
            stem, _, extension = path.name.partition(".")
            if stem and extension:
                yield Member((path.parent / stem).as_posix(), extension.lower(), info)


def _is_fresh(index: ShardIndex, folder: Path, paths: list[Path]) -> bool:
    return len(paths) == len(index.shards) and all(
        _state(folder, path) == (shard.name, shard.size, shard.mtime_ns)
        for path, shard in zip(paths, index.shards, strict=True)
    )


def _state(folder: Path, path: Path) -> tuple[str, int, int]:
    stat = path.stat()
    return path.relative_to(folder).as_posix(), stat.st_size, stat.st_mtime_ns


def _walk_all(folder: Path, paths: list[Path], known: ShardIndex | None) -> ShardIndex:
    """Index a folder; shards that have not changed keep their records."""
    done = {} if known is None else _by_state(known)
    missing = sum(_state(folder, path) not in done for path in paths)
    _logger.warning("Indexing %d of the %d tar files in %s.", missing, len(paths), folder)
    found: list[tuple[Shard, Records]] = []
    saved = time.monotonic()
    for path in paths:
        state = _state(folder, path)
        found.append(done[state] if state in done else _walk(path, state))
        if time.monotonic() - saved > _SECONDS_BETWEEN_SAVES:
            _write(folder / INDEX_NAME, _join(found))
            saved = time.monotonic()
    index = _join(found)
    # From the disk, so that every process maps the same memory.
    return (_write(folder / INDEX_NAME, index) and _read(folder / INDEX_NAME)) or index


def _by_state(index: ShardIndex) -> dict[tuple[str, int, int], tuple[Shard, Records]]:
    ends = np.cumsum([shard.samples for shard in index.shards])
    return {
        (shard.name, shard.size, shard.mtime_ns): (shard, index.records[end - shard.samples : end])
        for shard, end in zip(index.shards, ends, strict=True)
    }


def _join(found: list[tuple[Shard, Records]]) -> ShardIndex:
    records = np.concatenate([np.zeros(0, _RECORD), *(part for _, part in found)])
    records["shard"] = np.repeat(np.arange(len(found)), [shard.samples for shard, _ in found])
    return ShardIndex(tuple(shard for shard, _ in found), records)


def _walk(path: Path, state: tuple[str, int, int]) -> tuple[Shard, Records]:
    """Read a shard's headers and captions."""
    rows: list[tuple[int, ...]] = []
    digest = hashlib.sha256()
    damage = None
    try:
        with tarfile.open(path, "r:") as archive:
            for key, members in groupby(members_of(archive), key=lambda member: member.key):
                row = _record_of(archive, key, list(members), digest)
                if row is not None:
                    rows.append(row)
            _check_end(path, archive.offset)
    except (tarfile.TarError, EOFError) as error:
        damage = f"{type(error).__name__}: {error}"
        _logger.warning("The shard %s is damaged (%s); the %d samples before are used.", path, damage, len(rows))
    return Shard(*state, len(rows), digest.hexdigest(), damage), np.array(rows, _RECORD)


def _check_end(path: Path, offset: int) -> None:
    """Refuse a header that is none; `tarfile` takes it for the end."""
    with path.open("rb") as file:
        file.seek(offset)
        if file.read(_BLOCK).strip(b"\0"):
            raise tarfile.ReadError(f"invalid header at byte {offset}")


def _record_of(archive: tarfile.TarFile, key: str, members: list[Member], digest: Any) -> tuple[int, ...] | None:
    start = members[0].info.offset
    end = -(-(members[-1].info.offset_data + members[-1].info.size) // _BLOCK) * _BLOCK
    size = None
    for member in members:
        digest.update(f"{key}\0{member.extension}\0{member.info.size}\0".encode(errors="surrogateescape"))
        if member.extension in TEXT_EXTENSIONS:
            digest.update(_open(archive, member).read())
        elif member.extension in PICTURE_EXTENSIONS and size is None:
            size = picture_size(_open(archive, member))
    if size is None:
        return None
    height, width = size if max(size) <= _MAX_SIDE else (0, 0)
    return 0, start, end - start, name_hash(key) >> 32, height, width


def _open(archive: tarfile.TarFile, member: Member) -> IO[bytes]:
    # Of a regular file it is never None.
    return cast(IO[bytes], archive.extractfile(member.info))


def _write(path: Path, index: ShardIndex) -> bool:
    """Write an index so that a crash leaves either the old one or the new one."""
    head = {"format": _FORMAT, "shards": [asdict(shard) for shard in index.shards]}
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(json.dumps(head).encode() + b"\n" + index.records.tobytes())
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        _logger.warning("The index %s cannot be written (%s); each run will index the shards again.", path, error)
        temporary.unlink(missing_ok=True)
        return False
    return True


def _read(path: Path) -> ShardIndex | None:
    """Read an index file, or say why it is made again."""
    if not path.is_file():
        return None
    try:
        with path.open("rb") as file:
            line = file.readline()
        head = json.loads(line)
        shards = tuple(Shard(**shard) for shard in head["shards"])
        count = sum(shard.samples for shard in shards)
        if head["format"] != _FORMAT or path.stat().st_size != len(line) + count * _RECORD.itemsize:
            raise ValueError("it has another format or size")
    except (ValueError, KeyError, TypeError) as error:
        _logger.warning("The index %s cannot be used (%s); indexing the shards again.", path, error)
        return None
    if not count:
        return ShardIndex(shards, np.zeros(0, _RECORD))
    return ShardIndex(shards, np.memmap(path, _RECORD, "r", offset=len(line), shape=(count,)))
