# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""`diffusers-imagen redraw`: training pictures to the base's own version of them, an enlargement's `data.low_res_folder`."""

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from diffusers_imagen.cli.generate import load_pipeline

if TYPE_CHECKING:
    from torch import Tensor

    from diffusers_imagen.data.source import Picture, PictureSource


def redraw(
    checkpoint: Annotated[str, typer.Argument(help="A folder, a built-in cascade's name, or a Hub repository.")],
    data: Annotated[Path, typer.Option(help="The captioned pictures that the enlargement is trained on.")],
    out: Annotated[Path, typer.Option(help="Folder for a PNG of each picture; those that are there are kept.")],
    size: Annotated[
        int | None, typer.Option(min=1, help="The enlargement's data.size; that of the cascade's if not given.")
    ] = None,
    strength: Annotated[
        float, typer.Option(help="How far pictures are noised before they are drawn again, up to 1 for wholly.")
    ] = 0.5,
    steps: Annotated[int, typer.Option(min=1, help="Sampling steps.")] = 8,
    seed: Annotated[int, typer.Option(min=0, help="Picture number i is drawn from seed + i.")] = 0,
    batch_size: Annotated[int, typer.Option(min=1, help="Pictures drawn together.")] = 16,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, ...; chosen by itself if not given.")] = None,
) -> None:
    """Draw the base's own version of training pictures, for an enlargement to learn from what it will get."""
    from diffusers_imagen.evaluation.drawing import claim_folder
    from diffusers_imagen.pipelines.redrawing import check_strength, redrawing_pipeline
    from diffusers_imagen.pipelines.redrawing import redraw as draw_again
    from diffusers_imagen.training.config import DataConfig
    from diffusers_imagen.training.sources import check_is_elsewhere, open_data

    check_strength(strength, steps)
    pipe = load_pipeline(checkpoint, device)
    side = pipe.unet.config.sample_size
    if size is None:
        size = pipe.sr_unet_1.config.sample_size if pipe.sr_unet_1 is not None else 4 * side
    if size % side or size <= side:
        raise ValueError(f"`--size` is {size}; give a multiple of the {side} pixels that the base draws.")
    # What cannot be read is left out; whether it is too much, the training says.
    pictures_data = DataConfig(folder=str(data), size=size, max_bad_fraction=1.0)
    check_is_elsewhere(pictures_data, out, "--out")
    source = open_data(pictures_data)
    source.check_low_res_names()
    settings = {"checkpoint": checkpoint, "size": size, "strength": strength, "steps": steps, "seed": seed}
    claim_folder(out, settings)
    pipe, drawn = redrawing_pipeline(pipe), 0
    for batch in _batches(_missing(source, out), batch_size):
        pictures = _small_versions([picture for _, _, picture in batch], side)
        prompts = [picture.captions[0] if picture.captions else "" for _, _, picture in batch]
        seeds = [seed + number for number, _, _ in batch]
        for (_, place, _), image in zip(
            batch, draw_again(pipe, pictures, prompts, strength, steps, seeds), strict=True
        ):
            _write(image, place)
        drawn += len(batch)
        print(f"{drawn} drawn", flush=True)
    print(f"{drawn} of {len(source)} pictures drawn into {out}; train the enlargement with data.low_res_folder={out}.")


def _missing(source: "PictureSource", folder: Path) -> "Iterator[tuple[int, Path, Picture]]":
    """Give the pictures that have no counterpart in a folder yet: number, place of the counterpart, picture."""
    from diffusers_imagen.data.source import low_res_path

    for number in range(len(source)):
        place = low_res_path(folder, source.name(number))
        if not place.is_file():
            picture = source[number]
            # In the place of one that cannot be read stands another, which has a turn of its own.
            if picture.file_name == source.name(number):
                yield number, place, picture


def _batches(items: "Iterator[tuple[int, Path, Picture]]", size: int) -> "Iterator[list[tuple[int, Path, Picture]]]":
    while batch := list(islice(items, size)):
        yield batch


def _small_versions(pictures: "Sequence[Picture]", side: int) -> "Tensor":
    """Return pictures (B, C, side, side) in [-1, 1] as an enlargement gets them in training."""
    import torch

    from diffusers_imagen.data.transforms import to_unit_range
    from diffusers_imagen.diffusion.resize import resize

    pixels = torch.stack([torch.from_numpy(picture.pixels).permute(2, 0, 1) for picture in pictures])
    return resize(to_unit_range(pixels), (side, side))


def _write(image: "Tensor", place: Path) -> None:
    from PIL import Image

    from diffusers_imagen.data.transforms import to_uint8

    pixels: Any = to_uint8(image.cpu()).permute(1, 2, 0).numpy()
    place.parent.mkdir(parents=True, exist_ok=True)
    temporary = place.with_suffix(".tmp")
    Image.fromarray(pixels).save(temporary, format="PNG")
    temporary.replace(place)
