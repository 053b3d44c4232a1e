# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""Hold what training changes, the weights, their average and the optimizer, and turn it into a checkpoint and back.

How checkpoints reach the disk is in `checkpoint.py`. Called by the training loop.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor, nn

from diffusers_imagen.models.stage_model import StageShape, stage_shape
from diffusers_imagen.models.unet_deepfloyd import DeepFloydUNet2DConditionModel
from diffusers_imagen.models.unet_efficient import EfficientUNet2DConditionModel
from diffusers_imagen.models.unet_imagen import ImagenUNet2DConditionModel
from diffusers_imagen.training.checkpoint import Checkpoint
from diffusers_imagen.training.config import ModelConfig, OptimizerConfig, TrainConfig
from diffusers_imagen.training.ema import ExponentialAverage
from diffusers_imagen.training.fine_tune_config import LoraConfig
from diffusers_imagen.training.lora import add_lora
from diffusers_imagen.training.optimizer_state import OptimizerState
from diffusers_imagen.training.power_average import PowerAverage
from diffusers_imagen.training.pretrained import check_pretrained_text, pretrained_class, pretrained_folder
from diffusers_imagen.training.sharding import gather, load_whole

UNet = ImagenUNet2DConditionModel | EfficientUNet2DConditionModel | DeepFloydUNet2DConditionModel

# What a saved U-Net of DeepFloyd IF may say that it is.
_DEEPFLOYD = (UNet2DConditionModel.__name__, DeepFloydUNet2DConditionModel.__name__)
_UNET_CLASSES = {"base": ImagenUNet2DConditionModel, "super_resolution": EfficientUNet2DConditionModel}


@dataclass
class TrainingState:
    """Hold the U-Net, its average, the optimizer and the counters of a run.

    Args:
        unet: The U-Net itself, not wrapped.
        ema: Its average.
        optimizer: What the optimizer over all trained parameters of the U-Net keeps.
        power: Power-function averages for profiles chosen afterwards; none without them.
        scaler: The gradient scaler of fp16; None otherwise.
        step: Optimizer steps made, skipped ones too.
        skipped: Steps skipped because a gradient was not finite.
    """

    unet: UNet
    ema: ExponentialAverage[UNet]
    optimizer: OptimizerState
    power: Sequence[PowerAverage[UNet]] = ()
    scaler: torch.amp.GradScaler | None = None
    step: int = 0
    skipped: int = 0

    @property
    def updates(self) -> int:
        """Updates of the weights made."""
        return self.step - self.skipped

    def to_checkpoint(self, facts: dict[str, Any], keep: bool = True) -> Checkpoint:
        """Describe the state for saving, with whole tensors; if it is spread, all processes must call this.

        Args:
            facts: What else a resumed run should know, as JSON values.
            keep: Whether this process is to save it; tensors that are spread are left out otherwise.
        """
        moments, values = self.optimizer.collect(self._weights())
        record = {
            "skipped": self.skipped,
            "scaler": self.scaler.state_dict() if self.scaler else None,
            "optimizer": {"name": self.optimizer.name, "values": values},
            **facts,
        }
        tensors = {
            "unet": self._trained(self.unet),
            "ema": self._trained(self.ema.model),
            "optimizer": moments,
            **{_power_file(average): average.model.state_dict() for average in self.power},
        }
        whole = {name: gather(parts, keep) for name, parts in tensors.items()}
        return Checkpoint(self.step, whole, record)

    def restore(self, checkpoint: Checkpoint) -> None:
        """Take the state of a checkpoint over.

        Raises:
            ValueError: If it has another optimizer, or no power-function averages of these widths.
            RuntimeError: If it belongs to another U-Net.
        """
        # Checkpoints of before there was a choice have AdamW and tensors only.
        saved = checkpoint.record.get("optimizer", {"name": "AdamW", "values": {}})
        if saved["name"] != self.optimizer.name:
            raise ValueError(
                f"`optimizer.name` is {self.optimizer.name!r}, but the run had {saved['name']!r}; give what "
                "it was, or another `output_dir`."
            )
        lacking = [average.sigma_rel for average in self.power if _power_file(average) not in checkpoint.tensors]
        if lacking:
            raise ValueError(
                f"`ema.post_hoc` is true, but the run has no averages of `ema.sigma_rels` {lacking}; set it back to what "
                "it was, or give another `output_dir`."
            )
        for model, name in ((self.unet, "unet"), (self.ema.model, "ema")):
            load_whole(model, {**self._frozen(model), **checkpoint.tensors[name]})
        for average in self.power:
            load_whole(average.model, checkpoint.tensors[_power_file(average)])
        self.optimizer.restore(self._weights(), checkpoint.tensors["optimizer"], saved["values"])
        if self.scaler is not None and checkpoint.record["scaler"]:
            self.scaler.load_state_dict(checkpoint.record["scaler"])
        self.step, self.skipped = checkpoint.step, int(checkpoint.record["skipped"])

    def _trained(self, model: UNet) -> dict[str, Tensor]:
        """Give the state of the U-Net or its average without what stays as it was."""
        frozen = self._frozen(model)
        return {name: tensor for name, tensor in model.state_dict().items() if name not in frozen}

    def _frozen(self, model: UNet) -> dict[str, Tensor]:
        """Give what a LoRA leaves as it was, the weights under it; nothing where all are trained."""
        names = {name for name, weight in self.unet.named_parameters() if not weight.requires_grad}
        return {name: tensor for name, tensor in model.state_dict().items() if name in names}

    def _weights(self) -> dict[str, nn.Parameter]:
        """Give what is trained."""
        return {name: weight for name, weight in self.unet.named_parameters() if weight.requires_grad}


def _power_file(average: PowerAverage[UNet]) -> str:
    return f"ema-{average.sigma_rel}"


def make_unet(config: ModelConfig, lora: LoraConfig | None = None) -> UNet:
    """Make the U-Net of a run, new or from a folder, in float32 and training mode.

    Args:
        config: Which one.
        lora: The adapter that alone is trained; None trains all weights.

    Raises:
        ValueError: If `config.config` has an argument that the U-Net does not know or refuses, or there is no U-Net or
            no layer to adapt.
    """
    if config.pretrained is None:
        unet = _new_unet(config)
    else:
        unet = _saved_class(config).from_pretrained(pretrained_folder(config), torch_dtype=torch.float32)
    if config.gradient_checkpointing:
        unet.enable_gradient_checkpointing()
    if lora is not None:
        add_lora(unet, lora)
    return unet.train()


def describe_unet(config: ModelConfig, lora: LoraConfig | None = None) -> UNet:
    """Make the U-Net of a run without memory for its weights, on the meta device, in training mode.

    Args:
        config: Which one.
        lora: As `make_unet`.

    Raises:
        ValueError: As `make_unet`.
    """
    with torch.device("meta"):
        if config.pretrained is None:
            unet = _new_unet(config)
        else:
            unet_class = _saved_class(config)
            unet = unet_class.from_config(unet_class.load_config(pretrained_folder(config)))
        if lora is not None:
            add_lora(unet, lora)
    return unet.train()


def _saved_class(config: ModelConfig) -> type[UNet]:
    if pretrained_class(pretrained_folder(config)) in _DEEPFLOYD:
        return DeepFloydUNet2DConditionModel
    return _UNET_CLASSES[config.model_class]


def _new_unet(config: ModelConfig) -> UNet:
    unet_class = _UNET_CLASSES[config.model_class]
    try:
        return unet_class(**config.config)
    except TypeError as error:
        raise ValueError(f"`model.config` is refused by {unet_class.__name__}: {error}.") from error


def prediction_of(unet: UNet) -> dict[str, Any]:
    """Return what a U-Net's configuration says of the noise and of what is predicted; weights fit no other.

    Args:
        unet: The U-Net.
    """
    begins = ("prediction", "noise", "log_snr", "sigma_data", "low_res_noise")
    return {name: value for name, value in sorted(unet.config.items()) if name.startswith(begins)}


def check_unet(unet: UNet, config: TrainConfig, text_width: int) -> None:
    """Refuse a U-Net that could not take the run's batches, before minutes are spent on making them.

    Args:
        unet: The U-Net.
        config: Of the run.
        text_width: Width of the text embeddings.

    Raises:
        ValueError: If its low resolution, sizes, text length or text width are not those of the run.
    """
    shape, deepfloyd = stage_shape(unet), isinstance(unet, DeepFloydUNet2DConditionModel)
    if shape.enlarges != (config.model.model_class == "super_resolution"):
        raise ValueError(
            f"The U-Net is one of {'an enlargement' if shape.enlarges else 'a base'}, but `model.model_class` is "
            f"{config.model.model_class!r}; set it to what the U-Net is, which `low_res_channels` of its config says."
        )
    if config.data.crop_side % unet.size_multiple:
        field = "data.size" if config.data.crop is None else "data.crop"
        raise ValueError(
            f"`{field}` is {config.data.crop_side}, but the U-Net takes multiples of {unet.size_multiple}."
        )
    if unet.config.sample_size != config.data.size and not (deepfloyd and config.lora is not None):
        remedy = "in `model.config` for a new U-Net; for a trained one call `register_to_config(sample_size=...)` and save it"
        if config.lora is not None:
            remedy = "since the adapter is drawn with at the size of the U-Net below it"
        raise ValueError(
            f"`data.size` is {config.data.size}, but the U-Net draws pictures of {unet.config.sample_size} pixels "
            f"(`sample_size` of its config); give both the same, {remedy}."
        )
    if config.text.max_length > shape.text_length:
        raise ValueError(
            f"`text.max_length` is {config.text.max_length}, but the U-Net takes {shape.text_length} tokens "
            "(`text_max_length` of its config); lower the one or raise the other."
        )
    if text_width != shape.text_width:
        raise ValueError(
            f"The text embeddings have width {text_width}, but the U-Net takes {shape.text_width}; set its "
            "`num_text_layers` to the number of `text.layers` and `encoder_hid_dim` to the encoder's width."
        )
    if deepfloyd != (config.text.form == "deepfloyd_if"):
        raise ValueError(
            f"`text.form` is {config.text.form!r}, but the U-Net is a {type(unet).__name__}; give 'deepfloyd_if' for "
            "DeepFloyd IF's U-Nets and 'masked' for all others."
        )
    if deepfloyd:
        _check_deepfloyd(config, shape)
    else:
        check_pretrained_text(config)


def _check_deepfloyd(config: TrainConfig, shape: StageShape) -> None:
    """Refuse what DeepFloyd IF's pipelines would not do in the same way."""
    if config.text.max_length != shape.text_length:
        raise ValueError(
            f"`text.max_length` is {config.text.max_length}, but DeepFloyd IF's pictures depend on padding to "
            f"{shape.text_length} tokens; give {shape.text_length}."
        )
    if shape.enlarges and config.data.low_res_resize != "bilinear_align_corners":
        raise ValueError(
            f"`data.low_res_resize` is {config.data.low_res_resize!r}, but DeepFloyd IF enlarges with "
            "'bilinear_align_corners'; give that."
        )


def learning_rate(config: OptimizerConfig, step: int, max_steps: int) -> float:
    """Give the learning rate of a step.

    Args:
        config: The warm-up and the schedule after it.
        step: Number of the step, from 0.
        max_steps: Steps of the whole run.

    Returns:
        The learning rate, above 0 within the run.
    """
    if step < config.warmup_steps:
        return config.lr * (step + 1) / (config.warmup_steps + 1)
    if config.schedule == "constant":
        return config.lr
    progress = (step - config.warmup_steps) / max(1, max_steps - config.warmup_steps)
    return config.lr * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
