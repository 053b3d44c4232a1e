# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""Keep the embeddings of prompts on disk, so that a prompt that was drawn before needs no text encoder.

A file for each prompt, in the layout and under the keys of the training captions' cache, but in the encoder's own
precision: a picture is the same to the bit. Called by the pipeline.
"""

import contextlib
import logging
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from diffusers_imagen.text.cache import pad_rows
from diffusers_imagen.text.cache_files import (
    CacheFileError,
    block_name,
    caption_hash,
    make_block,
    read_block,
    write_block,
)
from diffusers_imagen.text.cache_identity import cache_identity, identity_name
from diffusers_imagen.text.encoding import TextEmbeddings, TextSettings, token_rows

_logger = logging.getLogger(__name__)

# A half-written file of this age is nobody's any more.
_WRITING_SECONDS = 3600


class PromptCache:
    """Embeddings of prompts in a folder, which several processes may share.

    Args:
        folder: Made if it does not exist; files of others in it are left alone.
        max_bytes: What the embeddings may take; beyond it, those that were not asked for the longest are removed.

    Raises:
        ValueError: If `folder` is a file or `max_bytes` is not positive.
    """

    def __init__(self, folder: str | Path, max_bytes: int = 2**30) -> None:
        self._folder = Path(folder)
        self._max_bytes = max_bytes
        if self._folder.exists() and not self._folder.is_dir():
            raise ValueError(f"`folder` is {str(folder)!r}, which is a file; give a folder, which may be new.")
        if max_bytes < 1:
            raise ValueError(f"`max_bytes` is {max_bytes}; give what the embeddings may take, such as {2**30}.")

    def embeddings(
        self,
        prompts: Sequence[str],
        tokenizer: PreTrainedTokenizerBase,
        text_encoder: PreTrainedModel,
        settings: TextSettings,
        encode: Callable[[Sequence[str]], TextEmbeddings],
    ) -> TextEmbeddings:
        """Give the embeddings of prompts, encoding those that are not in the folder.

        Args:
            prompts: B prompts.
            tokenizer: The encoder's tokenizer.
            text_encoder: Only looked at: its weights are part of the key.
            settings: How prompts are encoded.
            encode: Encodes what is missing, and is not called where nothing is.

        Returns:
            The same as `encode`, on the CPU.

        Raises:
            ValueError: As `encode_text`, or if the encoder's weights cannot be looked at.
        """
        if not settings.masked and settings.padding != "max_length":
            # What the encoder makes of the padding is text there, and depends on the other prompts.
            return encode(prompts)
        folder = self._folder / f"prompts-{identity_name(self._identity(tokenizer, text_encoder, settings))}"
        rows = {prompt: row for prompt in prompts if (row := _read(folder, prompt)) is not None}
        if rows:
            # A prompt that is too long is told of each time.
            token_rows(list(rows), tokenizer, settings)
        missing = [prompt for prompt in dict.fromkeys(prompts) if prompt not in rows]
        if missing:
            encoded = encode(missing)
            states, mask = encoded.hidden_states.cpu(), encoded.mask.cpu()
            new = {prompt: states[place][mask[place]] for place, prompt in enumerate(missing)}
            self._keep(folder, new, self._identity(tokenizer, text_encoder, settings))
            rows |= new
        length = settings.max_length if settings.padding == "max_length" else None
        return pad_rows([rows[prompt] for prompt in prompts], length)

    def clear(self) -> None:
        """Remove all embeddings of prompts from the folder, of any encoder."""
        for path in self._entries():
            path.unlink(missing_ok=True)

    def _identity(
        self, tokenizer: PreTrainedTokenizerBase, text_encoder: PreTrainedModel, settings: TextSettings
    ) -> dict[str, str]:
        if any(weight.is_meta for weight in text_encoder.parameters()):
            raise ValueError(
                "`text_encoder` has no weights at the moment (sequential offloading), so the prompt cache cannot tell "
                "it from others; offload by whole models, or disable the cache."
            )
        return cache_identity(tokenizer, text_encoder, settings)

    def _keep(self, folder: Path, rows: dict[str, Tensor], identity: dict[str, str]) -> None:
        """Write embeddings, and remove old ones; without room for them they are only not kept."""
        try:
            for prompt, row in rows.items():
                write_block(folder, make_block([prompt], [row], row.shape[1]), identity)
            self._trim()
        except (OSError, SafetensorError) as error:
            _logger.warning("The prompt cache %s cannot be written: %s", self._folder, error)

    def _trim(self) -> None:
        entries = sorted(self._entries().items(), key=lambda entry: entry[1].st_mtime_ns)
        total = sum(stat.st_size for _, stat in entries)
        for path, stat in entries:
            if total <= self._max_bytes:
                break
            path.unlink(missing_ok=True)
            total -= stat.st_size

    def _entries(self) -> dict[Path, os.stat_result]:
        """Find the files of embeddings, and those that a crash left half written."""
        found = {}
        for path in self._folder.glob("prompts-*/*"):
            # Another process may be faster and remove it.
            with contextlib.suppress(FileNotFoundError):
                found[path] = path.stat()
        crashed = time.time() - _WRITING_SECONDS
        return {path: stat for path, stat in found.items() if path.suffix == ".safetensors" or stat.st_mtime < crashed}


def _read(folder: Path, prompt: str) -> Tensor | None:
    """Return the embedding (L, D) of a prompt, or None where there is none that is whole."""
    number = caption_hash(prompt)
    path = folder / block_name(np.array([number], np.int64))
    try:
        block = read_block(path)
        row = block.row(0)
        if block.hashes.tolist() != [number]:
            raise CacheFileError(f"The text cache {path} is another prompt's.")
    except FileNotFoundError:
        return None
    except CacheFileError as error:
        # It stays until its prompt's embedding takes its place: another process may have written that already.
        _logger.warning("%s Its prompt is encoded again.", error)
        return None
    with contextlib.suppress(OSError):
        # What is asked for is kept longest; of a folder that cannot be written nothing is removed.
        os.utime(path)
    return row
