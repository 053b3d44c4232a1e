# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""Pictures from PIL or files to the uint8 tensors that feature extractors and judges look at."""

from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from diffusers_imagen.data.transforms import to_rgb


def read_picture(path: Path, side: int | None = None) -> Image.Image:
    """Read a picture as RGB, resized to a square of `side` pixels if given, antialiased.

    Raises:
        ValueError: If the file is missing or no picture.
    """
    try:
        with Image.open(path) as opened:
            picture = to_rgb(opened)
    except (OSError, SyntaxError) as error:
        raise ValueError(f"{path} cannot be read as a picture ({error}); make it again.") from error
    return picture if side is None else picture.resize((side, side), Image.Resampling.BICUBIC)


def to_tensor(images: Sequence[Image.Image]) -> Tensor:
    """Stack RGB pictures of one size to uint8 (B, 3, H, W)."""
    stacked = np.stack([np.asarray(image.convert("RGB")) for image in images])
    return torch.from_numpy(stacked).permute(0, 3, 1, 2).contiguous()


def read_batches(paths: Sequence[Path], side: int | None = None, batch_size: int = 64) -> Iterator[list[Image.Image]]:
    """Read pictures in batches of one size: squares of `side` pixels, antialiased, or their own size.

    Raises:
        ValueError: If a file is missing or no picture.
    """
    for start in range(0, len(paths), batch_size):
        pictures = [read_picture(path, side) for path in paths[start : start + batch_size]]
        for _, same_size in groupby(pictures, key=lambda picture: picture.size):
            yield list(same_size)
