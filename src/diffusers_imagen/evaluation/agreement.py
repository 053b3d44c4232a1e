# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""Agreement of pictures with texts by a two-tower model, as CLIP scores it (Hessel et al. 2021)."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image

from diffusers_imagen.evaluation.features import ClipFeatures, load_model
from diffusers_imagen.evaluation.pictures import to_tensor


class ClipAgreement:
    """Score how well a picture agrees with a text: the cosine of their embeddings.

    Args:
        model: A `CLIPModel` of transformers.
        tokenizer: Its tokenizer.
    """

    def __init__(self, model: Any, tokenizer: Any) -> None:
        self._features = ClipFeatures(model)
        self._tokenizer = tokenizer

    @classmethod
    def load(cls, model: str, allow_download: bool = False) -> "ClipAgreement":
        """Load the model and its tokenizer from a folder or a Hub repository.

        Raises:
            ValueError: If it is not here and may not be downloaded.
        """
        from transformers import AutoTokenizer

        loaded = load_model(model, clip=True, allow_download=allow_download)
        source = Path(model).expanduser()
        tokenizer = AutoTokenizer.from_pretrained(
            str(source) if source.is_dir() else model, local_files_only=not allow_download
        )
        return cls(loaded, tokenizer)

    def to(self, device: torch.device | str) -> "ClipAgreement":
        """Move the model to a device."""
        self._features.to(device)
        return self

    @torch.no_grad()
    def __call__(self, images: Sequence[Image.Image], texts: Sequence[str]) -> list[float]:
        """Return the cosine in [-1, 1] of each picture and its text; over-long texts are cut off.

        Raises:
            ValueError: If there are not as many texts as pictures, or none.
        """
        if len(images) != len(texts) or not images:
            raise ValueError(
                f"`images` and `texts` are {len(images)} and {len(texts)}; give the same number, at least one."
            )
        model = self._features.model
        tokens = self._tokenizer(list(texts), padding=True, truncation=True, return_tensors="pt").to(model.device)
        pooled = model.text_model(input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"]).pooler_output
        text = model.text_projection(pooled).float()
        picture = self._features(to_tensor(images))
        return F.cosine_similarity(picture, text).tolist()
