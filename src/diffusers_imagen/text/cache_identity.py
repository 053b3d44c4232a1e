# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""What tells embeddings apart besides the text: the encoder, its tokenizer and the settings.

The keys of both caches, `cache.py` for training captions and `prompt_cache.py` for prompts, which call this.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from diffusers_imagen.text.encoding import TextSettings

_WEIGHT_SAMPLES = 1024


def cache_identity(
    tokenizer: PreTrainedTokenizerBase, text_encoder: PreTrainedModel, settings: TextSettings
) -> dict[str, str]:
    """Describe everything but the captions that the embeddings depend on.

    Args:
        tokenizer: The encoder's tokenizer, known by its vocabulary.
        text_encoder: Known by its class and evenly spaced values of every weight.
        settings: Without the padding, which is not kept.

    Returns:
        Texts by name, as a file of the cache notes them.
    """
    values = asdict(settings) | {"padding": None}
    if settings.template is None:
        # Caches from before there were templates stay good.
        del values["template"], values["template_tokens"]
    return {
        "format": "1",
        "encoder": f"{type(text_encoder).__name__} {_fingerprint(tokenizer, text_encoder)}",
        "settings": json.dumps(values, sort_keys=True),
    }


def identity_name(identity: Mapping[str, str]) -> str:
    """Give the short name under which the embeddings of an identity are kept."""
    return hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:16]


def _fingerprint(tokenizer: PreTrainedTokenizerBase, text_encoder: PreTrainedModel) -> str:
    """Hash the tokenizer's vocabulary and evenly spaced values of every weight: seconds for the largest encoders."""
    digest = hashlib.sha256(type(text_encoder).__name__.encode())
    digest.update(json.dumps(sorted(tokenizer.get_vocab().items())).encode())
    for name, weight in text_encoder.state_dict().items():
        values = weight.flatten()
        values = values[:: max(1, len(values) // _WEIGHT_SAMPLES)].cpu().double()
        digest.update(f"{name} {tuple(weight.shape)} {weight.dtype}".encode() + values.numpy().tobytes())
    return digest.hexdigest()
