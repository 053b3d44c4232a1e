# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""Say which picture comes when, as a pure function of seed and position, and which pictures are held out.

Nothing here is advanced or saved: a resumed run asks for the next position. Called by the training loop's batches.
"""

import hashlib
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

# Keeps the order apart from the training samples' own randomness, which is derived from the same seed.
_ORDER = 0


@dataclass(frozen=True)
class DataSchedule:
    """Order pictures into an endless stream of epochs, each a new permutation of all of them.

    Args:
        seed: Of the order, at least 0.
        size: Number of pictures, at least 1.

    Raises:
        ValueError: If `seed` or `size` is too small.
    """

    seed: int
    size: int

    def __post_init__(self) -> None:
        """Refuse an empty collection."""
        if self.size < 1:
            raise ValueError(f"`size` is {self.size}; give the number of pictures, at least 1.")
        if self.seed < 0:
            raise ValueError(f"`seed` is {self.seed}; give a number of at least 0.")

    def indices(self, start: int, stop: int) -> list[int]:
        """Give the pictures at the positions start to stop - 1 of the stream.

        Args:
            start: First position, at least 0; the position is also the sample's own number for its randomness.
            stop: One after the last position.

        Returns:
            Indices of pictures.
        """
        return [
            int(epoch_order(self.seed, position // self.size, self.size)[position % self.size])
            for position in range(start, stop)
        ]


# Two epochs: a batch may reach over the end of one.
@lru_cache(maxsize=4)
def epoch_order(seed: int, epoch: int, size: int) -> npt.NDArray[np.int64]:
    """Give the order of the pictures in an epoch.

    Args:
        seed: Of the order.
        epoch: Number of the epoch, from 0.
        size: Number of pictures.

    Returns:
        A permutation of 0 to size - 1.
    """
    order = np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, _ORDER, epoch]))).permutation(size)
    order.setflags(write=False)
    return order


def is_held_out(file_name: str, fraction: float) -> bool:
    """Tell whether a picture is kept out of training, by its name alone.

    So the split stays when pictures are added or the folder is moved.

    Args:
        file_name: Name within the folder.
        fraction: Share that is held out, in [0, 1).

    Returns:
        True for about `fraction` of all names.

    Raises:
        ValueError: If `fraction` is not in [0, 1).
    """
    if not 0 <= fraction < 1:
        raise ValueError(f"`validation_fraction` is {fraction}; give a share in [0, 1).")
    number = int.from_bytes(hashlib.sha256(file_name.encode()).digest()[:8], "big")
    return number < fraction * 2**64
