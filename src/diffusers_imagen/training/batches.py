# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""Make training batches ahead of time, each a pure function of its number.

Joins pictures, text embeddings and everything drawn at random. Called by the training loop, which asks for batch
after batch from any number on.
"""

from collections import deque
from collections.abc import Generator
from concurrent.futures import Future, ThreadPoolExecutor

import torch
from torch import Tensor

from diffusers_imagen.data.folder import ImageFolder, Picture
from diffusers_imagen.data.schedule import DataSchedule
from diffusers_imagen.text.cache import TextEmbeddingCache
from diffusers_imagen.training.config import TrainConfig
from diffusers_imagen.training.objective import TrainingBatch
from diffusers_imagen.training.randomness import SampleDraws, draw_sample, sample_generator


class BatchMaker:
    """Make the batch of any number from a folder of pictures and their cached text.

    Args:
        config: Of the run.
        pictures: The source of pictures.
        text: Embeddings of all captions of the source.
        processes: Number of processes that train together.
        process: Rank of this one, which takes its share of each global batch.
    """

    def __init__(
        self,
        config: TrainConfig,
        pictures: ImageFolder,
        text: TextEmbeddingCache,
        processes: int = 1,
        process: int = 0,
    ) -> None:
        self._config = config
        self._pictures = pictures
        self._text = text
        self._processes = processes
        self._process = process
        self._schedule = DataSchedule(config.seed, len(pictures))
        self._text_length = text.longest if config.compile else None
        self._decoded = self._decode_all() if config.data.in_memory else None

    def batch(self, number: int) -> TrainingBatch:
        """Make one batch.

        Args:
            number: Of the forward pass since the start of training, from 0.

        Returns:
            The batch, on the CPU.
        """
        size = self._config.batch_size
        start = (number * self._processes + self._process) * size
        generators = [sample_generator(self._config.seed, sample) for sample in range(start, start + size)]
        draws = [draw_sample(generator) for generator in generators]
        pictures = [self._picture(index) for index in self._schedule.indices(start, start + size)]
        captions = [self._caption(captions, draw) for (_, captions), draw in zip(pictures, draws, strict=True)]
        text = self._text.batch(captions, self._text_length)
        enlarges = self._config.model.model_class == "super_resolution"
        return TrainingBatch(
            pictures=torch.stack([pixels for pixels, _ in pictures]),
            text=text.hidden_states,
            text_mask=text.mask,
            t=torch.tensor([draw.t for draw in draws]),
            eps=self._noise(generators),
            flip=torch.tensor([self._config.data.horizontal_flip and draw.flip < 0.5 for draw in draws]),
            top=torch.tensor([self._corner(draw.top) for draw in draws]),
            left=torch.tensor([self._corner(draw.left) for draw in draws]),
            noise_level=torch.tensor([self._noise_level(draw) for draw in draws]) if enlarges else None,
            low_res_eps=self._noise(generators) if enlarges else None,
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

    def _picture(self, index: int) -> tuple[Tensor, tuple[str, ...]]:
        if self._decoded is not None:
            pixels, captions = self._decoded
            return pixels[index], captions[index]
        picture = self._pictures[index]
        return _channels_first(picture), picture.captions

    def _decode_all(self) -> tuple[Tensor, list[tuple[str, ...]]]:
        side = self._config.data.size
        pixels = torch.empty(len(self._pictures), 3, side, side, dtype=torch.uint8)
        captions: list[tuple[str, ...]] = []
        with ThreadPoolExecutor(self._config.data.workers) as pool:
            for index, picture in enumerate(pool.map(self._pictures.__getitem__, range(len(self._pictures)))):
                pixels[index] = _channels_first(picture)
                captions.append(picture.captions)
        return pixels, captions

    def _caption(self, captions: tuple[str, ...], draw: SampleDraws) -> str | None:
        if draw.caption_drop < self._config.objective.caption_drop:
            return None
        return captions[int(draw.caption * len(captions))]

    def _noise(self, generators: list[torch.Generator]) -> Tensor:
        side = self._config.data.crop_side
        return torch.stack([torch.randn(3, side, side, generator=generator) for generator in generators])

    def _noise_level(self, draw: SampleDraws) -> float:
        least, most = self._config.objective.noise_level_min, self._config.objective.noise_level_max
        return least + (most - least) * draw.noise_level

    def _corner(self, uniform: float) -> int:
        # Multiples of the factor keep the enlarged low resolution in the same phase as in sampling.
        data = self._config.data
        unit = data.low_res_factor if self._config.model.model_class == "super_resolution" else 1
        return unit * int(uniform * ((data.size - data.crop_side) // unit + 1))


def _channels_first(picture: Picture) -> Tensor:
    return torch.from_numpy(picture.pixels).permute(2, 0, 1)
