# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""What is done to a prompt before it is tokenised. Called by `encoding.py`."""

from collections.abc import Sequence
from typing import Literal

Captions = Literal["as_is", "deepfloyd_if"]


def prepared_captions(prompts: Sequence[str], captions: Captions) -> Sequence[str]:
    """Return prompts in the form that the U-Nets were trained with.

    Args:
        prompts: as they were given.
        captions: "as_is", or "deepfloyd_if" for what DeepFloyd IF's pipelines do by default: they lower-case and
            clean (addresses, markup, article numbers, Chinese characters and more go), or, where `beautifulsoup4` or
            `ftfy` are not installed, warn and only lower-case.
    """
    if captions == "as_is":
        return prompts
    # Imported here: it is of use to few and takes a second.
    from diffusers.pipelines.deepfloyd_if.pipeline_if import IFPipeline

    # Cleaning reads nothing of a pipeline but what its class has.
    cleaner = IFPipeline.__new__(IFPipeline)
    cleaned: list[str] = cleaner._text_preprocessing(list(prompts), clean_caption=True)
    return cleaned


def check_characters(name: str, text: str) -> None:
    """Refuse text that no tokenizer can read.

    Args:
        name: the argument that holds it, for the message.
        text: what is checked.

    Raises:
        ValueError: half of a surrogate pair, which is no character of Unicode.
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(
            f"`{name}` holds {text[error.start : error.end]!r}, half a character; give text in valid Unicode (UTF-8)."
        ) from error
