# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""Text encoding of a pipeline, with or without a cache on disk. A part of `ImagenCascadePipeline`."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from diffusers_imagen.text.encoding import TextEmbeddings, TextSettings, encode_text
from diffusers_imagen.text.prompt_cache import PromptCache


class PromptCaching:
    """Encode prompts with a pipeline's text encoder, or find those that were encoded before."""

    tokenizer: Any
    text_encoder: Any
    _align: Callable[[Any], None]
    _prompt_cache: PromptCache | None = None

    def enable_prompt_cache(self, folder: str | os.PathLike[str], max_bytes: int = 2**30) -> None:
        """Keep the embeddings of prompts in a folder; a prompt that is in it needs no text encoder.

        They are kept apart by the encoder's weights, the text settings and the prompt, and pictures are the same to the
        bit. Several pipelines and processes may share the folder.

        Args:
            folder: made if it does not exist.
            max_bytes: what the embeddings may take; beyond it, those not asked for the longest are removed.

        Raises:
            ValueError: a file in the folder's place, or a size that is not positive.
        """
        self._prompt_cache = PromptCache(Path(folder), max_bytes)

    def disable_prompt_cache(self) -> None:
        """Encode every prompt again; what was kept stays in its folder."""
        self._prompt_cache = None

    def clear_prompt_cache(self) -> None:
        """Remove all embeddings from the folder of the prompt cache.

        Raises:
            ValueError: no prompt cache is enabled.
        """
        if self._prompt_cache is None:
            raise ValueError("No prompt cache is enabled; call `enable_prompt_cache(folder)` first.")
        self._prompt_cache.clear()

    def _encode(self, prompts: Sequence[str], settings: TextSettings) -> TextEmbeddings:
        if self._prompt_cache is None:
            return self._encode_now(prompts, settings)
        return self._prompt_cache.embeddings(
            prompts, self.tokenizer, self.text_encoder, settings, lambda missing: self._encode_now(missing, settings)
        )

    def _encode_now(self, prompts: Sequence[str], settings: TextSettings) -> TextEmbeddings:
        self._align(self.text_encoder)
        return encode_text(prompts, self.tokenizer, self.text_encoder, settings)
