# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""Describe a training run: typed, checked parts that come from a YAML file and command-line overrides.

What a model is made of lives in the U-Nets' own configuration; this file only carries it. Read by everything in
`training/`.
"""

import math
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal, get_args, get_origin, get_type_hints

from diffusers_imagen.conversion.deepfloyd_settings import text_settings
from diffusers_imagen.diffusion.resize import ResizeMode
from diffusers_imagen.diffusion.time_density import TimeDensity
from diffusers_imagen.diffusion.weighting import WeightKind
from diffusers_imagen.text.encoding import TextSettings
from diffusers_imagen.text.tokens import TemplateTokens
from diffusers_imagen.training.fine_tune_config import LoraConfig, PriorConfig

# Decoded pictures that are kept where `data.in_memory` leaves it open, in bytes.
_MEMORY_LIMIT = 4 * 2**30


def _check_choices(part: object, section: str = "") -> None:
    """Refuse values that a field's `Literal` type does not list; Python itself would not."""
    for name, kind in get_type_hints(type(part)).items():
        if get_origin(kind) is Literal and getattr(part, name) not in get_args(kind):
            options = ", ".join(map(str, get_args(kind)))
            _require(False, f"{section}{name}", getattr(part, name), f"choose one of {options}")


def _require(holds: bool, name: str, value: object, remedy: str) -> None:
    if not holds:
        raise ValueError(f"`{name}` is {value!r}; {remedy}.")


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Say which pictures are trained on and how they are cut."""

    folder: str
    """Folder of pictures with captions, of tar shards or of a dataset; for `source: dataset` also a dataset's id."""
    source: Literal["auto", "folder", "shards", "dataset"] = "auto"
    """What the pictures are stored in; "auto" looks at the files of the folder and never reaches the network."""
    captions: tuple[str, ...] = ()
    """Fields that hold captions, each a string or a list of strings: of `metadata.jsonl` and of datasets, by default
    `text`, or of the shards' `.json` members, by default their `.txt` members instead."""
    prompts: tuple[str, ...] = ()
    """Captions of those pictures of a folder that have no `.txt` file, such as one for all: "a sks cat"."""
    split: str = "train"
    """Split of a dataset."""
    image_column: str = "image"
    """Column of a dataset that holds the pictures."""
    key_column: str | None = None
    """Column of a dataset whose text names a row and decides whether it is held out; None for the row's number."""
    size: int
    """Pixels: height and width of the stage's pictures."""
    bucket_multiple: int | None = None
    """Pixels: train on buckets of eleven shapes of about `size`^2 pixels with sides that are multiples of this, each
    step from one bucket; None for centre squares."""
    crop: int | None = None
    """Pixels: side of the random crop that is trained on; None for the whole picture."""
    low_res_factor: int = 4
    """How many times smaller the low resolution of an enlargement stage is; unused by a base stage."""
    low_res_resize: ResizeMode = "bicubic"
    """Filter that enlarges the low resolution, as in sampling."""
    low_res_folder: str | None = None
    """Folder with a low-resolution PNG for each picture, under its name, such as outputs of the base; None shrinks the
    pictures."""
    low_res_blur: float = 0.0
    """Pixels: largest standard deviation of a Gaussian blur of the low resolution, drawn for each sample."""
    low_res_jpeg: int | None = None
    """Lowest JPEG quality, 1 to 95, that the low resolution passes through, drawn for each sample; None for no JPEG."""
    horizontal_flip: bool = False
    """Mirror every second picture; wrong for captions that say left or right."""
    validation_fraction: float = 0.0
    """Share in [0, 1) of pictures held out, chosen by a hash of their name."""
    shard_window: int = 16
    """Tar shards whose pictures are shuffled among themselves."""
    max_bad_fraction: float = 0.1
    """Share in [0, 1] of pictures that may be unreadable before the run fails."""
    in_memory: bool | None = None
    """Keep all pictures decoded in memory, 3 * size^2 bytes each; None does so up to 4 GiB."""
    workers: int = 2
    """Threads that make batches ahead of the training step, at least 1."""

    def __post_init__(self) -> None:
        _check_choices(self)
        _require(self.size >= 1, "data.size", self.size, "give the side of the pictures in pixels")
        _require(self.low_res_factor >= 2, "data.low_res_factor", self.low_res_factor, "give 2 or more")
        _require(self.workers >= 1, "data.workers", self.workers, "give at least 1 thread")
        held_out, crop = self.validation_fraction, self.crop_side
        _require(0 <= held_out < 1, "data.validation_fraction", held_out, "give a share in [0, 1)")
        _require(1 <= crop <= self.size, "data.crop", crop, f"give at most `data.size`, {self.size}")
        _require(self.shard_window >= 1, "data.shard_window", self.shard_window, "give at least 1 shard")
        bad, blur, quality = self.max_bad_fraction, self.low_res_blur, self.low_res_jpeg
        _require(0 <= bad <= 1, "data.max_bad_fraction", bad, "give a share in [0, 1]")
        _require(blur >= 0, "data.low_res_blur", blur, "give 0 or more pixels")
        _require(quality is None or 1 <= quality <= 95, "data.low_res_jpeg", quality, "give a quality of 1 to 95")
        multiple = self.bucket_multiple
        fits = multiple is None or (multiple >= 1 and self.size % multiple == 0)
        _require(fits, "data.bucket_multiple", multiple, f"give a divisor of `data.size`, {self.size}")
        _require(multiple is None or self.crop is None, "data.crop", self.crop, "leave it out with aspect buckets")

    def fits_in_memory(self, pictures: int) -> bool:
        """Tell whether that many pictures are kept decoded in memory."""
        if self.in_memory is not None:
            return self.in_memory
        return pictures * 3 * self.size**2 <= _MEMORY_LIMIT

    @property
    def crop_side(self) -> int:
        """Side of what is trained on, in pixels."""
        return self.size if self.crop is None else self.crop


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Say which U-Net is trained."""

    model_class: Literal["base", "super_resolution"]
    """"base" is `ImagenUNet2DConditionModel`, "super_resolution" is `EfficientUNet2DConditionModel`."""
    config: dict[str, Any] = field(default_factory=dict)
    """Constructor arguments of the U-Net."""
    pretrained: str | None = None
    """Folder to start from instead: of a saved U-Net, of a run, or of a cascade, whose base or first enlargement is
    taken; on the command line also a built-in cascade's name. `config` is then empty."""
    noise: dict[str, Any] = field(default_factory=dict)
    """What a U-Net of DeepFloyd IF was trained on where that is not what the released ones were: arguments of Diffusers'
    `DDPMScheduler`, and `low_res` with those for the smaller pictures."""
    gradient_checkpointing: bool = False
    """Compute activations twice to save memory."""

    def __post_init__(self) -> None:
        _check_choices(self, "model.")
        one = not self.config or self.pretrained is None
        _require(one, "model.config", self.config, "leave it empty, since `model.pretrained` brings its own")


@dataclass(frozen=True, kw_only=True)
class TextConfig:
    """Say where the text encoder is and how captions are encoded; the first fields after `folder` are `TextSettings`."""

    folder: str
    """Folder with the subfolders `tokenizer` and `text_encoder`."""
    layers: tuple[int, ...] = (-1,)
    """Hidden layers, concatenated."""
    prefix: str = ""
    """Put before each caption."""
    max_length: int = 128
    """Tokens kept of a caption."""
    template: str | None = None
    """Text around each caption that holds "{prompt}" once, for language models that follow instructions."""
    template_tokens: TemplateTokens = "none"
    """Which of the template's own tokens the U-Net sees: "none", those "after" the caption, or "all"."""
    form: Literal["masked", "deepfloyd_if"] = "masked"
    """"masked" hides padding and has a learned null text; "deepfloyd_if", for its U-Nets, cleans captions, pads them to
    `max_length` without a mask, and takes the empty text for a null text."""
    cache: bool = True
    """Encode all captions before training and keep them on the disk; False encodes those of each batch, again and
    again, in place of a cache that would be too large."""
    batch_size: int = 64
    """Captions that are encoded together for the cache."""

    def __post_init__(self) -> None:
        _check_choices(self, "text.")
        _require(self.batch_size >= 1, "text.batch_size", self.batch_size, "give at least 1")
        _ = self.settings

    @property
    def settings(self) -> TextSettings:
        """The same as `encode_text` takes it."""
        form = text_settings() if self.form == "deepfloyd_if" else {}
        settings = TextSettings(self.layers, self.prefix, **form | {"max_length": self.max_length})
        return replace(settings, template=self.template, template_tokens=self.template_tokens)


@dataclass(frozen=True, kw_only=True)
class ObjectiveConfig:
    """Say what the loss is; the noise schedule and the prediction type are the model's own."""

    weighting: WeightKind = "uniform"
    """Weight by noise level: "uniform", "min_snr" or "sigmoid"."""
    gamma: float = 5.0
    """Limit of min-SNR weighting."""
    bias: float = 0.0
    """Shift of sigmoid weighting, in log-SNR."""
    times: TimeDensity = "uniform"
    """How often each time in [0, 1] is drawn: "uniform" or "logit_normal"."""
    times_mean: float = 0.0
    """Mean of the logit of logit-normal times; above 0 prefers noisy pictures."""
    times_std: float = 1.0
    """Standard deviation of the same."""
    caption_drop: float = 0.1
    """Share in [0, 1] of samples trained without text, for classifier-free guidance."""
    learned_variance: Literal["learn", "drop"] = "learn"
    """Of DeepFloyd IF's U-Nets: go on learning the variance beside the noise, or leave it alone, and draw with a scheduler
    that takes none."""
    noise_level_min: float = 0.0
    """Least noise on the low resolution, in [0, 1]."""
    noise_level_max: float = 1.0
    """Most noise on the low resolution, in [0, 1]."""

    def __post_init__(self) -> None:
        _check_choices(self, "objective.")
        _require(0 <= self.caption_drop <= 1, "objective.caption_drop", self.caption_drop, "give a share in [0, 1]")
        least, most = self.noise_level_min, self.noise_level_max
        _require(0 <= least <= most <= 1, "objective.noise_level_min", least, f"give 0 to noise_level_max, {most}")
        _require(self.gamma > 0, "objective.gamma", self.gamma, "give a number above 0, such as 5")
        _require(math.isfinite(self.times_mean), "objective.times_mean", self.times_mean, "give a finite number")
        _require(
            0 < self.times_std < math.inf, "objective.times_std", self.times_std, "give a number above 0, such as 1"
        )


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """Say how weights are updated."""

    name: str = "AdamW"
    """A class of `torch.optim` such as AdamW, Adafactor or SGD, or one of bitsandbytes such as AdamW8bit."""
    lr: float = 1e-4
    """Learning rate after the warm-up."""
    betas: tuple[float, float] | None = None
    """Decay rates of the two moments, in [0, 1); None for (0.9, 0.99) with AdamW, else for the optimizer's own."""
    eps: float | None = None
    """Added to Adam's divisor; None for the optimizer's own."""
    weight_decay: float | None = None
    """As the optimizer defines it; None for 0.01 with AdamW, else for the optimizer's own."""
    options: dict[str, Any] = field(default_factory=dict)
    """Further arguments of the optimizer's constructor."""
    warmup_steps: int = 500
    """Steps in which the learning rate rises from 0."""
    schedule: Literal["constant", "cosine"] = "constant"
    """After the warm-up: constant, or a half cosine down to 0 at `max_steps`."""
    max_grad_norm: float = 1.0
    """Gradients are scaled down to this norm."""

    def __post_init__(self) -> None:
        _check_choices(self, "optimizer.")
        _require(self.lr > 0, "optimizer.lr", self.lr, "give a number above 0")
        in_range = self.betas is None or all(0 <= beta < 1 for beta in self.betas)
        _require(in_range, "optimizer.betas", self.betas, "give two in [0, 1)")
        _require(self.warmup_steps >= 0, "optimizer.warmup_steps", self.warmup_steps, "give 0 or more")
        _require(self.max_grad_norm > 0, "optimizer.max_grad_norm", self.max_grad_norm, "give a number above 0")


@dataclass(frozen=True, kw_only=True)
class EMAConfig:
    """Say how weights are averaged over steps; the average by `decay` is what is exported."""

    decay: float = 0.9999
    """In [0, 1); while n updates were made, min(decay, (1 + n) / (10 + n)) is used."""
    post_hoc: bool = False
    """Also keep two power-function averages, of whose snapshots `diffusers-imagen ema` makes any other afterwards."""
    sigma_rels: tuple[float, float] = (0.05, 0.1)
    """Relative widths of these two, above 0 and below 0.28, the smaller one first."""
    snapshot_every_steps: int = 1000
    """Steps between their snapshots, each of which is twice as large as the weights."""

    def __post_init__(self) -> None:
        _require(0 <= self.decay < 1, "ema.decay", self.decay, "give a number in [0, 1)")
        widths, every = self.sigma_rels, self.snapshot_every_steps
        _require(0 < widths[0] < widths[1] < 0.28, "ema.sigma_rels", widths, "give two, such as [0.05, 0.1]")
        _require(every >= 1, "ema.snapshot_every_steps", every, "give at least 1")


@dataclass(frozen=True, kw_only=True)
class CheckpointConfig:
    """Say when the run's state is saved."""

    every_steps: int = 1000
    """Steps between checkpoints."""
    every_seconds: float | None = None
    """Seconds after which one is written even before that; None for never."""
    keep: int = 2
    """Checkpoints kept, at least 1."""

    def __post_init__(self) -> None:
        _require(self.every_steps >= 1, "checkpoint.every_steps", self.every_steps, "give at least 1")
        seconds = self.every_seconds
        _require(seconds is None or seconds >= 0, "checkpoint.every_seconds", seconds, "give 0 or more, or null")
        _require(self.keep >= 1, "checkpoint.keep", self.keep, "give at least 1")


@dataclass(frozen=True, kw_only=True)
class PreviewConfig:
    """Say when the caller's preview function is called, and what it draws."""

    every_steps: int = 1000
    """Steps between previews."""
    prompts: tuple[str, ...] = ()
    """What a base stage draws; by default the captions of the first pictures."""
    num_images: int = 8
    """Pictures of a sheet where no prompts are given."""
    seed: int = 0
    """Of the noise, the same in every preview."""
    num_inference_steps: int = 20
    """Sampling steps."""
    guidance_scale: float = 3.0
    """Weight of the text for a base stage; enlargements are drawn without guidance."""

    def __post_init__(self) -> None:
        _require(self.num_images >= 1, "preview.num_images", self.num_images, "give at least 1")
        steps = self.num_inference_steps
        _require(steps >= 1, "preview.num_inference_steps", steps, "give at least 1")
        _require(self.every_steps >= 1, "preview.every_steps", self.every_steps, "give at least 1")


@dataclass(frozen=True, kw_only=True)
class HeldOutConfig:
    """Say when the loss of held-out pictures is measured; there are none with a `data.validation_fraction` of 0."""

    every_steps: int = 1000
    """Steps between measurements."""
    num_images: int = 64
    """Pictures measured, at most, rounded up to whole batches."""
    levels: int = 8
    """Levels of noise at which each of them is measured, evenly spaced in time."""

    def __post_init__(self) -> None:
        for name in ("every_steps", "num_images", "levels"):
            _require(getattr(self, name) >= 1, f"held_out.{name}", getattr(self, name), "give at least 1")


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Describe a whole training run of one stage."""

    data: DataConfig
    model: ModelConfig
    text: TextConfig
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    ema: EMAConfig = field(default_factory=EMAConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    preview: PreviewConfig = field(default_factory=PreviewConfig)
    held_out: HeldOutConfig = field(default_factory=HeldOutConfig)
    lora: LoraConfig | None = None
    """Trains an adapter of low rank in place of the weights of `model.pretrained`; None trains these."""
    prior: PriorConfig | None = None
    """Mixes pictures of what is to be kept into every batch; None for none."""
    output_dir: str
    """Folder of everything that the run writes."""
    max_steps: int
    """Optimizer steps of the whole run."""
    batch_size: int = 64
    """Samples of one forward pass in one process."""
    gradient_accumulation_steps: int = 1
    """Forward passes of one optimizer step."""
    precision: Literal["no", "bf16", "fp16"] = "no"
    """Autocast precision; weights stay in float32."""
    seed: int = 0
    """Of everything random, at least 0."""
    resume: Literal["auto", "never"] = "auto"
    """"auto" goes on from the newest good checkpoint in `output_dir`."""
    channels_last: bool = True
    """Memory layout that convolutions are faster in."""
    compile: bool = False
    """Compile the U-Net with `torch.compile`; texts are then padded to one length."""
    log_every: int = 50
    """Steps between lines of `log.jsonl`."""
    time_limit: float | None = None
    """Seconds after which the run saves and leaves, to be resumed later; None for never."""
    max_bad_steps: int = 50
    """Steps in a row with a loss that is not finite, after which the run fails."""
    trackers: tuple[str, ...] | None = None
    """Where scalars go beside `log.jsonl`, as Accelerate names them: tensorboard, trackio, wandb, ...; none by an empty
    list, and None for tensorboard if it is installed."""
    processes: int | None = None
    """Processes that must train together, or the run fails at once; None for as many as there are."""
    strategy: Literal["auto", "ddp", "fsdp", "deepspeed"] = "auto"
    """What several processes hold: "ddp" the whole model each, "fsdp" a part of all weights, gradients, moments and
    averages (FSDP2), "deepspeed" all weights and averages and a part of the rest (ZeRO); "auto" does what the launcher asks for, "ddp" by default."""

    def __post_init__(self) -> None:
        _check_choices(self)
        for name in ("max_steps", "batch_size", "gradient_accumulation_steps", "log_every", "max_bad_steps"):
            _require(getattr(self, name) >= 1, name, getattr(self, name), "give at least 1")
        limit, processes = self.time_limit, self.processes
        _require(limit is None or limit >= 0, "time_limit", limit, "give seconds, or null for no limit")
        _require(processes is None or processes >= 1, "processes", processes, "give at least 1, or null")
        _require(self.seed >= 0, "seed", self.seed, "give a number of at least 0")
        if self.lora is not None:
            trained = self.model.pretrained
            _require(trained is not None, "model.pretrained", trained, "give the U-Net that `lora` is to adapt")
            _require(not self.ema.post_hoc, "ema.post_hoc", True, "leave it out with `lora`, which has one average")
        if self.prior is not None:
            for name in ("bucket_multiple", "low_res_folder"):
                value = getattr(self.data, name)
                _require(value is None, f"data.{name}", value, "leave it out with `prior`, whose pictures have none")
        if self.model.model_class == "base":
            for part in fields(DataConfig):
                if part.name in ("crop", "low_res_folder", "low_res_blur", "low_res_jpeg"):
                    value = getattr(self.data, part.name)
                    _require(value == part.default, f"data.{part.name}", value, "leave it out: a base has none")
        if self.model.model_class == "super_resolution":
            factor = self.data.low_res_factor
            for name, value in (("data.size", self.data.size), ("data.crop", self.data.crop_side)):
                _require(value % factor == 0, name, value, f"give a multiple of `data.low_res_factor`, {factor}")

    @property
    def pass_size(self) -> int:
        """Samples of one forward pass in one process, prior ones too."""
        if self.prior is None:
            return self.batch_size
        return self.batch_size + (self.batch_size if self.prior.batch_size is None else self.prior.batch_size)
