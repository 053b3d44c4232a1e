# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""Find out what a run would take, and stop: parameters, memory, data, steps, epochs, hours. Called by the command line.

Two steps of the real model are timed on the run's own pictures; nothing is written.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from accelerate import Accelerator
from torch import Tensor

from diffusers_imagen.text.encoding import encode_text
from diffusers_imagen.text.loading import load_text_encoder
from diffusers_imagen.training.allocator import keep_freed_memory
from diffusers_imagen.training.config import TrainConfig
from diffusers_imagen.training.ema import ExponentialAverage
from diffusers_imagen.training.memory import MemoryEstimate, estimate_memory, peak_memory
from diffusers_imagen.training.objective import TrainingBatch, diffusion_loss
from diffusers_imagen.training.prior import missing_pictures, prior_config
from diffusers_imagen.training.sources import open_pictures
from diffusers_imagen.training.state import check_unet, describe_unet, make_unet
from diffusers_imagen.training.strategy import make_accelerator, place, prepare, strategy_of
from diffusers_imagen.training.tasks import training_task

_MIB = 2**20
# Captions that are encoded to see how long they are, and pictures that are read to see how fast.
_CAPTIONS, _PICTURES = 64, 16


@dataclass(frozen=True)
class DryRun:
    """Hold what a run would take.

    Attributes:
        parameters: Weights of the U-Net, of a LoRA's too.
        trained: Those of them that are trained.
        memory: The estimate for each process.
        measured: Bytes that two steps really took; None if they were not made or nothing tells.
        pictures: Pictures trained on.
        captions: Different captions of these.
        held_out: Pictures held out.
        prior: Prior pictures, those of them that are still to be drawn, and how many are in each batch; None without.
        picture_bytes: Of all pictures trained on, decoded, if they are kept in memory.
        samples_per_step: Samples of an optimizer step, over all processes.
        step_seconds: Time of an optimizer step; None if none was made.
        data_seconds: Time in which one process reads the pictures of its share of a step.
        max_steps: Steps of the whole run.
        processes: That would train together.
    """

    parameters: int
    trained: int
    memory: MemoryEstimate
    measured: int | None
    pictures: int
    captions: int
    held_out: int
    prior: tuple[int, int, int] | None
    picture_bytes: int
    samples_per_step: int
    step_seconds: float | None
    data_seconds: float
    max_steps: int
    processes: int

    def lines(self) -> Iterator[str]:
        """Give the report for people, line by line."""
        memory = self.memory
        parts = {
            "weights": memory.weights,
            "gradients": memory.gradients,
            "optimizer": memory.optimizer,
            "averages": memory.averages,
            "activations": memory.activations,
        }
        few = "" if self.trained == self.parameters else f", of which {self.trained:,} are trained"
        yield f"parameters   {self.parameters:,}{few}"
        yield f"memory       {memory.total / _MIB:,.0f} MiB a process, estimated: " + ", ".join(
            f"{name} {size / _MIB:,.0f}" for name, size in parts.items()
        )
        yield f"             ({'trained ' if few else ''}parameters x 4 bytes each; activations: what one forward pass keeps for the backward pass)"
        if self.measured is not None:
            yield f"             {self.measured / _MIB:,.0f} MiB measured over two steps"
        yield f"data         {self.pictures:,} pictures, {self.captions:,} captions, {self.held_out:,} pictures held out"
        if self.prior is not None:
            total, missing, size = self.prior
            yield f"prior        {total:,} pictures, {missing:,} of them to be drawn first, {size} in each batch"
        if self.picture_bytes:
            yield f"             {self.picture_bytes / _MIB:,.0f} MiB of pictures in memory (data.in_memory)"
        epochs = self.max_steps * self.samples_per_step / self.pictures
        yield (
            f"steps        {self.max_steps:,} of {self.samples_per_step} samples in {self.processes} process(es), "
            f"{epochs:,.1f} epochs"
        )
        if self.step_seconds is None:
            yield "time         not measured: the model does not fit into the memory that is free here"
            return
        slower = max(self.step_seconds, self.data_seconds)
        waiting = " (reading pictures is slower: more data.workers)" if slower > self.step_seconds else ""
        yield f"time         {slower:.3g} s a step{waiting}, {slower * self.max_steps / 3600:,.2f} hours"


def dry_run(config: TrainConfig) -> DryRun:
    """Check a run as its start would, and time two steps of it.

    Args:
        config: Of the run.

    Raises:
        ValueError: Whatever `train` would refuse.
    """
    accelerator = make_accelerator(config)
    pictures = open_pictures(config)
    held_out = len(open_pictures(config, held_out=True)) if config.data.validation_fraction else 0
    tokenizer, text_encoder = load_text_encoder(config.text.folder)
    captions = sorted(pictures.captions)
    sampled = [caption or "a" for caption in captions[:: max(1, len(captions) // _CAPTIONS)][:_CAPTIONS]] or ["a"]
    text = encode_text(sampled, tokenizer, text_encoder, config.text.settings)
    described = describe_unet(config.model, config.lora)
    check_unet(described, config, text.hidden_states.shape[-1])
    memory = estimate_memory(described, config, text.mask.shape[1], accelerator.num_processes, strategy_of(config))

    some = [pictures[index] for index in range(min(_PICTURES, len(pictures)))]
    started = time.perf_counter()
    pixels = [torch.from_numpy(picture.pixels).permute(2, 0, 1) for picture in some]
    for index in range(len(some)):
        pictures[index]
    per_picture = (time.perf_counter() - started) / len(some)
    passes = config.gradient_accumulation_steps
    step_seconds, measured = None, None
    if memory.total < _free_memory(accelerator.device):
        if accelerator.device.type == "cpu":
            keep_freed_memory()
        batch = _batch(config, pixels, text.hidden_states.cpu(), text.mask.cpu()).to(accelerator.device)
        times: list[float] = []
        measured = peak_memory(accelerator.device, lambda: times.extend(_two_steps(config, accelerator, batch)))
        step_seconds = times[-1]
    return DryRun(
        parameters=sum(parameter.numel() for parameter in described.parameters()),
        trained=sum(parameter.numel() for parameter in described.parameters() if parameter.requires_grad),
        memory=memory,
        measured=measured,
        pictures=len(pictures),
        captions=len(captions),
        held_out=held_out,
        prior=_prior(config),
        picture_bytes=3 * config.data.size**2 * len(pictures) if config.data.fits_in_memory(len(pictures)) else 0,
        samples_per_step=config.batch_size * passes * accelerator.num_processes,
        step_seconds=step_seconds,
        data_seconds=0.0
        if config.data.fits_in_memory(len(pictures))
        else per_picture * config.batch_size * passes / config.data.workers,
        max_steps=config.max_steps,
        processes=accelerator.num_processes,
    )


def _prior(config: TrainConfig) -> tuple[int, int, int] | None:
    """Count prior pictures: in all, to be drawn, in a batch."""
    if config.prior is None:
        return None
    missing = len(missing_pictures(config.prior))
    total = config.prior.num_images if missing else len(open_pictures(prior_config(config, config.prior)))
    return total, missing, config.pass_size - config.batch_size


def _two_steps(config: TrainConfig, accelerator: Accelerator, batch: TrainingBatch) -> list[float]:
    """Make two optimizer steps and give the seconds of each; the first one pays for what is made once."""
    torch.manual_seed(config.seed)
    unet = place(make_unet(config.model, config.lora), config, accelerator)
    task = training_task(unet, config)
    averages = [ExponentialAverage(unet, config.ema.decay) for _ in range(3 if config.ema.post_hoc else 1)]
    if config.compile:
        unet.compile()
    updates = prepare(unet, [average.model for average in averages], config, accelerator)
    seconds = []
    for step in range(2):
        started = time.perf_counter()
        for passes in range(1, config.gradient_accumulation_steps + 1):
            with updates.forward_pass(is_last=passes == config.gradient_accumulation_steps):
                updates.backward(diffusion_loss(updates.unet, task, batch, config.data, config.objective).mean)
        updates.update().item()
        for average in averages:
            average.update(unet, step)
        if accelerator.device.type == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - started)
    return seconds


def _batch(config: TrainConfig, pixels: Sequence[Tensor], text: Tensor, mask: Tensor) -> TrainingBatch:
    """Make a batch of the right sizes from a few pictures and captions, repeated as often as it takes."""
    size, side = config.pass_size, config.data.crop_side
    enlarges = config.model.model_class == "super_resolution"
    rows = torch.arange(size)
    corner = torch.zeros(size, dtype=torch.int64)
    return TrainingBatch(
        pictures=torch.stack(list(pixels))[rows % len(pixels)],
        text=text[rows % len(text)],
        text_mask=mask[rows % len(text)],
        t=(rows + 0.5) / size,
        eps=torch.randn(size, 3, side, side),
        flip=torch.zeros(size, dtype=torch.bool),
        top=corner,
        left=corner,
        noise_level=torch.full((size,), 0.5) if enlarges else None,
        low_res_eps=torch.randn(size, 3, side, side) if enlarges else None,
    )


def _free_memory(device: torch.device) -> float:
    if device.type == "cuda":
        return float(torch.cuda.mem_get_info(device)[0])
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return float(next(line.split()[1] for line in lines if line.startswith("MemAvailable:"))) * 1024
    except (OSError, StopIteration):
        return float("inf")
