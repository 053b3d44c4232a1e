# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""DeepFloyd IF's pipelines of Diffusers to the parts of one cascade, and back.

Called by `StoredPipeline.from_deepfloyd_if` and `save_as_deepfloyd_if`. Original files (`pytorch_model.bin`) are
read by `conversion/`.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers import DDPMScheduler, IFPipeline, IFSuperResolutionPipeline
from diffusers.pipelines.pipeline_utils import DiffusionPipeline

from diffusers_imagen.conversion.deepfloyd_settings import BASE, ENLARGEMENT, text_settings
from diffusers_imagen.conversion.new_folder import new_folder
from diffusers_imagen.models.stage_model import uncompiled
from diffusers_imagen.models.unet_deepfloyd import DeepFloydUNet2DConditionModel
from diffusers_imagen.pipelines.stage_settings import STAGES, StageSettings

# What every stage's repository holds and a cascade needs once.
_SHARED = ("tokenizer", "text_encoder", "safety_checker", "feature_extractor", "watermarker")
# What IF's own scheduler says beside its noise and threshold, kept under `noise` for the way back.
_SAMPLING = ("variance_type", "timestep_spacing", "steps_offset")
_BETAS = ("num_train_timesteps", "beta_schedule", "beta_start", "beta_end", "trained_betas")


def cascade_parts(stages: Sequence[Any], mask_padding: bool, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return what `ImagenCascadePipeline` is made of, from DeepFloyd IF's pipelines.

    Args:
        stages: one to three, each a Hub repository, a folder or a loaded pipeline.
        mask_padding: whether the U-Nets shall not see the padding of texts.
        options: what `from_pretrained` gets for those that are not loaded.

    Raises:
        ValueError: something else than IF's pipelines, in another order, without what a cascade needs, or with what it
            has not; or options that nothing takes.
    """
    _check_options(stages, options)
    shared: dict[str, Any] = dict.fromkeys(_SHARED)
    parts: dict[str, Any] = {}
    settings: dict[str, Any] = {}
    for number, stage in enumerate(stages):
        pipe = _loaded(stage, number, {name for name, found in shared.items() if found is not None}, options)
        shared |= {name: getattr(pipe, name) for name, found in shared.items() if found is None}
        suffix = f"_{number}" if number else ""
        prefix = "sr_" if number else ""
        _check_components(pipe, number)
        parts[f"{prefix}unet{suffix}"] = DeepFloydUNet2DConditionModel.sharing(pipe.unet)
        parts[f"{prefix}scheduler{suffix}"] = pipe.scheduler
        settings[STAGES[number]] = _stage_settings(pipe)
    _check_sizes([unet.config.sample_size for name, unet in parts.items() if "unet" in name])
    for number in range(len(stages), len(STAGES)):
        parts |= {f"sr_unet_{number}": None, f"sr_scheduler_{number}": None}
    return {**parts, **shared, "stages": settings, "text": text_settings(mask_padding)}


def save_pipelines(pipe: Any, settings: Mapping[str, StageSettings], folder: Path, max_shard_size: str | None) -> None:
    """Save a cascade of IF's U-Nets as IF's pipelines, "stage_1" and so on, all of them or nothing.

    Args:
        pipe: the cascade.
        settings: its saved settings by stage.
        folder: a place that holds nothing yet.
        max_shard_size: of the files of weights; `None` for Diffusers' own.

    Raises:
        ValueError: a U-Net of another family, or a folder that holds something.
    """
    pipelines = _pipelines(pipe, settings)
    options = {} if max_shard_size is None else {"max_shard_size": max_shard_size}
    with new_folder(folder) as place:
        for name, stage in pipelines.items():
            stage.save_pretrained(place / name, **options)


def _pipelines(pipe: Any, settings: Mapping[str, StageSettings]) -> dict[str, DiffusionPipeline]:
    """Return a cascade as IF's pipelines, which share its weights, the text encoder with the first only."""
    unets = [pipe.unet, pipe.sr_unet_1, pipe.sr_unet_2]
    schedulers = [pipe.scheduler, pipe.sr_scheduler_1, pipe.sr_scheduler_2]
    pipelines: dict[str, DiffusionPipeline] = {}
    for number, (name, unet, scheduler) in enumerate(zip(STAGES, unets, schedulers, strict=True)):
        unet = uncompiled(unet)
        if unet is None:
            continue
        if not isinstance(unet, DeepFloydUNet2DConditionModel):
            raise ValueError(
                f"The U-Net of {name!r} is a {type(unet).__name__}, which IF's pipelines do not know; only cascades of "
                "DeepFloyd IF's U-Nets can be saved as theirs."
            )
        components = {
            "tokenizer": pipe.tokenizer if number == 0 else None,
            "text_encoder": pipe.text_encoder if number == 0 else None,
            "unet": unet.as_plain(),
            "scheduler": scheduler
            if isinstance(scheduler, DDPMScheduler)
            else _ddpm(settings[name], unet, scheduler.config),
            "safety_checker": pipe.safety_checker,
            "feature_extractor": pipe.feature_extractor,
            "watermarker": pipe.watermarker,
            "requires_safety_checker": pipe.safety_checker is not None,
        }
        if number == 0:
            pipelines["stage_1"] = IFPipeline(**components)
        else:
            noising = DDPMScheduler(**(settings[name].noise or {})["low_res"])
            pipelines[f"stage_{number + 1}"] = IFSuperResolutionPipeline(**components, image_noising_scheduler=noising)
    return pipelines


def _loaded(stage: Any, number: int, given: set[str], options: Mapping[str, Any]) -> Any:
    """Return a stage as a pipeline of IF's, loaded without what another stage has given already."""
    kind = IFSuperResolutionPipeline if number else IFPipeline
    name = f"stage_{number + 1}"
    if isinstance(stage, str | os.PathLike):
        place = os.fspath(stage)
        if place.startswith((".", "~", os.sep)) and not Path(place).is_dir():
            raise ValueError(f"`{name}` is {place!r}, and there is no such folder; check the path.")
        if Path(place).is_dir() and not (Path(place) / kind.config_name).is_file():
            raise ValueError(
                f"`{name}` is the folder {place!r}, which holds no {kind.config_name}; original files "
                "(pytorch_model.bin) are made one by scripts/convert/convert_deepfloyd_if.py."
            )
        if "safety_checker" not in given:
            given = given - {"feature_extractor"}  # one comes with the other
        _check_class(name, place, number, kind, options)
        try:
            stage = kind.from_pretrained(place, **dict.fromkeys(given), **options, requires_safety_checker=False)
        except OSError as error:
            raise OSError(f"`{name}` is {place!r}, which could not be loaded: {error}") from error
        absent = [] if stage.unet is None else [key for key, item in stage.unet.named_parameters() if item.is_meta]
        if absent:
            raise ValueError(
                f"`{name}` is {place!r}, whose U-Net's file lacks {', '.join(absent[:3])}; fetch it again."
            )
    if not isinstance(stage, kind):
        raise ValueError(
            f"`{name}` is of class {type(stage).__name__}; give the name, the folder or the object of a {kind.__name__}."
        )
    return stage


def _check_options(stages: Sequence[Any], options: Mapping[str, Any]) -> None:
    dtype = options.get("dtype")
    dtypes = dtype.values() if isinstance(dtype, Mapping) else [dtype]
    if dtype is not None and not all(isinstance(one, torch.dtype) for one in dtypes):
        raise ValueError(
            f"`dtype` is {dtype!r}; give one of PyTorch's, such as torch.float16, or one for each component."
        )
    for name in ("dtype", "variant"):
        if name in options and not any(isinstance(stage, str | os.PathLike) for stage in stages):
            raise ValueError(
                f"`{name}` is {options[name]!r}, but all stages are loaded; convert them, or leave it out."
            )


def _check_class(name: str, place: str, number: int, kind: Any, options: Mapping[str, Any]) -> None:
    found = kind.load_config(place, local_files_only=options.get("local_files_only", False)).get("_class_name", "")
    if ("SuperResolution" in found) != (number > 0):
        raise ValueError(f"`{name}` is {place!r}, which holds a {found}; give a {kind.__name__}.")


def _check_components(pipe: Any, number: int) -> None:
    for name in ("unet", "scheduler", *(("image_noising_scheduler",) if number else ())):
        if getattr(pipe, name) is None:
            raise ValueError(f"`stage_{number + 1}` has no `{name}`; load the pipeline with it.")
    channels, wanted = pipe.unet.config.in_channels, 6 if number else 3
    if channels != wanted:
        raise ValueError(
            f"the U-Net of `stage_{number + 1}` takes {channels} channels, but {wanted} were expected: IF's bases take "
            "3, its enlargements 6. Give the base first."
        )


def _check_sizes(sizes: Sequence[Any]) -> None:
    known = [size for size in sizes if isinstance(size, int)]
    if known != sorted(set(known)):
        raise ValueError(f"the stages draw pictures of {known} pixels; give them in the order in which they enlarge.")


def _stage_settings(pipe: Any) -> dict[str, Any]:
    """Return a stage's settings: what IF's own call does by default, and what its schedulers say."""
    enlarges = isinstance(pipe, IFSuperResolutionPipeline)
    noise = {"prediction_type": pipe.scheduler.config.get("prediction_type"), **_betas("scheduler", pipe.scheduler)}
    if enlarges:
        noise["low_res"] = _betas("image_noising_scheduler", pipe.image_noising_scheduler)
    own = {name: pipe.scheduler.config[name] for name in _SAMPLING if pipe.scheduler.config.get(name) is not None}
    noise["sampling"] = own
    return {**(ENLARGEMENT if enlarges else BASE), **_thresholding(pipe.scheduler.config), "noise": noise}


def _betas(component: str, scheduler: Any) -> dict[str, Any]:
    config = scheduler.config
    if config.get("beta_schedule") is None:
        raise ValueError(
            f"`{component}` is a {type(scheduler).__name__}, which does not say what noise the U-Net was trained on; "
            "make the cascade with the scheduler that came with the checkpoint, and change it afterwards."
        )
    return {name: config[name] for name in _BETAS if config.get(name) is not None}


def _thresholding(config: Mapping[str, Any]) -> dict[str, Any]:
    if config.get("thresholding"):
        return {
            "thresholding": "dynamic",
            "threshold_percentile": config["dynamic_thresholding_ratio"],
            "threshold_max": config["sample_max_value"],
        }
    if config.get("clip_sample") and config.get("clip_sample_range", 1.0) != 1.0:
        raise ValueError(
            f"`clip_sample_range` of the scheduler is {config['clip_sample_range']}, but cascades clip at 1; set it to 1, "
            "or `clip_sample` to False."
        )
    return {"thresholding": "static" if config.get("clip_sample") else "none"}


def _ddpm(settings: StageSettings, unet: DeepFloydUNet2DConditionModel, config: Mapping[str, Any]) -> DDPMScheduler:
    """Return the scheduler that a stage came with, for one whose own IF's pipelines cannot use."""
    noise = {name: value for name, value in (settings.noise or {}).items() if name not in ("low_res", "sampling")}
    learned = "learned_range" if unet.config.out_channels == 6 else "fixed_small"
    sampling = {"variance_type": learned} | dict((settings.noise or {}).get("sampling", {}))
    if config.get("variance_type") is not None:
        # Schedulers made with `from_config` keep what their predecessor said, which may be of a later training.
        sampling["variance_type"] = config["variance_type"]
    return DDPMScheduler(
        **noise,
        **sampling,
        thresholding=settings.thresholding == "dynamic",
        dynamic_thresholding_ratio=settings.threshold_percentile,
        sample_max_value=1.0 if settings.threshold_max is None else settings.threshold_max,
        clip_sample=settings.thresholding != "none",
    )
