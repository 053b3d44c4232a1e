# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""Make training batches ahead of time, each a pure function of its number.

Joins pictures, text embeddings and everything drawn at random. Called by the training loop, which asks for batch
after batch from any number on.
"""

from collections import deque
from collections.abc import Generator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

import torch
from torch import Tensor

from diffusers_imagen.data.degradation import Degradation
from diffusers_imagen.data.schedule import BucketSchedule, DataSchedule
from diffusers_imagen.data.source import Picture, PictureSource
from diffusers_imagen.data.transforms import to_uint8, to_unit_range
from diffusers_imagen.diffusion.resize import resize
from diffusers_imagen.diffusion.time_density import time_at
from diffusers_imagen.text.cache import TextEmbeddingCache
from diffusers_imagen.text.online import OnlineTextEncoder
from diffusers_imagen.training.config import TrainConfig
from diffusers_imagen.training.objective import TrainingBatch
from diffusers_imagen.training.randomness import SampleDraws, draw_sample, sample_generator


class _Ready(NamedTuple):
    """Hold a picture (3, H, W), its captions and, where one is stored, its low resolution (3, h, w), both uint8."""

    pixels: Tensor
    captions: tuple[str, ...]
    low_res: Tensor | None


class BatchMaker:
    """Make the batch of any number from pictures and their text.

    Args:
        config: Of the run.
        pictures: The source of pictures.
        text: What gives the embeddings of the source's captions.
        processes: Number of processes that train together.
        process: Rank of this one, which takes its share of each global batch.
    """

    def __init__(
        self,
        config: TrainConfig,
        pictures: PictureSource,
        text: TextEmbeddingCache | OnlineTextEncoder,
        processes: int = 1,
        process: int = 0,
    ) -> None:
        self._config = config
        self._pictures = pictures
        self._text = text
        self._processes = processes
        self._process = process
        order = DataSchedule(config.seed, len(pictures), pictures.groups, pictures.window)
        buckets = pictures.buckets
        self._schedule = order if buckets is None else BucketSchedule(order, buckets)
        self._degradation = Degradation(config.data.low_res_blur, config.data.low_res_jpeg)
        self._text_length = text.longest if config.compile else None
        self._decoded = self._decode_all() if config.data.fits_in_memory(len(pictures)) else None

    def batch(self, number: int) -> TrainingBatch:
        """Make one batch.

        Args:
            number: Of the forward pass since the start of training, from 0.

        Returns:
            The batch, on the CPU.
        """
        size = self._config.batch_size
        start = (number * self._processes + self._process) * size
        samples = range(start, start + size)
        generators = [sample_generator(self._config.seed, sample) for sample in samples]
        draws = [draw_sample(generator) for generator in generators]
        pictures = [self._picture(index) for index in self._schedule.indices(start, start + size)]
        captions = [self._caption(picture.captions, draw) for picture, draw in zip(pictures, draws, strict=True)]
        text = self._text.batch(captions, self._text_length)
        enlarges = self._config.model.model_class == "super_resolution"
        pixels = torch.stack([picture.pixels for picture in pictures])
        return TrainingBatch(
            pictures=pixels,
            text=text.hidden_states,
            text_mask=text.mask,
            t=torch.tensor([self._time(draw) for draw in draws]),
            eps=self._noise(generators, pixels),
            flip=torch.tensor([self._config.data.horizontal_flip and draw.flip < 0.5 for draw in draws]),
            top=torch.tensor([self._corner(draw.top) for draw in draws]),
            left=torch.tensor([self._corner(draw.left) for draw in draws]),
            noise_level=torch.tensor([self._noise_level(draw) for draw in draws]) if enlarges else None,
            low_res_eps=self._noise(generators, pixels) if enlarges else None,
            low_res=self._low_res(pictures, samples) if enlarges else None,
        )

    def batches(self, first: int) -> Generator[TrainingBatch, None, None]:
        """Give batch after batch without end, made ahead by `data.workers` threads.

        Threads suffice: decoding, resizing and drawing noise all leave Python's lock. The order is that of the
        numbers, whatever thread is first.

        Args:
            first: Number of the first batch.
        """
        workers = self._config.data.workers
        pool = ThreadPoolExecutor(workers, thread_name_prefix="batches")
        waiting: deque[Future[TrainingBatch]] = deque()
        try:
            while True:
                while len(waiting) <= 2 * workers:
                    waiting.append(pool.submit(self.batch, first))
                    first += 1
                yield waiting.popleft().result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def _picture(self, index: int) -> _Ready:
        return _ready(self._pictures[index]) if self._decoded is None else self._decoded[index]

    def _decode_all(self) -> list[_Ready]:
        with ThreadPoolExecutor(self._config.data.workers) as pool:
            return [_ready(picture) for picture in pool.map(self._pictures.__getitem__, range(len(self._pictures)))]

    def _low_res(self, pictures: list[_Ready], samples: range) -> Tensor | None:
        """Give the small pictures, unless they are no more than the pictures shrunk, which the device does faster."""
        if not self._degradation and all(picture.low_res is None for picture in pictures):
            return None
        small = [self._shrink(picture) for picture in pictures]
        if self._degradation:
            small = [self._degradation(image, self._config.seed, n) for image, n in zip(small, samples, strict=True)]
        return torch.stack(small)

    def _shrink(self, picture: _Ready) -> Tensor:
        factor = self._config.data.low_res_factor
        size = (picture.pixels.shape[1] // factor, picture.pixels.shape[2] // factor)
        if picture.low_res is None:
            return to_uint8(resize(to_unit_range(picture.pixels[None]), size)[0])
        if picture.low_res.shape[1:] != size:
            raise ValueError(
                f"A picture of `data.low_res_folder` is {tuple(picture.low_res.shape[1:])} high and wide; the stage "
                f"takes {size}."
            )
        return picture.low_res

    def _caption(self, captions: tuple[str, ...], draw: SampleDraws) -> str | None:
        if draw.caption_drop < self._config.objective.caption_drop:
            return None
        return captions[int(draw.caption * len(captions))] if captions else None

    def _noise(self, generators: list[torch.Generator], pixels: Tensor) -> Tensor:
        crop = self._config.data.crop
        shape = pixels.shape[1:] if crop is None else (3, crop, crop)
        return torch.stack([torch.randn(shape, generator=generator) for generator in generators])

    def _time(self, draw: SampleDraws) -> float:
        objective = self._config.objective
        return time_at(draw.t, objective.times, objective.times_mean, objective.times_std)

    def _noise_level(self, draw: SampleDraws) -> float:
        least, most = self._config.objective.noise_level_min, self._config.objective.noise_level_max
        return least + (most - least) * draw.noise_level

    def _corner(self, uniform: float) -> int:
        # Multiples of the factor keep the enlarged low resolution in the same phase as in sampling.
        data = self._config.data
        unit = data.low_res_factor if self._config.model.model_class == "super_resolution" else 1
        return unit * int(uniform * ((data.size - data.crop_side) // unit + 1))


def _ready(picture: Picture) -> _Ready:
    low_res = None if picture.low_res is None else torch.from_numpy(picture.low_res).permute(2, 0, 1)
    pixels = torch.from_numpy(picture.pixels).permute(2, 0, 1).contiguous()
    return _Ready(pixels, picture.captions, low_res)
