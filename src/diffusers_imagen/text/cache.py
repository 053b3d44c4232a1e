# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""Keep the text embeddings of training captions, encoded once, without padding, in bfloat16.

The cache lies in memory, or in a folder with a subfolder for each encoder and settings; its files are in
`cache_files.py`. Called by the training loop.
"""

import hashlib
import logging
import os
from collections.abc import Iterable, Sequence
from itertools import chain
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils.logging import tqdm

from diffusers_imagen.text.cache_files import (
    CacheBlock,
    CacheFileError,
    caption_hash,
    make_block,
    read_block,
    write_block,
)
from diffusers_imagen.text.cache_identity import cache_identity, identity_name
from diffusers_imagen.text.encoding import TextEmbeddings, TextSettings, encode_text

_logger = logging.getLogger(__name__)


class TextEmbeddingCache:
    """Give the embeddings of captions that were encoded beforehand.

    Args:
        blocks: The embeddings; a caption that is in several is taken from the first.
        width: Of an embedding.
        null_empty: Whether a dropped caption has no token; it is the empty text otherwise, which must be in a block.
    """

    def __init__(self, blocks: Sequence[CacheBlock], width: int, null_empty: bool = True) -> None:
        self._blocks = list(blocks)
        self._width = width
        self._null_empty = null_empty
        hashes = [np.zeros(0, np.int64), *(block.hashes for block in blocks)]
        counts = [len(part) for part in hashes[1:]]
        self._hashes, first = np.unique(np.concatenate(hashes), return_index=True)
        # 16 bytes a caption: millions of them are no strain.
        self._block_of = np.repeat(np.arange(len(counts), dtype=np.int32), counts)[first]
        self._row_of = np.concatenate([np.zeros(0, np.int32), *map(np.arange, counts)])[first].astype(np.int32)

    @classmethod
    def build(
        cls,
        captions: Iterable[str],
        tokenizer: PreTrainedTokenizerBase,
        text_encoder: PreTrainedModel,
        settings: TextSettings,
        path: str | Path | None = None,
        batch_size: int = 64,
        source: str | None = None,
        captions_per_file: int = 4096,
    ) -> "TextEmbeddingCache":
        """Encode captions, or read them from a folder in which they were kept.

        Only what is not in the folder is encoded. A build that was broken off goes on with the next file and ends in
        the same bits.

        Args:
            captions: Captions; repeated and empty ones cost nothing.
            tokenizer: The encoder's tokenizer.
            text_encoder: A text model in evaluation mode.
            settings: How captions are encoded; `padding` plays no part.
            path: The folder; None keeps the cache in memory only.
            batch_size: Captions that are encoded together.
            source: Tells sets of captions apart, such as a digest of the data. When all captions of this source are in
                the folder, `captions` is not looked at.
            captions_per_file: Captions that are encoded and written together, the most that a crash loses.

        Returns:
            A cache of all the captions.

        Raises:
            ValueError: If a caption or `settings` is one that `encode_text` refuses, the encoder is in training mode or
                `path` is a file.
        """
        if text_encoder.training:
            raise ValueError("`text_encoder` is in training mode, whose dropout would be cached; call its eval().")
        if path is not None and Path(path).is_file():
            raise ValueError(f"`path` is {str(path)!r}, which is a file; give a folder, which may be new.")
        width = encode_text(["a"], tokenizer, text_encoder, settings).hidden_states.shape[-1]
        identity = cache_identity(tokenizer, text_encoder, settings)
        folder = None if path is None else Path(path) / identity_name(identity)
        blocks = {} if folder is None else _read_all(folder)
        if folder is not None and source is not None and _is_complete(folder, source, blocks):
            return cls(list(blocks.values()), width, settings.null_empty)
        known = set[int]().union(*(block.hashes.tolist() for block in blocks.values()))
        wanted = (caption for caption in captions if caption) if settings.null_empty else chain(captions, [""])
        missing = {hashed: caption for caption in wanted if (hashed := caption_hash(caption)) not in known}
        # In this order the files that were written before a crash are the first ones of the same division.
        todo = sorted(missing.values(), key=lambda caption: (len(caption), caption))
        starts = range(0, len(todo), captions_per_file)
        for start in tqdm(starts, desc="Encoding captions", disable=len(starts) < 2):
            chunk = todo[start : start + captions_per_file]
            block = make_block(chunk, _encode_ragged(chunk, tokenizer, text_encoder, settings, batch_size), width)
            name = str(start)
            if folder is not None:
                written = write_block(folder, block, identity)
                name, block = written.name, read_block(written)
            blocks[name] = block
        if folder is not None and source is not None:
            _set_complete(folder, source, blocks)
        return cls(list(blocks.values()), width, settings.null_empty)

    @property
    def longest(self) -> int:
        """The number of tokens of the longest caption, at least 1."""
        return max([1, *(int(np.diff(block.offsets).max(initial=1)) for block in self._blocks)])

    def batch(self, captions: Sequence[str | None], length: int | None = None) -> TextEmbeddings:
        """Give the embeddings of a batch of captions.

        Args:
            captions: B captions that the cache was built from; None or "" is a dropped caption, with no token (or the
                empty text's, see `TextSettings.null_empty`).
            length: Tokens to pad to; None pads to the longest of the batch.

        Returns:
            Hidden states (B, L, K * D) in bfloat16 and the mask (B, L), on the CPU.

        Raises:
            ValueError: If a caption is not in the cache, its file is damaged or it does not fit into `length`.
        """
        return pad_rows([self._tokens_of(caption) for caption in captions], length)

    def _tokens_of(self, caption: str | None) -> Tensor:
        if not caption and self._null_empty:
            return torch.zeros(0, self._width, dtype=torch.bfloat16)
        hashed = caption_hash(caption or "")
        place = int(np.searchsorted(self._hashes, hashed))
        if place == len(self._hashes) or self._hashes[place] != hashed:
            raise ValueError(f"`captions` holds {caption!r}, which is not in the cache; build the cache with it.")
        return self._blocks[self._block_of[place]].row(int(self._row_of[place]))


def pad_rows(rows: Sequence[Tensor], length: int | None = None) -> TextEmbeddings:
    """Put the embeddings of captions of different lengths into a batch.

    Args:
        rows: Hidden states (L, D) of each caption, L being 0 for a dropped one.
        length: Tokens to pad to; None pads to the longest of the batch.

    Returns:
        Hidden states (B, L, D), 0 where padded, and the mask (B, L).

    Raises:
        ValueError: If a caption does not fit into `length`.
    """
    longest = max([1, *(len(row) for row in rows)])
    if length is not None and longest > length:
        raise ValueError(f"`length` is {length}, but a caption has {longest} tokens; give {longest} or more.")
    hidden_states = rows[0].new_zeros(len(rows), length or longest, rows[0].shape[1])
    mask = torch.zeros(len(rows), length or longest, dtype=torch.bool)
    for i, row in enumerate(rows):
        hidden_states[i, : len(row)] = row
        mask[i, : len(row)] = True
    return TextEmbeddings(hidden_states, mask)


def _encode_ragged(
    captions: list[str],
    tokenizer: PreTrainedTokenizerBase,
    text_encoder: PreTrainedModel,
    settings: TextSettings,
    batch_size: int,
) -> list[Tensor]:
    """Encode captions, ordered by length so that similar ones go together, and drop the padding."""
    rows: list[Tensor] = []
    for start in range(0, len(captions), batch_size):
        encoded = encode_text(captions[start : start + batch_size], tokenizer, text_encoder, settings)
        states, mask = encoded.hidden_states.to("cpu", torch.bfloat16), encoded.mask.cpu()
        rows += [states[place][mask[place]] for place in range(len(states))]
    return rows


def _read_all(folder: Path) -> dict[str, CacheBlock]:
    """Open the files of a cache; those that are damaged are removed, to be made again."""
    blocks: dict[str, CacheBlock] = {}
    for path in sorted(folder.glob("*.safetensors")):
        try:
            blocks[path.name] = read_block(path)
        except CacheFileError as error:
            _logger.warning("%s Its captions are encoded again.", error)
            path.unlink()
    return blocks


def _is_complete(folder: Path, source: str, blocks: dict[str, CacheBlock]) -> bool:
    """Tell whether all files that hold the captions of a source are there."""
    note = _note(folder, source)
    return note.is_file() and set(note.read_text().split()) <= set(blocks)


def _set_complete(folder: Path, source: str, blocks: dict[str, CacheBlock]) -> None:
    note = _note(folder, source)
    temporary = note.with_name(f"{note.name}.{os.getpid()}.tmp")
    folder.mkdir(parents=True, exist_ok=True)
    temporary.write_text("\n".join(blocks))
    temporary.replace(note)


def _note(folder: Path, source: str) -> Path:
    return folder / f"complete-{hashlib.sha256(source.encode()).hexdigest()[:16]}"
