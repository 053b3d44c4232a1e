# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""Store text embeddings of different lengths, a few thousand captions to a safetensors file, and find them again.

A file is written whole or not at all and read a caption at a time, each with a checksum. What is stored and when is
decided in `cache.py`, which calls this.
"""

import hashlib
import os
import uuid
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from diffusers_imagen.text.captions import check_characters

Numbers = npt.NDArray[np.int64]


class CacheFileError(ValueError):
    """Say that a file of text embeddings is damaged."""


@dataclass(frozen=True)
class CacheBlock:
    """Hold the embeddings of a few thousand captions, in memory or in a file.

    Args:
        hashes: `caption_hash` of each caption (N,).
        offsets: Where each caption's tokens begin, and the end of the last one (N + 1,).
        checksums: CRC-32 of each caption's bytes (N,).
        tokens: Hidden states of all captions one after the other (sum of lengths, D), a tensor or a file's slice.
        origin: The file; None for memory.
    """

    hashes: Numbers
    offsets: Numbers
    checksums: Numbers
    tokens: Any
    origin: Path | None = None

    def row(self, number: int) -> Tensor:
        """Give the hidden states (L, D) of one caption.

        Raises:
            CacheFileError: If the file's bytes are not those that were written.
        """
        states: Tensor = self.tokens[int(self.offsets[number]) : int(self.offsets[number + 1])]
        if _checksum(states) != self.checksums[number]:
            raise CacheFileError(
                f"The text cache {self.origin} is damaged; delete it, and the next run makes it again."
            )
        return states


def make_block(captions: list[str], rows: list[Tensor], width: int) -> CacheBlock:
    """Put the hidden states (L, D) of captions together, `width` being D."""
    dtype = rows[0].dtype if rows else torch.bfloat16
    tokens = torch.cat([torch.zeros(0, width, dtype=dtype), *rows]).contiguous()
    return CacheBlock(
        np.array([caption_hash(caption) for caption in captions], np.int64),
        np.cumsum([0, *map(len, rows)], dtype=np.int64),
        np.array([_checksum(row) for row in rows], np.int64),
        tokens,
    )


def write_block(folder: Path, block: CacheBlock, metadata: Mapping[str, str]) -> Path:
    """Write a block so that a crash leaves either nothing or all of it.

    Args:
        folder: Of the file, which is named by the captions in it.
        block: What is written.
        metadata: What a person may want to know about it.

    Returns:
        The file.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / block_name(block.hashes)
    # Processes of other machines or containers may write here too, under the same process number.
    temporary = path.with_name(f"{path.name}.{uuid.uuid4().hex}.tmp")
    tensors = {name: torch.from_numpy(getattr(block, name)) for name in ("hashes", "offsets", "checksums")}
    try:
        save_file({"tokens": block.tokens, **tensors}, temporary, metadata={**metadata, "table": _table_digest(block)})
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return path


def block_name(hashes: Numbers) -> str:
    """Give the name of the file that holds the captions of these hashes (N,)."""
    return f"{hashlib.sha256(hashes.tobytes()).hexdigest()[:16]}.safetensors"


def read_block(path: Path) -> CacheBlock:
    """Open a file of embeddings; only its tables are read and verified, the embeddings when they are asked for.

    Raises:
        CacheFileError: If it is damaged.
        FileNotFoundError: If it is not there.
    """
    try:
        # It maps the file into memory and needs no closing.
        file = safe_open(path, framework="pt")
        hashes, offsets, checksums = (file.get_tensor(name).numpy() for name in ("hashes", "offsets", "checksums"))
        block = CacheBlock(hashes, offsets, checksums, file.get_slice("tokens"), path)
        digest = file.metadata()["table"]
    except (SafetensorError, OSError, RuntimeError, KeyError, TypeError) as error:
        # It is opened twice, and another process may remove it in between.
        if not os.access(path, os.F_OK):
            raise FileNotFoundError(f"The text cache {path} is gone.") from error
        raise CacheFileError(f"The text cache {path} cannot be read: {error}") from error
    if digest != _table_digest(block):
        raise CacheFileError(f"The text cache {path} is damaged.")
    return block


def caption_hash(caption: str) -> int:
    """Give the number of 64 bits under which a caption's embedding is kept.

    Raises:
        ValueError: If the caption is no valid Unicode.
    """
    check_characters("captions", caption)
    return int.from_bytes(hashlib.sha256(caption.encode()).digest()[:8], "big", signed=True)


def _checksum(states: Tensor) -> int:
    return zlib.crc32(states.contiguous().view(torch.uint8).numpy().data)


def _table_digest(block: CacheBlock) -> str:
    tables = block.hashes.tobytes() + block.offsets.tobytes() + block.checksums.tobytes()
    return hashlib.sha256(tables).hexdigest()
