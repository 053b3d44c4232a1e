# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""Make a cascade of what `conversion` gave, and take one apart again. Called by the converters' scripts."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers import DDPMScheduler, EDMEulerScheduler
from diffusers.schedulers.scheduling_utils import SchedulerMixin
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from diffusers_imagen.conversion.imagen_pytorch import ConvertedCascade, ConvertedStage, export_imagen_pytorch
from diffusers_imagen.conversion.imagen_pytorch_keys import their_name
from diffusers_imagen.models.stage_model import uncompiled
from diffusers_imagen.models.unet_imagen_pytorch import ImagenPytorchUNet2DConditionModel
from diffusers_imagen.pipelines.pipeline_imagen_cascade import ImagenCascadePipeline
from diffusers_imagen.pipelines.stage_settings import STAGES


def converted_unet(stage: ConvertedStage, name: str = "the stage") -> ImagenPytorchUNet2DConditionModel:
    """Return a stage's U-Net, in evaluation mode, with the very tensors that the conversion holds.

    Args:
        stage: its configuration and weights.
        name: the stage's, for messages.

    Raises:
        ValueError: weights that are missing, unknown or of a wrong shape, by imagen-pytorch's names.
    """
    with torch.device("meta"):
        unet = ImagenPytorchUNet2DConditionModel(**stage.config)
    wanted = {name: tensor.shape for name, tensor in unet.state_dict().items()}
    missing, unknown = sorted(set(wanted) - set(stage.state)), sorted(set(stage.state) - set(wanted))
    misshapen = [key for key, shape in wanted.items() if key in stage.state and stage.state[key].shape != shape]
    for kind, keys in (("missing", missing), ("unknown", unknown), ("of a wrong shape", misshapen)):
        if keys:
            such = ", ".join(f"`{their_name(key)}`" for key in keys[:3])
            raise ValueError(f"weights of {name}'s U-Net are {kind}, {len(keys)} of them, such as {such}.")
    unet.load_state_dict(stage.state, assign=True)
    return unet.eval()


def converted_cascade(
    converted: ConvertedCascade,
    tokenizer: PreTrainedTokenizerBase | None = None,
    text_encoder: PreTrainedModel | None = None,
) -> ImagenCascadePipeline:
    """Return the cascade of a conversion.

    Args:
        converted: its stages.
        tokenizer: of the text encoder; `None` for a cascade that is given text states.
        text_encoder: the one that the U-Nets were trained with, T5 mostly.

    Raises:
        ValueError: as `converted_unet`; a U-Net that needs a conditioning picture; or an encoder of another width.
    """
    _check_condition(converted)
    _check_encoder(converted, text_encoder)
    parts: dict[str, Any] = dict.fromkeys(["sr_unet_1", "sr_scheduler_1", "sr_unet_2", "sr_scheduler_2"])
    for name, stage in converted.stages.items():
        unet_part = "unet" if name == "base" else name.replace("sr_", "sr_unet_")
        parts[unet_part] = converted_unet(stage, name)
        parts[unet_part.replace("unet", "scheduler")] = _scheduler(stage.config)
    return ImagenCascadePipeline(
        tokenizer=tokenizer,
        text_encoder=text_encoder,
        stages={name: dict(stage.settings) for name, stage in converted.stages.items()},
        text=dict(converted.text),
        **parts,
    )


def exported_state_dict(pipeline: ImagenCascadePipeline) -> dict[str, Tensor]:
    """Return a converted cascade's weights as `Imagen.load_state_dict` of their own release takes them.

    Args:
        pipeline: made by `converted_cascade`, or loaded.

    Raises:
        ValueError: a cascade with other U-Nets.
    """
    unets = zip(STAGES, (pipeline.unet, pipeline.sr_unet_1, pipeline.sr_unet_2), strict=True)
    stages: dict[str, tuple[Mapping[str, Any], Mapping[str, Tensor]]] = {}
    for name, unet in unets:
        unet = uncompiled(unet)
        if unet is None:
            continue
        if not isinstance(unet, ImagenPytorchUNet2DConditionModel):
            raise ValueError(
                f"`pipeline` has a {type(unet).__name__} as {name!r}; only ImagenPytorchUNet2DConditionModel has a "
                "counterpart in imagen-pytorch."
            )
        stages[name] = (unet.config, unet.state_dict())
    return export_imagen_pytorch(stages)


def saved_state_dict(folder: Path) -> dict[str, Tensor]:
    """Return what `exported_state_dict` does of a saved cascade, each tensor of the type that its file holds.

    Args:
        folder: of a converted cascade.

    Raises:
        ValueError: no folder of a cascade, or one with other U-Nets or with weights that do not fit them.
        OSError: files that are missing or damaged.
    """
    if not (folder / ImagenCascadePipeline.config_name).is_file():
        raise ValueError(f"{str(folder)!r} holds no {ImagenCascadePipeline.config_name}; give a converted cascade.")
    stages: dict[str, tuple[Mapping[str, Any], Mapping[str, Tensor]]] = {}
    for name, part in zip(STAGES, ("unet", "sr_unet_1", "sr_unet_2"), strict=True):
        if (folder / part).is_dir():
            config, state = _saved_unet(folder / part)
            # Into a U-Net, to see that they are all there.
            converted_unet(ConvertedStage(config, state, {}), name)
            stages[name] = (config, state)
    return export_imagen_pytorch(stages)


def _saved_unet(folder: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    found = config.get("_class_name")
    if found != ImagenPytorchUNet2DConditionModel.__name__:
        raise ValueError(f"{str(folder)!r} holds a {found}, which has no counterpart in imagen-pytorch.")
    whole = folder / "diffusion_pytorch_model.safetensors"
    index = folder / f"{whole.name}.index.json"
    names = {whole.name}
    if not whole.is_file() and index.is_file():
        names = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
    state: dict[str, Tensor] = {}
    for name in sorted(names):
        try:
            state |= load_file(folder / name)
        except SafetensorError as error:
            raise OSError(f"{str(folder / name)!r} cannot be read: {error}") from error
    return {name: value for name, value in config.items() if not name.startswith("_")}, state


def _check_condition(converted: ConvertedCascade) -> None:
    for name, stage in converted.stages.items():
        if channels := stage.config["condition_image_channels"]:
            raise ValueError(
                f"the U-Net of {name!r} has {channels} input channels for a conditioning picture "
                "(`cond_images_channels`), which no cascade gives it; `converted_unet` makes the U-Net alone."
            )


def _check_encoder(converted: ConvertedCascade, text_encoder: PreTrainedModel | None) -> None:
    if text_encoder is None:
        return
    found = text_encoder.config.get_text_config().hidden_size
    for name, stage in converted.stages.items():
        if stage.config["text_conditioned"] and stage.config["encoder_hid_dim"] != found:
            raise ValueError(
                f"`text_encoder` gives states of width {found}, but {name!r} was trained with "
                f"{stage.config['encoder_hid_dim']}; give the encoder that it was trained with."
            )


def _scheduler(config: Mapping[str, Any]) -> SchedulerMixin:
    """Return the scheduler that is nearest to the sampling in imagen-pytorch."""
    if config.get("sigma_data") is not None:
        return EDMEulerScheduler(
            sigma_min=float(torch.tensor(-config["log_snr_max"] / 2).exp()),
            sigma_max=float(torch.tensor(-config["log_snr_min"] / 2).exp()),
            sigma_data=config["sigma_data"],
            prediction_type="epsilon",
        )
    betas = {"beta_schedule": "squaredcos_cap_v2"} if config["noise_schedule"] == "cosine" else {"beta_end": 0.02}
    # The clean picture is what the loop gives it; written as noise, it would lose digits where there is little of it.
    return DDPMScheduler(**betas, prediction_type="sample", clip_sample=False, timestep_spacing="trailing")
