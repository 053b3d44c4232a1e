# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""Spoil low-resolution pictures as real small pictures are, so that an enlargement learns to mend them.

What is drawn for a sample depends on the seed and its number alone. Called where batches are made.
"""

from dataclasses import dataclass
from io import BytesIO

import numpy as np
import torch
from PIL import Image, ImageFilter
from torch import Tensor

# Keeps these numbers apart from the order of the pictures (0), a sample's other numbers (1) and those of steps (2).
_DEGRADATION = 3


@dataclass(frozen=True)
class Degradation:
    """Blur pictures and store them as JPEG, each picture by another amount.

    Args:
        blur: Largest standard deviation of a Gaussian blur, in pixels of the low resolution; 0 for none.
        jpeg_quality: Lowest JPEG quality, 1 to 95; None for no JPEG.
    """

    blur: float = 0.0
    jpeg_quality: int | None = None

    def __bool__(self) -> bool:
        return self.blur > 0 or self.jpeg_quality is not None

    def __call__(self, image: Tensor, seed: int, sample: int) -> Tensor:
        """Spoil one picture.

        Args:
            image: A picture (3, h, w), uint8.
            seed: Of the run.
            sample: Position in the endless stream of samples.

        Returns:
            A picture of the same shape, uint8.
        """
        seeds = np.random.SeedSequence([seed, _DEGRADATION, sample])
        blur, quality = np.random.Generator(np.random.Philox(seeds)).random(2).tolist()
        picture = Image.fromarray(image.permute(1, 2, 0).contiguous().numpy())
        if self.blur > 0:
            picture = picture.filter(ImageFilter.GaussianBlur(self.blur * blur))
        if self.jpeg_quality is not None:
            buffer = BytesIO()
            picture.save(buffer, format="JPEG", quality=round(self.jpeg_quality + (95 - self.jpeg_quality) * quality))
            picture = Image.open(buffer)
        return torch.from_numpy(np.array(picture)).permute(2, 0, 1)
