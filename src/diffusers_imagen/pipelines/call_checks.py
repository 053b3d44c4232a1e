# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""Checks of a call's arguments, made before any model runs. Called by the pipeline."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from diffusers_imagen.pipelines.stage_settings import STAGES

OUTPUT_TYPES = ("pil", "np", "pt", "latent")

Prompt = str | Sequence[str]
Size = tuple[int, int]


def check_prompt(name: str, prompt: Any) -> None:
    """Refuse what is no prompt and no non-empty list of prompts.

    Raises:
        ValueError: naming the argument and its value.
    """
    if isinstance(prompt, str):
        return
    if not isinstance(prompt, list | tuple):
        raise ValueError(f"`{name}` is {prompt!r} ({type(prompt).__name__}); give a string or a list of strings.")
    if not prompt:
        raise ValueError(f"`{name}` is an empty list; give at least one string.")
    for item in prompt:
        if not isinstance(item, str):
            raise ValueError(f"`{name}` holds {item!r} ({type(item).__name__}); give strings only.")


def check_embeds(name: str, embeds: Tensor | None, mask: Tensor | None, width: int) -> None:
    """Refuse text states and a mask that do not fit together or do not fit the U-Nets.

    Raises:
        ValueError: naming the argument and its shape.
    """
    mask_name = name.replace("embeds", "attention_mask")
    if embeds is None:
        if mask is not None:
            raise ValueError(f"`{mask_name}` is given without `{name}`; give both, as `encode_prompt` returns them.")
        return
    if not isinstance(embeds, Tensor) or embeds.ndim != 3 or embeds.shape[0] < 1 or embeds.shape[1] < 1:
        shape = tuple(embeds.shape) if isinstance(embeds, Tensor) else type(embeds).__name__
        raise ValueError(f"`{name}` is {shape}; give a tensor (batch, tokens, {width}).")
    if embeds.shape[-1] != width:
        raise ValueError(
            f"`{name}` has width {embeds.shape[-1]}, but the U-Nets were trained with {width}: the text encoder's "
            "width times the number of layers; make it with this pipeline's `encode_prompt`."
        )
    if mask is not None and (not isinstance(mask, Tensor) or mask.shape != embeds.shape[:2]):
        shape = tuple(mask.shape) if isinstance(mask, Tensor) else type(mask).__name__
        raise ValueError(f"`{mask_name}` is {shape}, but `{name}` asks for {tuple(embeds.shape[:2])}.")


def check_batch(
    batch_size: int,
    generator: torch.Generator | list[torch.Generator] | None,
    latents: Tensor | None,
    latents_shape: tuple[int, ...],
) -> None:
    """Refuse generators or starting noise for another number of pictures.

    Raises:
        ValueError: naming the argument.
    """
    if isinstance(generator, list) and len(generator) != batch_size:
        raise ValueError(
            f"`generator` is a list of {len(generator)}, but {batch_size} pictures are drawn; give one a picture "
            "(prompts times `num_images_per_prompt`) or a single one."
        )
    if latents is not None and (not isinstance(latents, Tensor) or tuple(latents.shape) != latents_shape):
        shape = tuple(latents.shape) if isinstance(latents, Tensor) else type(latents).__name__
        raise ValueError(f"`latents` is {shape}; the first stage starts from noise of shape {latents_shape}.")


def check_options(num_images_per_prompt: Any, output_type: Any) -> None:
    """Refuse a number of pictures below 1 and an unknown output type.

    Raises:
        ValueError: naming the argument and its value.
    """
    if not isinstance(num_images_per_prompt, int) or num_images_per_prompt < 1:
        raise ValueError(f"`num_images_per_prompt` is {num_images_per_prompt!r}; give a whole number of at least 1.")
    if output_type not in OUTPUT_TYPES:
        raise ValueError(f"`output_type` is {output_type!r}; choose one of {', '.join(OUTPUT_TYPES)}.")


def select_stages(available: Sequence[str], start: str | None, stop: str | None, has_image: bool) -> list[str]:
    """Return the names of the stages to run.

    Args:
        available: the cascade's stages, in order.
        start: the first to run; `None` for the base, or with an image for the first enlargement.
        stop: the last to run; `None` for the last.
        has_image: whether a picture to start from is given.

    Raises:
        ValueError: a stage that the cascade does not have, an empty selection, or a picture where none is used.
    """
    for name, stage in (("start_stage", start), ("stop_stage", stop)):
        if stage is not None and stage not in available:
            known = f"this cascade has {', '.join(available)}"
            raise ValueError(
                f"`{name}` is {stage!r}, but {known if stage in STAGES else f'stages are called so: {known}'}."
            )
    first = 0 if start is None else available.index(start)
    if start is None and has_image and len(available) > 1:
        first = 1
    last = len(available) - 1 if stop is None else available.index(stop)
    if first > last:
        raise ValueError(
            f"`start_stage` is {available[first]!r}, which comes after `stop_stage`, {available[last]!r}."
        )
    if first > 0 and not has_image:
        raise ValueError(f"`start_stage` is {start!r}, which enlarges a picture; give one as `image`.")
    if first == 0 and has_image:
        raise ValueError("`image` is given, but the base starts from noise; start at an enlargement (`start_stage`).")
    return list(available[first : last + 1])


def stage_sizes(
    stages: Sequence[str],
    sample_sizes: Mapping[str, int],
    multiples: Mapping[str, int],
    height: int | None,
    width: int | None,
    default: Size,
) -> dict[str, Size]:
    """Return (height, width) of each stage's pictures.

    Args:
        stages: the stages to run.
        sample_sizes: side of the pictures that each stage was trained on.
        multiples: what each stage's height and width must be multiples of.
        height: of the final picture; `None` for the default's.
        width: of the final picture; `None` for the default's.
        default: the final size where the call says nothing.

    Raises:
        ValueError: a size that a stage cannot draw.
    """
    final = sample_sizes[stages[-1]]
    # The final side must be a multiple of this for every stage's to be one of that stage's own multiple.
    needed = math.lcm(*(multiples[s] * final // math.gcd(sample_sizes[s], multiples[s] * final) for s in stages))
    for name, side in (("height", height), ("width", width)):
        if side is not None and (not isinstance(side, int) or side < 1):
            raise ValueError(f"`{name}` is {side!r}; give a number of pixels.")
    size = (default[0] if height is None else height, default[1] if width is None else width)
    for name, side in zip(("height", "width"), size, strict=True):
        if side % needed:
            below = max(side // needed, 1) * needed
            raise ValueError(
                f"`{name}` is {side} pixels for the final picture, but these stages draw multiples of {needed}; "
                f"give {below} or {below + needed}."
            )
    return {s: (size[0] * sample_sizes[s] // final, size[1] * sample_sizes[s] // final) for s in stages}
