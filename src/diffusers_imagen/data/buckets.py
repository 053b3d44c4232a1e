# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""Sort pictures of different shapes into buckets of one size each, so that batches need no squares.

When a bucket's batches come is in `schedule.py`. Called where a run opens its data.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class Buckets:
    """Say which bucket each picture is in.

    Args:
        shapes: Height and width of each bucket in pixels.
        of: Number of the bucket of each picture (N,).
        unit: Pictures in a row that come from one bucket: those of one optimizer step.
    """

    shapes: tuple[tuple[int, int], ...]
    of: npt.NDArray[np.uint8]
    unit: int

    def shape_of(self, index: int) -> tuple[int, int]:
        """Give height and width that a picture is cut to."""
        return self.shapes[int(self.of[index])]

    @property
    def counts(self) -> dict[tuple[int, int], int]:
        """Number of pictures of each shape."""
        numbers = np.bincount(self.of, minlength=len(self.shapes))
        return {shape: int(number) for shape, number in zip(self.shapes, numbers, strict=True)}


def assign_buckets(sizes: npt.NDArray[np.int64], side: int, multiple: int, unit: int) -> Buckets:
    """Put each picture into the bucket whose shape is nearest to its own.

    The buckets are Diffusers' eleven shapes between 1:2 and 2:1, of about `side`^2 pixels. Those with too few pictures
    for one step are left out; theirs go to the nearest of the others.

    Args:
        sizes: Height and width of all pictures (N, 2); pictures of unknown size, 0, count as squares.
        side: Side in pixels of the square of the same area.
        multiple: Height and width of the buckets are multiples of this.
        unit: Pictures of one optimizer step.

    Returns:
        The buckets that are used, and that of each picture.

    Raises:
        ValueError: If `multiple` does not divide `side`, or there are fewer pictures than `unit`.
    """
    if multiple < 1 or side % multiple:
        raise ValueError(f"`data.bucket_multiple` is {multiple}; give a divisor of `data.size`, {side}.")
    if len(sizes) < unit:
        raise ValueError(f"One step takes {unit} pictures, but there are only {len(sizes)}; lower `batch_size`.")
    # Takes seconds to import, and only runs with buckets need it.
    from diffusers.training_utils import generate_aspect_ratio_buckets

    shapes = generate_aspect_ratio_buckets(side, divisibility=multiple)
    while True:
        of = _nearest(np.where(sizes > 0, sizes, side), np.array(shapes))
        counts = np.bincount(of, minlength=len(shapes))
        if counts.min() >= unit:
            return Buckets(tuple(shapes), of, unit)
        # Pictures that move may fill another bucket, so only the emptiest goes and the rest is counted again.
        del shapes[int(counts.argmin())]


def _nearest(sizes: npt.NDArray[np.int64], shapes: npt.NDArray[np.int64]) -> npt.NDArray[np.uint8]:
    """Choose as Diffusers' `find_nearest_bucket` does, for all pictures at once."""
    distances = np.abs(sizes[:, :1] * shapes[:, 1] - sizes[:, 1:] * shapes[:, 0])
    # Of equally near ones it takes the last.
    return (len(shapes) - 1 - distances[:, ::-1].argmin(axis=1)).astype(np.uint8)
