# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""Derive everything random in training from the seed and a number, never from a stream that goes on.

So a killed run continues to the bit, and a sample's noise does not depend on batch size or number of processes.
Called where batches are made and by the loop for dropout.
"""

from typing import NamedTuple

import numpy as np
import torch

# Keep the streams of samples, of steps and of prior samples apart, and all from the order of the pictures.
_SAMPLE, _STEP, _PRIOR = 1, 2, 3


class SampleDraws(NamedTuple):
    """Hold the uniform numbers in [0, 1) that decide about one sample; their order is part of the seed's meaning."""

    t: float
    noise_level: float
    caption_drop: float
    caption: float
    flip: float
    top: float
    left: float


def sample_generator(seed: int, sample: int) -> torch.Generator:
    """Make the generator of one training sample.

    Args:
        seed: Of the run.
        sample: Position in the endless stream of samples, over all epochs and processes.

    Returns:
        A new CPU generator that depends on nothing else.
    """
    return torch.Generator().manual_seed(_derive(seed, _SAMPLE, sample))


def draw_sample(generator: torch.Generator) -> SampleDraws:
    """Draw what decides about one sample; the generator's next numbers are for its noise."""
    return SampleDraws(*torch.rand(len(SampleDraws._fields), generator=generator).tolist())


def seed_step(seed: int, micro_step: int, process: int) -> None:
    """Seed PyTorch's global generators, which dropout in the network draws from.

    Args:
        seed: Of the run.
        micro_step: Number of the forward and backward pass since the start of training.
        process: Rank of this process.
    """
    torch.manual_seed(_derive(seed, _STEP, micro_step, process))


def prior_seed(seed: int) -> int:
    """Give the seed of a run's prior samples, so that they have other times and noise than its own samples."""
    return _derive(seed, _PRIOR)


def _derive(*numbers: int) -> int:
    # 63 bits: torch.Generator refuses some of the upper half on some devices.
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> np.uint64(1))
