# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""One cascade out of several of imagen-pytorch's files: which U-Net each holds, and what each says of its own.

Called by `imagen_pytorch.py`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from torch import Tensor

from diffusers_imagen.conversion.imagen_pytorch_checkpoint import Checkpoint
from diffusers_imagen.conversion.imagen_pytorch_options import ImagenOptions, UnetOptions, by_stage

MOST_UNETS = 3
_BY_STAGE = (
    "image_sizes",
    "noise_schedules",
    "pred_objectives",
    "timesteps",
    "num_sample_steps",
    "sigma_data",
    "sigma_min",
    "sigma_max",
    "dynamic_thresholding",
)
_OF_ENLARGEMENTS = ("lowres_noise_schedule", "lowres_sample_noise_level", "resize_mode")


@dataclass(frozen=True)
class Joined:
    """The U-Nets of all files.

    Args:
        unets: their weights by number, in order.
        source: where each one's come from, "ema" or "online".
        stored: what the files say of them.
    """

    unets: Mapping[int, dict[str, Tensor]]
    source: Mapping[int, str]
    stored: ImagenOptions


def join(checkpoints: Sequence[Checkpoint], given: ImagenOptions) -> Joined:
    """Join files, of which each says what its own U-Nets are like.

    Args:
        checkpoints: what was found in them; one that does not number its only U-Net counts by its place.
        given: what need not be asked of the files.

    Raises:
        ValueError: U-Nets that make no cascade, or files that contradict one another.
    """
    if len(checkpoints) > 1:
        checkpoints = [_placed(checkpoint, place) for place, checkpoint in enumerate(checkpoints)]
    owner: dict[int, Checkpoint] = {}
    for checkpoint in checkpoints:
        for number in checkpoint.unets:
            if number in owner:
                raise ValueError(f"two files hold U-Net {number}; give each one once.")
            owner[number] = checkpoint
    numbers = sorted(owner)
    if numbers != list(range(len(numbers))) or not 1 <= len(numbers) <= MOST_UNETS:
        raise ValueError(
            f"the files hold the U-Nets {numbers}; a cascade is U-Net 0 and up to two more. Those that are "
            "placeholders in one file have to be given in another."
        )
    unets = {number: dict(owner[number].unets[number]) for number in numbers}
    _check_order(unets)
    stored = _stored([owner[number] for number in numbers], given)
    return Joined(unets, {number: owner[number].source[number] for number in numbers}, stored)


def _placed(checkpoint: Checkpoint, place: int) -> Checkpoint:
    if checkpoint.is_numbered:
        return checkpoint
    own = (*(UnetOptions() for _ in range(place)), *checkpoint.options.unets)
    return replace(
        checkpoint,
        unets={place: checkpoint.unets[0]},
        source={place: checkpoint.source[0]},
        options=replace(checkpoint.options, unets=own),
    )


def _check_order(unets: Mapping[int, Mapping[str, Tensor]]) -> None:
    for number, state in unets.items():
        if any(name.startswith("to_lowres_time_") for name in state) != (number > 0):
            kind = "takes no smaller picture" if number else "enlarges a smaller picture"
            raise ValueError(
                f"U-Net {number} {kind}; a cascade is a base and then its enlargements. Give the files of all, in this "
                "order."
            )


def _stored(owners: Sequence[Checkpoint], given: ImagenOptions) -> ImagenOptions:
    """Return what the files say, each stage's owner first; one that says nothing leaves the word to the others."""
    speaking = [checkpoint.options for checkpoint in owners if checkpoint.options != ImagenOptions()]
    if not speaking:
        return ImagenOptions()
    unets = [_first_word([owner.options, *speaking], number) for number, owner in enumerate(owners)]
    values: dict[str, Any] = {}
    for name in (item.name for item in fields(ImagenOptions) if item.name != "unets"):
        if name in _BY_STAGE:
            values[name] = _of_each(name, [owner.options for owner in owners], speaking, given)
        else:
            voices = [owner.options for owner in owners[name in _OF_ENLARGEMENTS :]]
            values[name] = _of_all(name, voices or speaking, speaking, given)
    return ImagenOptions(unets=unets, **values)


def _first_word(options: Sequence[ImagenOptions], number: int) -> UnetOptions:
    said = [known.unets[number] for known in options if number < len(known.unets)]
    return next((unet for unet in said if unet != UnetOptions()), UnetOptions())


def _of_each(
    name: str, owners: Sequence[ImagenOptions], speaking: Sequence[ImagenOptions], given: ImagenOptions
) -> Any:
    said = [getattr(options, name) for options in speaking if getattr(options, name) is not None]
    if not said or all(value == said[0] for value in said):
        return said[0] if said else None
    if getattr(given, name) is not None:
        return None
    values = []
    for number, owner in enumerate(owners):
        words = [_at(name, value, number) for value in (getattr(owner, name), *said)]
        values.append(next((word for word in words if word is not None), None))
    if None in values:
        raise ValueError(
            f"`{name}` of U-Net {values.index(None)} is in none of the files; give it for all, by this name."
        )
    return values


def _at(name: str, value: Any, number: int) -> Any:
    if name == "noise_schedules" and value is not None:
        value = by_stage(name, value, MOST_UNETS)
    if isinstance(value, list | tuple):
        return value[number] if number < len(value) else None
    return value


def _of_all(
    name: str, owners: Sequence[ImagenOptions], speaking: Sequence[ImagenOptions], given: ImagenOptions
) -> Any:
    said = [getattr(options, name) for options in (*owners, *speaking) if getattr(options, name) is not None]
    different = [value for value in said[: len(owners)] if value != said[0]]
    if different and getattr(given, name) is None:
        raise ValueError(
            f"`{name}` is {said[0]!r} in one file and {different[0]!r} in another; say which, by this name."
        )
    return said[0] if said else None
