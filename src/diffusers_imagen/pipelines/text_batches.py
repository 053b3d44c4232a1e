# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""Prompts of a call by stage, and text states repeated and padded into batches. Called by the pipeline."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F

from diffusers_imagen.pipelines.call_checks import check_prompt
from diffusers_imagen.pipelines.stage_settings import STAGES
from diffusers_imagen.text.encoding import TextEmbeddings

Prompts = tuple[str, ...]


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
    missing = [stage for stage in stages if stage not in prompt and "base" not in prompt]
    if missing:
        raise ValueError(f"`{name}` names no prompt for {missing[0]!r} and none for 'base'; give one of them.")
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
