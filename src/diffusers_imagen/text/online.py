# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""Encode the captions of each training batch when it is made, where a cache would be too large.

Gives what `cache.py` gives. Called by the training loop's batches.
"""

import threading
from collections.abc import Sequence

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from diffusers_imagen.text.cache import pad_rows
from diffusers_imagen.text.encoding import TextEmbeddings, TextSettings, encode_text


class OnlineTextEncoder:
    """Give the embeddings of any captions, encoded anew each time.

    Args:
        tokenizer: The encoder's tokenizer.
        text_encoder: A text model in evaluation mode, on any device.
        settings: How captions are encoded; `padding` plays no part.

    Raises:
        ValueError: If the encoder is in training mode or cannot follow `settings`.
    """

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, text_encoder: PreTrainedModel, settings: TextSettings
    ) -> None:
        if text_encoder.training:
            raise ValueError("`text_encoder` is in training mode, whose dropout is not wanted; call its eval().")
        self._tokenizer = tokenizer
        self._text_encoder = text_encoder
        self._settings = settings
        self._empty = encode_text(["a"], tokenizer, text_encoder, settings).hidden_states[0, :0].to("cpu").bfloat16()
        # Batches are made by several threads; together they would only need more memory.
        self._lock = threading.Lock()

    @property
    def longest(self) -> int:
        """The most tokens that a caption can have."""
        return self._settings.max_length

    def batch(self, captions: Sequence[str | None], length: int | None = None) -> TextEmbeddings:
        """Encode a batch of captions.

        Args:
            captions: B captions; None or "" is a dropped caption, with no token (or the empty text's, see
                `TextSettings.null_empty`).
            length: Tokens to pad to; None pads to the longest of the batch.

        Returns:
            Hidden states (B, L, K * D) in bfloat16 and the mask (B, L), on the CPU.

        Raises:
            ValueError: If a caption does not fit into `length`.
        """
        rows = [self._empty] * len(captions)
        places = [place for place, caption in enumerate(captions) if caption or not self._settings.null_empty]
        if places:
            with self._lock:
                encoded = encode_text(
                    [captions[place] or "" for place in places], self._tokenizer, self._text_encoder, self._settings
                )
            states, mask = encoded.hidden_states.to("cpu", torch.bfloat16), encoded.mask.cpu()
            for row, place in enumerate(places):
                rows[place] = states[row][mask[row]]
        return pad_rows(rows, length)
