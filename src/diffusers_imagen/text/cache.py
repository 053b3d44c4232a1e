# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""Keep the text embeddings of training captions, encoded once, without padding, in bfloat16.

The cache lies in memory and optionally in one safetensors file, which is made again when the encoder, the settings or
the captions are others. Called by the training loop.
"""

import hashlib
import json
import logging
import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from diffusers_imagen.text.encoding import TextEmbeddings, TextSettings, encode_text

_logger = logging.getLogger(__name__)

_WEIGHT_SAMPLES = 1024


class TextEmbeddingCache:
    """Give the embeddings of captions that were encoded beforehand.

    Args:
        captions: The captions, each once, in the order of `offsets`.
        tokens: Hidden states of all captions one after the other (sum of lengths, K * D).
        offsets: Where each caption begins, and the end of the last one, (number of captions + 1,), int64.
    """

    def __init__(self, captions: Sequence[str], tokens: Tensor, offsets: Tensor) -> None:
        self._rows = {caption: row for row, caption in enumerate(captions)}
        self._tokens = tokens
        self._offsets: list[int] = offsets.tolist()

    @classmethod
    def build(
        cls,
        captions: Iterable[str],
        tokenizer: PreTrainedTokenizerBase,
        text_encoder: PreTrainedModel,
        settings: TextSettings,
        path: str | Path | None = None,
        batch_size: int = 64,
    ) -> "TextEmbeddingCache":
        """Encode captions, or read them from a file that was made from the same captions in the same way.

        Args:
            captions: Captions; repeated and empty ones cost nothing.
            tokenizer: The encoder's tokenizer.
            text_encoder: A text model in evaluation mode.
            settings: How captions are encoded; `padding` plays no part.
            path: The file; None keeps the cache in memory only.
            batch_size: Captions that are encoded together.

        Returns:
            A cache of all the captions.

        Raises:
            ValueError: If a caption or `settings` is one that `encode_text` refuses, or the encoder is in training
                mode.
        """
        if text_encoder.training:
            raise ValueError("`text_encoder` is in training mode, whose dropout would be cached; call its eval().")
        distinct = sorted({caption for caption in captions if caption})
        key = _key(distinct, tokenizer, text_encoder, settings)
        stored = None if path is None else _read(Path(path), key)
        if stored is None:
            stored = _encode_ragged(distinct, tokenizer, text_encoder, settings, batch_size)
            if path is not None:
                _write(Path(path), stored, key)
        return cls(distinct, *stored)

    @property
    def longest(self) -> int:
        """The number of tokens of the longest caption, at least 1."""
        return max([1, *(stop - start for start, stop in pairwise(self._offsets))])

    def batch(self, captions: Sequence[str | None], length: int | None = None) -> TextEmbeddings:
        """Give the embeddings of a batch of captions.

        Args:
            captions: B captions that the cache was built from; None or "" is a dropped caption, with no token.
            length: Tokens to pad to; None pads to the longest of the batch.

        Returns:
            Hidden states (B, L, K * D) in bfloat16 and the mask (B, L), on the CPU.

        Raises:
            ValueError: If a caption is not in the cache or does not fit into `length`.
        """
        rows = [self._tokens_of(caption) for caption in captions]
        longest = max([1, *(len(row) for row in rows)])
        if length is not None and longest > length:
            raise ValueError(f"`length` is {length}, but a caption has {longest} tokens; give {longest} or more.")
        width = length or longest
        hidden_states = self._tokens.new_zeros(len(rows), width, self._tokens.shape[1])
        mask = torch.zeros(len(rows), width, dtype=torch.bool)
        for i, row in enumerate(rows):
            hidden_states[i, : len(row)] = row
            mask[i, : len(row)] = True
        return TextEmbeddings(hidden_states, mask)

    def _tokens_of(self, caption: str | None) -> Tensor:
        if not caption:
            return self._tokens[:0]
        if caption not in self._rows:
            raise ValueError(f"`captions` holds {caption!r}, which is not in the cache; build the cache with it.")
        row = self._rows[caption]
        return self._tokens[self._offsets[row] : self._offsets[row + 1]]


def _encode_ragged(
    captions: list[str],
    tokenizer: PreTrainedTokenizerBase,
    text_encoder: PreTrainedModel,
    settings: TextSettings,
    batch_size: int,
) -> tuple[Tensor, Tensor]:
    """Encode the captions and drop the padding; captions of similar length go together."""
    by_length = sorted(range(len(captions)), key=lambda i: len(captions[i]))
    rows: dict[int, Tensor] = {}
    for start in range(0, len(by_length), batch_size):
        chunk = by_length[start : start + batch_size]
        encoded = encode_text([captions[i] for i in chunk], tokenizer, text_encoder, settings)
        states, mask = encoded.hidden_states.to("cpu", torch.bfloat16), encoded.mask.cpu()
        rows |= {i: states[place][mask[place]] for place, i in enumerate(chunk)}
    if not rows:
        # No caption tells the width; the encoder's answer to any text does.
        width = encode_text(["a"], tokenizer, text_encoder, settings).hidden_states.shape[-1]
        return torch.zeros(0, width, dtype=torch.bfloat16), torch.zeros(1, dtype=torch.int64)
    lengths = torch.tensor([0] + [len(rows[i]) for i in range(len(captions))])
    return torch.cat([rows[i] for i in range(len(captions))]), lengths.cumsum(0)


def _key(
    captions: list[str], tokenizer: PreTrainedTokenizerBase, text_encoder: PreTrainedModel, settings: TextSettings
) -> dict[str, str]:
    """Describe everything that the embeddings depend on."""
    return {
        "captions": hashlib.sha256(json.dumps(captions).encode()).hexdigest(),
        "encoder": _fingerprint(tokenizer, text_encoder),
        "settings": json.dumps(asdict(settings) | {"padding": None}, sort_keys=True),
    }


def _fingerprint(tokenizer: PreTrainedTokenizerBase, text_encoder: PreTrainedModel) -> str:
    """Hash the tokenizer's vocabulary and evenly spaced values of every weight: seconds for the largest encoders."""
    digest = hashlib.sha256(type(text_encoder).__name__.encode())
    digest.update(json.dumps(sorted(tokenizer.get_vocab().items())).encode())
    for name, weight in text_encoder.state_dict().items():
        values = weight.flatten()
        values = values[:: max(1, len(values) // _WEIGHT_SAMPLES)].cpu().double()
        digest.update(f"{name} {tuple(weight.shape)} {weight.dtype}".encode() + values.numpy().tobytes())
    return digest.hexdigest()


def _read(path: Path, key: dict[str, str]) -> tuple[Tensor, Tensor] | None:
    """Read a cache file, or say why it is made again."""
    if not path.is_file():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            changed = [name for name, value in key.items() if (file.metadata() or {}).get(name) != value]
            if not changed:
                return file.get_tensor("tokens"), file.get_tensor("offsets")
    except (SafetensorError, OSError) as error:
        _logger.warning("The text cache %s cannot be read (%s); encoding the captions again.", path, error)
        return None
    _logger.warning("The text cache %s was made with other %s; encoding again.", path, " and ".join(changed))
    return None


def _write(path: Path, stored: tuple[Tensor, Tensor], key: dict[str, str]) -> None:
    """Write a cache file so that a crash leaves either the old one or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    save_file({"tokens": stored[0].contiguous(), "offsets": stored[1]}, temporary, metadata=key)
    temporary.replace(path)
