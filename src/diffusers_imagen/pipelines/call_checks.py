# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""Checks of a call's arguments, made before any model runs. Called by the pipeline."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from diffusers_imagen.pipelines.stage_settings import is_integer
from diffusers_imagen.text.captions import check_characters

OUTPUT_TYPES = ("pil", "np", "pt", "latent")

Prompt = str | Sequence[str]
Size = tuple[int, int]


def check_prompt(name: str, prompt: Any) -> None:
    """Refuse what is no prompt and no non-empty list of prompts.

    Raises:
        ValueError: naming the argument and its value.
    """
    if isinstance(prompt, str):
        check_characters(name, prompt)
        return
    if not isinstance(prompt, list | tuple):
        raise ValueError(f"`{name}` is {prompt!r} ({type(prompt).__name__}); give a string or a list of strings.")
    if not prompt:
        raise ValueError(f"`{name}` is an empty list; give at least one string.")
    for item in prompt:
        if not isinstance(item, str):
            raise ValueError(f"`{name}` holds {item!r} ({type(item).__name__}); give strings only.")
        check_characters(name, item)


def check_texts(
    prompts: Sequence[str] | None,
    negatives: Sequence[str] | None,
    embeds: tuple[Tensor | None, Tensor | None, Tensor | None, Tensor | None],
    text_shape: tuple[int, int] | None,
    has_encoder: bool,
    has_null_text: bool = True,
) -> int:
    """Refuse texts that are missing, given twice, or do not fit one another or the U-Nets.

    Args:
        prompts: what to draw, or `None`.
        negatives: what guidance moves away from, or `None`.
        embeds: text states, their mask, negative text states and their mask, each of them or `None`.
        text_shape: (tokens, width), the longest text and the width of the states that the U-Nets take; `None` where
            there are no U-Nets.
        has_encoder: whether the pipeline has a tokenizer and a text encoder.
        has_null_text: whether the U-Nets know what stands for no text, without the encoder's empty prompt.

    Returns:
        How many prompts there are.

    Raises:
        ValueError: naming the argument.
    """
    prompt_embeds, mask, negative_embeds, negative_mask = embeds
    check_embeds("prompt_embeds", prompt_embeds, mask, text_shape)
    check_embeds("negative_prompt_embeds", negative_embeds, negative_mask, text_shape)
    given = prompts if prompts is not None else prompt_embeds
    if given is None:
        raise ValueError("`prompt` and `prompt_embeds` are both missing; give one of them.")
    for name, texts, states in (
        ("prompt", prompts, prompt_embeds),
        ("negative_prompt", negatives, negative_embeds),
    ):
        if texts is not None and states is not None:
            raise ValueError(f"`{name}` and `{name}_embeds` are both given; give one of them.")
        if texts is not None and not has_encoder:
            raise ValueError(
                f"`{name}` is given, but this pipeline has no text encoder; give `{name}_embeds` instead."
            )
    if negatives is None and negative_embeds is None and not (has_null_text or has_encoder):
        raise ValueError(
            "`negative_prompt_embeds` is missing: these U-Nets were trained with the encoded empty prompt, and this "
            "pipeline has no text encoder; give its states."
        )
    number = len(given)
    if negative_embeds is not None and len(negative_embeds) != number:
        raise ValueError(
            f"`negative_prompt_embeds` holds {len(negative_embeds)} texts, but {number} are drawn; give {number}."
        )
    return number


def check_embeds(name: str, embeds: Tensor | None, mask: Tensor | None, text_shape: tuple[int, int] | None) -> None:
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
        width = "width" if text_shape is None else text_shape[1]
        raise ValueError(f"`{name}` is {shape}; give a tensor (batch, tokens, {width}).")
    if not bool(embeds.isfinite().all()):
        raise ValueError(f"`{name}` holds values that are not finite; make it with this pipeline's `encode_prompt`.")
    if text_shape is not None and embeds.shape[-1] != text_shape[1]:
        raise ValueError(
            f"`{name}` has width {embeds.shape[-1]}, but the U-Nets were trained with {text_shape[1]}: the text "
            "encoder's width times the number of layers; make it with this pipeline's `encode_prompt`."
        )
    if text_shape is not None and embeds.shape[1] > text_shape[0]:
        raise ValueError(
            f"`{name}` holds {embeds.shape[1]} tokens, but the U-Nets take {text_shape[0]}; give {text_shape[0]} or "
            "fewer."
        )
    if mask is not None and (not isinstance(mask, Tensor) or mask.shape != embeds.shape[:2]):
        shape = tuple(mask.shape) if isinstance(mask, Tensor) else type(mask).__name__
        raise ValueError(f"`{mask_name}` is {shape}; give {tuple(embeds.shape[:2])}, a flag for each of `{name}`.")


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
    for item in generator if isinstance(generator, list) else [generator]:
        if (item is not None or isinstance(generator, list)) and not isinstance(item, torch.Generator):
            raise ValueError(f"`generator` is or holds {item!r}; give a torch.Generator or a list of them.")
    if isinstance(generator, list) and len(generator) != batch_size:
        raise ValueError(
            f"`generator` is a list of {len(generator)}, but {batch_size} pictures are drawn; give one a picture "
            "(prompts times `num_images_per_prompt`) or a single one."
        )
    if latents is not None and (not isinstance(latents, Tensor) or tuple(latents.shape) != latents_shape):
        shape = tuple(latents.shape) if isinstance(latents, Tensor) else type(latents).__name__
        raise ValueError(
            f"`latents` is {shape}; give noise of shape {latents_shape}, from which the first stage starts."
        )
    if latents is not None and not bool(latents.isfinite().all()):
        raise ValueError("`latents` holds values that are not finite; give standard normal noise.")


def check_options(num_images_per_prompt: Any, output_type: Any = "pil") -> None:
    """Refuse a number of pictures below 1 and an unknown output type.

    Raises:
        ValueError: naming the argument and its value.
    """
    if not is_integer(num_images_per_prompt) or num_images_per_prompt < 1:
        raise ValueError(f"`num_images_per_prompt` is {num_images_per_prompt!r}; give a whole number of at least 1.")
    if output_type not in OUTPUT_TYPES:
        raise ValueError(f"`output_type` is {output_type!r}; choose one of {', '.join(OUTPUT_TYPES)}.")


def check_callback(callback: Any, tensor_inputs: Any, known: Sequence[str]) -> None:
    """Refuse what is no function, and tensors that it cannot be given.

    Args:
        callback: `callback_on_step_end`, or `None`.
        tensor_inputs: the names of the tensors that it shall get.
        known: the names that there are.

    Raises:
        ValueError: naming the argument and its value.
    """
    if callback is not None and not callable(callback):
        raise ValueError(f"`callback_on_step_end` is {callback!r}; give a function.")
    if not isinstance(tensor_inputs, list | tuple):
        raise ValueError(f"`callback_on_step_end_tensor_inputs` is {tensor_inputs!r}; give a list of names.")
    unknown = [name for name in tensor_inputs if name not in known]
    if unknown:
        raise ValueError(f"`callback_on_step_end_tensor_inputs` holds {unknown[0]!r}; there is {known}.")


def changed_sample(returned: Any, sample: Tensor) -> Tensor:
    """Return the sample to go on with after a callback.

    Args:
        returned: what `callback_on_step_end` returned: `None`, or a mapping that may hold "latents".
        sample: (B, C, H, W), as it was before the call.

    Raises:
        ValueError: something else, an unknown name, or no tensor of the sample's shape.
    """
    if not isinstance(returned, Mapping | None):
        raise ValueError(f"`callback_on_step_end` returned {type(returned).__name__}; return a dict or None.")
    unknown = [name for name in returned or () if name != "latents"]
    if unknown:
        raise ValueError(
            f"`callback_on_step_end` returned {unknown[0]!r}, which nothing reads; only 'latents' can be changed."
        )
    changed = (returned or {}).get("latents")
    if changed is None:
        return sample
    if not isinstance(changed, Tensor) or changed.shape != sample.shape or not changed.is_floating_point():
        kind = f"{changed.dtype} of {tuple(changed.shape)}" if isinstance(changed, Tensor) else type(changed).__name__
        raise ValueError(
            f"`callback_on_step_end` returned {kind} as 'latents'; return a floating-point tensor of {tuple(sample.shape)}."
        )
    return changed.to(sample)


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
            raise ValueError(f"`{name}` is {stage!r}; choose one that this cascade has: {', '.join(available)}.")
    first = 0 if start is None else available.index(start)
    if start is None and has_image and len(available) > 1:
        first = 1
    last = len(available) - 1 if stop is None else available.index(stop)
    if first > last:
        raise ValueError(
            f"`start_stage` is {available[first]!r}, which comes after `stop_stage`, {available[last]!r}; swap them."
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
        if side is not None and (not is_integer(side) or side < 1):
            raise ValueError(f"`{name}` is {side!r}; give a number of pixels.")
    size = (default[0] if height is None else int(height), default[1] if width is None else int(width))
    for name, side in zip(("height", "width"), size, strict=True):
        if side % needed:
            below = max(side // needed, 1) * needed
            source = "" if (height, width)[name == "width"] is not None else " (from the picture that is given)"
            raise ValueError(
                f"`{name}` is {side} pixels for the final picture{source}, but these stages draw multiples of {needed}; "
                f"give {below} or {below + needed}."
            )
    return {s: (size[0] * sample_sizes[s] // final, size[1] * sample_sizes[s] // final) for s in stages}
