# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""Prompts of a call by stage, and text states repeated and padded into batches. Called by the pipeline."""

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from diffusers_imagen.pipelines.call_checks import check_prompt
from diffusers_imagen.pipelines.stage_settings import STAGES
from diffusers_imagen.text.encoding import TextEmbeddings, TextSettings, check_text_encoder

Prompts = tuple[str, ...]
Embeds = tuple[Tensor | None, Tensor | None, Tensor | None, Tensor | None]


def text_settings(
    saved: Mapping[str, Any] | None, text_shape: tuple[int, int] | None = None, text_encoder: Any = None
) -> TextSettings:
    """Return how prompts are encoded from a checkpoint's `text`.

    Args:
        saved: the settings by name; what is not named keeps its default.
        text_shape: (tokens, width) that the U-Nets take; longer prompts are cut.
        text_encoder: the model whose states must have this width.

    Raises:
        ValueError: an unknown setting, a value out of range, or an encoder that the U-Nets were not trained with.
    """
    known = [item.name for item in fields(TextSettings)]
    unknown = sorted(set(saved or {}) - set(known))
    if unknown:
        raise ValueError(f"`text` holds {unknown}, but the settings are {known}.")
    settings = TextSettings(**(saved or {}))
    if text_shape is None:
        return settings
    tokens, width = text_shape
    check_text_encoder(text_encoder)
    found = len(settings.layers) * text_encoder.config.get_text_config().hidden_size
    if found != width:
        raise ValueError(
            f"`text_encoder` gives states of width {found} for {len(settings.layers)} of its layers, but the U-Nets "
            f"were trained with {width}; give the encoder and the layers that they were trained with (from another "
            "pipeline: `text=pipe.config.text`)."
        )
    return replace(settings, max_length=min(settings.max_length, tokens))


def prompts_by_stage(name: str, prompt: Any, stages: Sequence[str]) -> dict[str, Prompts | None]:
    """Return each running stage's prompts.

    Args:
        name: the argument's name, for messages.
        prompt: `None`, a string, a list, or a mapping from stages to strings or lists, where stages that are not
            named take the base's.
        stages: the stages that run.

    Raises:
        ValueError: no prompt, an unknown stage, or a stage without prompts.
    """
    if not isinstance(prompt, Mapping):
        return dict.fromkeys(stages, _as_tuple(name, prompt))
    unknown = [stage for stage in prompt if stage not in STAGES]
    if unknown:
        raise ValueError(f"`{name}` names the stage {unknown[0]!r}, but the stages are {', '.join(STAGES)}.")
    missing = [stage for stage in stages if prompt.get(stage, prompt.get("base")) is None]
    if missing:
        raise ValueError(f"`{name}` names no prompt for {missing[0]!r}; give one for it or for 'base'.")
    return {stage: _as_tuple(name, prompt.get(stage, prompt.get("base"))) for stage in stages}


def paired_prompts(
    prompts: Mapping[str, Prompts | None], negatives: Mapping[str, Prompts | None], batch: int
) -> dict[str, tuple[Prompts | None, Prompts | None]]:
    """Return each stage's prompts with as many negative ones.

    Args:
        prompts: by stage; `None` where text states are given instead.
        negatives: by stage, one for all or one for each prompt.
        batch: the number of prompts, the same in every stage.

    Raises:
        ValueError: a stage with another number of prompts.
    """
    pairs: dict[str, tuple[Prompts | None, Prompts | None]] = {}
    for stage, positive in prompts.items():
        negative = negatives[stage]
        if negative is not None and len(negative) == 1:
            negative = negative * batch
        for name, items in (("prompt", positive), ("negative_prompt", negative)):
            if items is not None and len(items) != batch:
                raise ValueError(
                    f"`{name}` has {len(items)} texts for {stage!r}, but {batch} are drawn; give {batch}."
                )
        pairs[stage] = (positive, negative)
    return pairs


def padded_alike(first: TextEmbeddings, second: TextEmbeddings) -> tuple[TextEmbeddings, TextEmbeddings]:
    """Return both with the longer one's number of tokens; what is added is masked."""
    length = max(first.mask.shape[1], second.mask.shape[1])
    return _padded(first, length), _padded(second, length)


def repeated(text: TextEmbeddings, times: int, device: torch.device) -> TextEmbeddings:
    """Return each row so many times in a row, on `device`."""
    return TextEmbeddings(
        text.hidden_states.to(device).repeat_interleave(times, dim=0), text.mask.to(device).repeat_interleave(times, 0)
    )


def given_text(embeds: Tensor, mask: Tensor | None) -> TextEmbeddings:
    """Return text states that were made before, with a mask of all tokens where none is given."""
    everything = torch.ones(embeds.shape[:2], dtype=torch.bool, device=embeds.device)
    return TextEmbeddings(embeds, everything if mask is None else mask.bool())


def null_text_like(text: TextEmbeddings) -> TextEmbeddings:
    """Return rows without a token, for which U-Nets use their learned null text."""
    return TextEmbeddings(torch.zeros_like(text.hidden_states), torch.zeros_like(text.mask))


def _padded(text: TextEmbeddings, length: int) -> TextEmbeddings:
    missing = length - text.mask.shape[1]
    return TextEmbeddings(F.pad(text.hidden_states, (0, 0, 0, missing)), F.pad(text.mask, (0, missing)))


def _as_tuple(name: str, prompt: Any) -> Prompts | None:
    if prompt is None:
        return None
    check_prompt(name, prompt)
    return (prompt,) if isinstance(prompt, str) else tuple(prompt)
