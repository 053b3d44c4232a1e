# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""Say which picture comes when, as a pure function of seed and position, and which pictures are held out.

Nothing here is advanced or saved: a resumed run asks for the next position. Called by the training loop's batches.
"""

import hashlib
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from diffusers_imagen.data.buckets import Buckets

# Keeps the order apart from the training samples' own randomness, which is derived from the same seed.
_ORDER = 0

Indices = npt.NDArray[np.int64]


class DataSchedule:
    """Order pictures into an endless stream of epochs, each a new permutation of all of them.

    Pictures in groups, such as the shards that they lie in, are read group by group: each epoch shuffles the groups,
    and the pictures of `window` groups among themselves.

    Args:
        seed: Of the order, at least 0.
        size: Number of pictures, at least 1.
        groups: First index of each group, from 0 upward; None shuffles all pictures among themselves.
        window: Groups that are shuffled together, at least 1.

    Raises:
        ValueError: If `seed`, `size` or `window` is too small.
    """

    def __init__(self, seed: int, size: int, groups: Indices | None = None, window: int = 1) -> None:
        for name, value, least in (("size", size, 1), ("seed", seed, 0), ("window", window, 1)):
            if value < least:
                raise ValueError(f"`{name}` is {value}; give a number of at least {least}.")
        self._seed = seed
        self._size = size
        self._grouped = groups is not None
        self._bounds = np.append([0] if groups is None else groups, size).astype(np.int64)
        self._window = window
        # A batch may reach over the end of a window or an epoch.
        self._cached_epoch_windows = lru_cache(maxsize=2)(self._epoch_windows)
        self._cached_window_order = lru_cache(maxsize=4)(self._window_order)

    def indices(self, start: int, stop: int) -> list[int]:
        """Give the pictures at the positions start to stop - 1 of the stream.

        Args:
            start: First position, at least 0; the position is also the sample's own number for its randomness.
            stop: One after the last position.

        Returns:
            Indices of pictures.
        """
        return [self._index(position) for position in range(start, stop)]

    def epoch(self, epoch: int) -> Indices:
        """Give the order of all pictures in an epoch."""
        if not self._grouped:
            return epoch_order(self._seed, epoch, self._size)
        count = len(self._cached_epoch_windows(epoch)[1])
        return np.concatenate([self._cached_window_order(epoch, number) for number in range(count)])

    def _index(self, position: int) -> int:
        epoch, place = divmod(position, self._size)
        if not self._grouped:
            return int(epoch_order(self._seed, epoch, self._size)[place])
        _, starts = self._cached_epoch_windows(epoch)
        number = int(np.searchsorted(starts, place, side="right")) - 1
        return int(self._cached_window_order(epoch, number)[place - starts[number]])

    def _epoch_windows(self, epoch: int) -> tuple[Indices, Indices]:
        """Give the order of the groups in an epoch, and the place at which each window of them begins."""
        order = epoch_order(self._seed, epoch, len(self._bounds) - 1)
        lengths = np.diff(self._bounds)[order]
        starts = np.cumsum(lengths) - lengths
        return order, starts[:: self._window]

    def _window_order(self, epoch: int, number: int) -> Indices:
        """Give the order of the pictures in a window."""
        order, _ = self._cached_epoch_windows(epoch)
        groups = order[number * self._window : (number + 1) * self._window]
        members = np.concatenate([np.arange(self._bounds[group], self._bounds[group + 1]) for group in groups])
        # From 1 on: a trailing 0 would be the stream that ordered the groups.
        return _generator(self._seed, epoch, number + 1).permutation(members)


class BucketSchedule:
    """Order pictures so that each run of `buckets.unit` of them comes from one bucket.

    A bucket's pictures keep the order of the epoch, and come when there are enough of them. Those left over at the end
    of an epoch, fewer than a unit of each bucket and others each time, are not seen in it.

    Args:
        order: The order of all pictures.
        buckets: The bucket of each.
    """

    def __init__(self, order: DataSchedule, buckets: Buckets) -> None:
        self._order = order
        self._buckets = buckets
        self._runs = sum(count // buckets.unit for count in buckets.counts.values())
        self._cached_epoch_runs = lru_cache(maxsize=2)(self._epoch_runs)

    def indices(self, start: int, stop: int) -> list[int]:
        """Give the pictures at the positions start to stop - 1 of the stream, as `DataSchedule.indices` does."""
        unit = self._buckets.unit
        return [
            int(
                self._cached_epoch_runs(position // unit // self._runs)[position // unit % self._runs, position % unit]
            )
            for position in range(start, stop)
        ]

    def _epoch_runs(self, epoch: int) -> Indices:
        """Give the pictures of an epoch in runs of one bucket each, (runs, unit)."""
        unit = self._buckets.unit
        order = self._order.epoch(epoch)
        of = self._buckets.of[order]
        runs = [
            places[: len(places) // unit * unit].reshape(-1, unit)
            for places in (np.flatnonzero(of == number) for number in range(len(self._buckets.shapes)))
        ]
        joined = np.concatenate(runs)
        # A run comes when its last picture has come.
        return order[joined[np.argsort(joined[:, -1])]]


# Two epochs: a batch may reach over the end of one.
@lru_cache(maxsize=4)
def epoch_order(seed: int, epoch: int, size: int) -> Indices:
    """Give the order of a number of things, pictures or groups of them, in an epoch.

    Args:
        seed: Of the order.
        epoch: Number of the epoch, from 0.
        size: Number of things.

    Returns:
        A permutation of 0 to size - 1.
    """
    order = _generator(seed, epoch).permutation(size)
    order.setflags(write=False)
    return order


def _generator(seed: int, *numbers: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, _ORDER, *numbers])))


def is_held_out(file_name: str, fraction: float) -> bool:
    """Tell whether a picture is kept out of training, by its name alone.

    So the split stays when pictures are added or the folder is moved.

    Args:
        file_name: Name within the folder, or what else identifies the picture.
        fraction: Share that is held out, in [0, 1).

    Returns:
        True for about `fraction` of all names.

    Raises:
        ValueError: If `fraction` is not in [0, 1).
    """
    if not 0 <= fraction < 1:
        raise ValueError(f"`validation_fraction` is {fraction}; give a share in [0, 1).")
    return name_hash(file_name) < fraction * 2**64


def name_hash(file_name: str) -> int:
    """Give the number of 64 bits that decides whether a picture is held out."""
    return int.from_bytes(hashlib.sha256(file_name.encode(errors="surrogateescape")).digest()[:8], "big")
