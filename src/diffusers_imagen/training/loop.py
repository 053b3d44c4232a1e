# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""Train one stage: the only training loop, on Accelerate for placement, precision and several processes.

Called by the command line and by programs through `train`; it draws no pictures itself but hands the averaged U-Net to
a function of its caller.
"""

import json
import logging
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

import torch
from torch import Tensor

from diffusers_imagen.data.source import PictureSource
from diffusers_imagen.text.cache import TextEmbeddingCache
from diffusers_imagen.text.encoding import encode_text
from diffusers_imagen.text.loading import load_text_encoder
from diffusers_imagen.text.online import OnlineTextEncoder
from diffusers_imagen.training.allocator import keep_freed_memory
from diffusers_imagen.training.batches import BatchMaker
from diffusers_imagen.training.checkpoint import (
    Checkpoint,
    CheckpointError,
    checkpoint_steps,
    load_newest,
    save_checkpoint,
)
from diffusers_imagen.training.config import TrainConfig
from diffusers_imagen.training.ema import ExponentialAverage
from diffusers_imagen.training.export import export_model
from diffusers_imagen.training.held_out import HeldOutLoss
from diffusers_imagen.training.lora import export_lora
from diffusers_imagen.training.objective import TrainingBatch, diffusion_loss
from diffusers_imagen.training.power_average import PowerAverage
from diffusers_imagen.training.pretrained import pretrained_digest, pretrained_folder
from diffusers_imagen.training.prior import BatchesWithPrior, Draw, draw_prior, prior_config
from diffusers_imagen.training.progress import Progress
from diffusers_imagen.training.randomness import seed_step
from diffusers_imagen.training.record import ScalarLog, append_line, forget_after
from diffusers_imagen.training.run_folder import (
    CHECKPOINTS,
    HELD_OUT,
    LOG,
    LORA,
    SNAPSHOTS,
    UNET,
    forget_lock,
    lock_run,
    write_run_config,
)
from diffusers_imagen.training.sharding import gather, is_sharded
from diffusers_imagen.training.sources import captions_of, check_places, open_pictures
from diffusers_imagen.training.state import (
    TrainingState,
    UNet,
    check_unet,
    describe_unet,
    learning_rate,
    make_unet,
    prediction_of,
)
from diffusers_imagen.training.strategy import make_accelerator, place, prepare
from diffusers_imagen.training.tasks import training_task
from diffusers_imagen.training.trackers import start_trackers, stop_trackers, track

_logger = logging.getLogger(__name__)

Preview = Callable[[UNet, int], None]
_BAD_AT_END = 10
# Not all checkpoints say these.
_LATER = ("model_class", "task", "prediction", "text", "optimizer.options")
# What these stand for.
_SAYS = {
    "data": " (the pictures, their names or captions, or which of them are held out)",
    "prior": " (the pictures of `prior`)",
    "base": " (the files of the U-Net under the adapter)",
    "task": " (sizes and degradation, of `data`)",
}
_TASK = ("size", "crop", "low_res_factor", "low_res_resize", "low_res_blur", "low_res_jpeg")


class TrainResult(NamedTuple):
    """Say how far a run came: its steps, the skipped ones among them, and whether it reached `max_steps`."""

    step: int
    skipped: int
    finished: bool


def train(config: TrainConfig, preview: Preview | None = None, draw: Draw | None = None) -> TrainResult:
    """Train one stage, from its newest checkpoint if there is one.

    Writes into `config.output_dir`: `checkpoints/`, `unet/` (the averaged U-Net, for `from_pretrained`; of a
    LoRA `lora/` instead, for `load_lora_adapter`), `log.jsonl`,
    `held_out.jsonl`, `train_config.json`, `quarantine.jsonl`, `text_cache/`, and if they are asked for
    `snapshots/` and `trackers/`. SIGTERM makes it save and leave, and so does the first SIGINT.

    Args:
        config: Of the run.
        preview: Called with the averaged U-Net and the number of steps made, every `config.preview.every_steps` and at
            the end, in the main process.
        draw: Draws the pictures of `config.prior` that are missing, in the main process.

    Returns:
        How far it came.

    Raises:
        ValueError: If the data, the model or the text encoder cannot be used, or the run in `output_dir` is another.
        RuntimeError: If too many steps in a row, or at the end, have no finite gradient.
        KeyboardInterrupt: After SIGINT; the step is saved then.
    """
    is_new = not Path(config.output_dir).exists()
    try:
        run = _Run(config, preview, draw)
    except ValueError:
        if is_new:
            forget_lock(Path(config.output_dir))
        raise
    return run.run()


class _Run:
    """One run: what it holds, and its steps."""

    def __init__(self, config: TrainConfig, preview: Preview | None, draw: Draw | None) -> None:
        self._config = config
        self._preview = preview
        self._folder = Path(config.output_dir)
        check_places(config)
        self._accelerator = accelerator = make_accelerator(config)
        self._lock = lock_run(self._folder) if accelerator.is_main_process else None
        # The first process makes the index of tar shards, the others read it.
        with accelerator.main_process_first():
            self._pictures = open_pictures(
                config, quarantine=self._folder / "quarantine.jsonl", samples_per_step=self._samples_per_step
            )
            held_out = open_pictures(config, held_out=True) if config.data.validation_fraction else None
            self._prior_pictures = self._open_prior(draw)
        self._prepare_model()
        self._passed_by: list[int] = []
        self._resume()
        text = self._text(
            *(source for source in (self._pictures, held_out, self._prior_pictures) if source is not None)
        )
        places = accelerator.num_processes, accelerator.process_index
        self._maker: BatchMaker | BatchesWithPrior = BatchMaker(config, self._pictures, text, *places)
        if config.prior is not None and self._prior_pictures is not None:
            maker = BatchMaker(prior_config(config, config.prior), self._prior_pictures, text, *places)
            self._maker = BatchesWithPrior(self._maker, maker, config.prior.weight)
        self._held_out = None if held_out is None else HeldOutLoss(config, held_out, text, *places)
        self._log = ScalarLog(self._folder / LOG, self._state.step, accelerator.is_main_process, self._mean)
        if accelerator.is_main_process:
            forget_after(self._folder / HELD_OUT, self._state.step)
            write_run_config(config, self._folder)
        # Only the main process draws, but with FSDP all must hand over their parts of the average.
        (self._shows,) = self._agree(preview is not None)
        self._stop, self._interrupted = threading.Event(), False
        self._saved_step = self._state.step
        self._bad_in_a_row = 0

    def run(self) -> TrainResult:
        """Train to the end, or until told to leave."""
        config, state = self._config, self._state
        started = saved = time.monotonic()
        previous = self._catch_signals()
        batches = self._maker.batches(state.step * config.gradient_accumulation_steps)
        is_main = self._accelerator.is_main_process
        progress = Progress(state.step, config.max_steps, self._samples_per_step, is_main)
        is_due = False
        start_trackers(self._accelerator, config, state.step)
        try:
            while state.step < config.max_steps:
                self._step(batches)
                progress.step()
                if line := self._log.due(state.step, config.log_every, config.max_steps):
                    progress.show(line)
                    track(self._accelerator, line, state.step)
                self._measure()
                now = time.monotonic()
                late = config.checkpoint.every_seconds is not None and now - saved >= config.checkpoint.every_seconds
                stop = self._stop.is_set() or (config.time_limit is not None and now - started >= config.time_limit)
                stop, late = self._agree(stop, late)
                is_due |= stop or late or state.step % config.checkpoint.every_steps == 0
                # Weights that have blown up give no finite gradient: what is saved before the next one may be of them.
                if is_due and self._bad_in_a_row == 0:
                    self._save()
                    saved, is_due = time.monotonic(), False
                if state.step % config.preview.every_steps == 0 and state.step < config.max_steps:
                    self._show()
                if stop:
                    break
            self._end()
        finally:
            progress.close()
            batches.close()
            stop_trackers(self._accelerator)
            for number, handler in previous.items():
                signal.signal(number, handler)
        if self._interrupted:
            raise KeyboardInterrupt
        return TrainResult(state.step, state.skipped, state.step >= config.max_steps)

    def _step(self, batches: Iterator[TrainingBatch]) -> None:
        """Make one optimizer step, or skip it when a gradient is not finite."""
        config, state, accelerator = self._config, self._state, self._accelerator
        rate = learning_rate(config.optimizer, state.step, config.max_steps)
        self._updates.set_learning_rate(rate)
        loss = torch.zeros((), device=accelerator.device)
        for micro in range(config.gradient_accumulation_steps):
            seed_step(config.seed, state.step * config.gradient_accumulation_steps + micro, accelerator.process_index)
            with self._updates.forward_pass(is_last=micro == config.gradient_accumulation_steps - 1):
                part = diffusion_loss(
                    self._updates.unet,
                    self._task,
                    self._next(batches),
                    config.data,
                    config.objective,
                ).mean
                self._updates.backward(part)
                loss += part.detach() / config.gradient_accumulation_steps
        norm = self._updates.update()
        # The norm is of gradients averaged over all processes, so all of them skip together.
        finite = bool(torch.isfinite(norm))
        if finite:
            state.ema.update(state.unet, state.updates)
            for average in state.power:
                average.update(state.unet, state.updates)
        self._count(finite)
        self._log.add(loss, norm, rate, state.skipped, self._samples_per_step)

    def _next(self, batches: Iterator[TrainingBatch]) -> TrainingBatch:
        started = time.monotonic()
        batch = next(batches)
        self._log.waited(time.monotonic() - started)
        return batch.to(self._accelerator.device)

    def _count(self, finite: bool) -> None:
        state = self._state
        state.step += 1
        if finite:
            self._bad_in_a_row = 0
            return
        state.skipped += 1
        self._bad_in_a_row += 1
        _logger.warning("Step %d has a gradient that is not finite and is skipped.", state.step)
        if self._bad_in_a_row >= self._config.max_bad_steps:
            raise RuntimeError(self._bad_steps())

    def _end(self) -> None:
        """Save and show a run that is finished, or say how far one came that was interrupted."""
        if self._state.step < self._config.max_steps:
            if self._interrupted:
                _logger.info("%d steps are saved; the same again goes on from there.", self._saved_step)
            return
        # Weights that may have blown up are refused; a few bad steps say nothing of that.
        if self._bad_in_a_row >= min(_BAD_AT_END, self._config.max_bad_steps):
            raise RuntimeError(self._bad_steps())
        self._save()
        self._show()

    def _bad_steps(self) -> str:
        return (
            f"{self._bad_in_a_row} steps in a row had gradients that are not finite. The last checkpoint is from before "
            "them; resume it with a lower `optimizer.lr` or with `precision` bf16 or no."
        )

    @property
    def _samples_per_step(self) -> int:
        config = self._config
        return config.batch_size * config.gradient_accumulation_steps * self._accelerator.num_processes

    def _open_prior(self, draw: Draw | None) -> PictureSource | None:
        prior = self._config.prior
        if prior is None:
            return None
        if self._accelerator.is_main_process:
            draw_prior(prior, draw)
        return open_pictures(prior_config(self._config, prior), quarantine=self._folder / "quarantine_prior.jsonl")

    def _prepare_model(self) -> None:
        config, accelerator = self._config, self._accelerator
        if accelerator.device.type == "cpu":
            keep_freed_memory()
        torch.manual_seed(config.seed)
        unet = place(make_unet(config.model, config.lora), config, accelerator)
        ema: ExponentialAverage[UNet] = ExponentialAverage(unet, config.ema.decay)
        widths = config.ema.sigma_rels if config.ema.post_hoc else ()
        power: list[PowerAverage[UNet]] = [PowerAverage(unet, width) for width in widths]
        if config.compile:
            unet.compile()
        self._task = training_task(unet, config)
        averages = [ema.model, *(average.model for average in power)]
        self._updates = prepare(unet, averages, config, accelerator)
        self._state = TrainingState(unet, ema, self._updates.state, power, accelerator.scaler)

    def _resume(self) -> None:
        folder = self._folder / CHECKPOINTS
        if self._config.resume == "never" and checkpoint_steps(folder):
            raise ValueError(
                f"`resume` is 'never', but {folder} has checkpoints; give another `output_dir`, or 'auto' to go on."
            )
        checkpoint = load_newest(folder)
        if checkpoint is None:
            return
        self._passed_by = [step for step in checkpoint_steps(folder) if step > checkpoint.step]
        for name, value in self._identity().items():
            # Checkpoints of before there was a choice have nothing of what did not exist.
            saved = checkpoint.record.get(name, value if name in _LATER else None)
            if saved != value:
                raise ValueError(
                    f"The run in {str(self._folder)!r} had {name} {saved!r}, now it is {value!r}{_SAYS.get(name, '')}; "
                    "give another `output_dir` or what it was."
                )
        try:
            self._state.restore(checkpoint)
        except RuntimeError as error:
            raise CheckpointError(
                f"The checkpoint of step {checkpoint.step} in {str(self._folder)!r} is of another U-Net than `model` says; "
                f"set `model` back to what it was, or give another `output_dir`. The first difference: {_first(error)}"
            ) from error
        _logger.info("Resumed from step %d.", checkpoint.step)

    def _identity(self) -> dict[str, Any]:
        """Say what must not change when a run is resumed, since it decides what each step sees or starts from."""
        lora, data = self._config.lora, self._config.data
        return {
            "model_class": self._config.model.model_class,
            "task": {name: getattr(data, name) for name in _TASK},
            "seed": self._config.seed,
            "samples_per_step": self._samples_per_step,
            "data": self._pictures.digest,
            "lora": None if lora is None else {**asdict(lora), "target_modules": list(lora.target_modules)},
            "prior": None if self._prior_pictures is None else self._prior_pictures.digest,
            "base": None if lora is None else pretrained_digest(pretrained_folder(self._config.model)),
            "prediction": prediction_of(self._state.unet),
            "text": json.loads(json.dumps(asdict(self._config.text.settings))),
            # Some decide what the optimizer keeps.
            "optimizer.options": json.loads(json.dumps(self._config.optimizer.options)),
        }

    def _text(self, *sources: PictureSource) -> TextEmbeddingCache | OnlineTextEncoder:
        """Encode all captions once, further processes read what the first one wrote; or be ready to encode them."""
        text = self._config.text
        with self._accelerator.main_process_first():
            tokenizer, text_encoder = load_text_encoder(text.folder)
            width = encode_text(["a"], tokenizer, text_encoder, text.settings).hidden_states.shape[-1]
            check_unet(self._state.unet, self._config, width)
            text_encoder = text_encoder.to(self._accelerator.device)
            if not text.cache:
                return OnlineTextEncoder(tokenizer, text_encoder, text.settings)
            return TextEmbeddingCache.build(
                captions_of(*sources),
                tokenizer,
                text_encoder,
                text.settings,
                self._folder / "text_cache",
                text.batch_size,
                source=" ".join(source.digest for source in sources),
            )

    def _save(self) -> None:
        """Write a checkpoint, unless this step has one, and the averaged U-Net or its adapter."""
        state, is_main = self._state, self._accelerator.is_main_process
        if state.step != self._saved_step:
            facts = {**self._identity(), "config": asdict(self._config)}
            checkpoint = state.to_checkpoint(facts, keep=is_main)
            if is_main:
                keep = self._config.checkpoint.keep
                save_checkpoint(self._folder / CHECKPOINTS, checkpoint, keep, self._passed_by)
        # A run killed between the two has a checkpoint of this step, but an older U-Net.
        averaged = self._averaged()
        if averaged is not None:
            if self._config.lora is None:
                export_model(averaged, self._folder / UNET)
            else:
                export_lora(averaged, self._folder / LORA)
        self._saved_step = state.step
        self._accelerator.wait_for_everyone()

    def _averaged(self) -> UNet | None:
        """Give the averaged U-Net, whole, to the main process; with FSDP all must ask for it."""
        model, is_main = self._state.ema.model, self._accelerator.is_main_process
        if not is_sharded(model):
            return model if is_main else None
        tensors = gather(model.state_dict(), keep=is_main)
        if not is_main:
            return None
        averaged = describe_unet(self._config.model, self._config.lora)
        averaged.load_state_dict(tensors, assign=True)
        return averaged.eval().requires_grad_(False)

    def _measure(self) -> None:
        """Measure held-out pictures and keep a snapshot of the power-function averages, where it is time for that."""
        config, state, accelerator = self._config, self._state, self._accelerator
        last = state.step == config.max_steps
        if self._held_out is not None and (last or state.step % config.held_out.every_steps == 0):
            levels = self._held_out.measure(state.ema.model, accelerator.autocast, self._mean)
            loss = sum(level.loss for level in levels) / len(levels)
            if accelerator.is_main_process:
                line = {"step": state.step, "loss": loss, "levels": [asdict(level) for level in levels]}
                append_line(self._folder / HELD_OUT, line)
            by_level = {f"held_out/t={level.t:.3f}": level.loss for level in levels}
            track(accelerator, {"held_out/loss": loss, **by_level}, state.step)
        wants_snapshot = last or state.step % config.ema.snapshot_every_steps == 0
        if state.power and wants_snapshot:
            is_main = accelerator.is_main_process
            tensors = {str(average.sigma_rel): gather(average.model.state_dict(), is_main) for average in state.power}
            if is_main:
                snapshot = Checkpoint(state.step, tensors, {"updates": state.updates})
                save_checkpoint(self._folder / SNAPSHOTS, snapshot, keep=state.step)

    def _mean(self, values: Tensor) -> Tensor:
        """Average over all processes."""
        if self._accelerator.num_processes == 1:
            return values
        averaged: Tensor = self._accelerator.reduce(values, "mean")
        return averaged

    def _show(self) -> None:
        if not self._shows:
            return
        averaged = self._averaged()
        if averaged is not None and self._preview is not None:
            self._preview(averaged.to(self._accelerator.device), self._state.step)

    def _agree(self, *wishes: bool) -> tuple[bool, ...]:
        """Let all processes do what any of them wishes."""
        if self._accelerator.num_processes == 1:
            return wishes
        votes = torch.tensor([float(wish) for wish in wishes], device=self._accelerator.device)
        return tuple(bool(vote) for vote in self._accelerator.reduce(votes))

    def _catch_signals(self) -> dict[int, Any]:
        """Make SIGTERM and the first SIGINT end the run after its step; only the main thread may."""
        if threading.current_thread() is not threading.main_thread():
            return {}

        def leave(signum: int, frame: FrameType | None) -> None:
            if signum == signal.SIGINT:
                if self._interrupted:
                    raise KeyboardInterrupt
                self._interrupted = True
                _logger.info("This step is finished and saved; interrupt again to leave at once.")
            self._stop.set()

        return {number: signal.signal(number, leave) for number in (signal.SIGTERM, signal.SIGINT)}


def _first(error: RuntimeError) -> str:
    """Give the first of the tensors that PyTorch complains of."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[1] if len(lines) > 1 else lines[0]
