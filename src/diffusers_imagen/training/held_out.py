# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""Measure the loss of held-out pictures by level of noise, always on the same noise. Called by the training loop.

The loss at each level tells more than their mean: a curve that falls at high noise learns what is where, at low noise
how things look in detail.
"""

import math
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from diffusers_imagen.data.source import PictureSource
from diffusers_imagen.text.cache import TextEmbeddingCache
from diffusers_imagen.text.online import OnlineTextEncoder
from diffusers_imagen.training.batches import BatchMaker
from diffusers_imagen.training.config import TrainConfig
from diffusers_imagen.training.objective import diffusion_loss
from diffusers_imagen.training.state import UNet
from diffusers_imagen.training.tasks import training_task


@dataclass(frozen=True)
class LevelLoss:
    """Hold the mean loss at one level of noise: at time t in [0, 1], with its log_snr."""

    t: float
    log_snr: float
    loss: float


class HeldOutLoss:
    """Measure the training loss on held-out pictures, with all captions and without mirroring.

    Args:
        config: Of the run.
        pictures: The held-out pictures.
        text: Embeddings of all their captions.
        processes: Number of processes that measure together.
        process: Rank of this one.
    """

    def __init__(
        self,
        config: TrainConfig,
        pictures: PictureSource,
        text: TextEmbeddingCache | OnlineTextEncoder,
        processes: int,
        process: int,
    ) -> None:
        count = min(config.held_out.num_images, len(pictures))
        size = min(config.batch_size, math.ceil(count / processes))
        self._config = replace(
            config,
            batch_size=size,
            data=replace(config.data, horizontal_flip=False, in_memory=False),
            objective=replace(config.objective, caption_drop=0.0),
        )
        self._batches = math.ceil(count / (size * processes))
        self._maker = BatchMaker(self._config, pictures, text, processes, process)

    @torch.no_grad()
    def measure(
        self, unet: UNet, autocast: Callable[[], AbstractContextManager[object]], mean: Callable[[Tensor], Tensor]
    ) -> list[LevelLoss]:
        """Measure a U-Net at every level of noise.

        Args:
            unet: In evaluation mode.
            autocast: Makes the context of the run's precision.
            mean: Averages a tensor over all processes, each of which must call this.
        """
        config, task = self._config, training_task(unet, self._config)
        levels = [(k + 0.5) / config.held_out.levels for k in range(config.held_out.levels)]
        sums = torch.zeros(len(levels), device=unet.device)
        for number in range(self._batches):
            batch = self._maker.batch(number).to(unet.device)
            for place, t in enumerate(levels):
                at_level = replace(batch, t=torch.full_like(batch.t, t))
                with autocast():
                    sums[place] += diffusion_loss(unet, task, at_level, config.data, config.objective).mean
        losses = mean(sums / self._batches).tolist()
        log_snrs = task.noise_at(torch.tensor(levels)).log_snr.tolist()
        return [LevelLoss(*values) for values in zip(levels, log_snrs, losses, strict=True)]
