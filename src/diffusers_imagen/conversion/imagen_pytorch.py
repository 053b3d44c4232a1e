# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""imagen-pytorch's checkpoints to configurations and weights of `ImagenPytorchUNet2DConditionModel`, and back.

Dictionaries in, dictionaries out; models are made of them in `pipelines/converted_cascade.py`.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from diffusers_imagen.conversion.imagen_pytorch_checkpoint import Checkpoint
from diffusers_imagen.conversion.imagen_pytorch_config import infer_config, undecided
from diffusers_imagen.conversion.imagen_pytorch_joining import join
from diffusers_imagen.conversion.imagen_pytorch_keys import check_names, our_name, their_name
from diffusers_imagen.conversion.imagen_pytorch_layouts import LAYOUTS, detect_layout, from_latest, to_latest
from diffusers_imagen.conversion.imagen_pytorch_options import (
    ImagenOptions,
    Settled,
    by_stage,
    prediction_type,
    settle,
)
from diffusers_imagen.diffusion.imagen_pytorch_schedules import discrete_log_snrs, log_snr_at, low_res_level

STAGES = ("base", "sr_1", "sr_2")
State = dict[str, Tensor]


@dataclass(frozen=True)
class ConvertedStage:
    """A stage of a cascade.

    Args:
        config: arguments of `ImagenPytorchUNet2DConditionModel`.
        state: its weights.
        settings: the stage's saved settings.
    """

    config: Mapping[str, Any]
    state: State
    settings: Mapping[str, Any]


@dataclass(frozen=True)
class ConvertedCascade:
    """What a conversion gave.

    Args:
        stages: by name.
        text: how prompts are encoded.
        report: what was read, inferred and assumed, line by line.
    """

    stages: Mapping[str, ConvertedStage]
    text: Mapping[str, Any]
    report: tuple[str, ...]


def convert_imagen_pytorch(
    checkpoints: Sequence[Checkpoint], options: ImagenOptions | None = None, usual: bool = False
) -> ConvertedCascade:
    """Convert a cascade from one file, or from several that hold some of its U-Nets each.

    Args:
        checkpoints: what was found in the files.
        options: what the weights cannot tell.
        usual: whether what nobody says takes imagen-pytorch's own default.

    Raises:
        ValueError: U-Nets that make no cascade, weights that are missing, unknown or of a wrong shape, or options that
            are missing.
    """
    given = options or ImagenOptions()
    joined = join(checkpoints, given)
    unets, stored = joined.unets, joined.stored
    layouts = {number: detect_layout(state) for number, state in unets.items()}
    latest = {number: to_latest(state, layouts[number]) for number, state in unets.items()}
    for state in latest.values():
        check_names(state)
    channels = [_channels(given, stored, number) for number in unets]
    open_names = [undecided(latest[n], layouts[n], channels[n]) for n in unets]
    settled = settle(given, stored, open_names, usual)
    stages, report = {}, []
    for number, state in latest.items():
        name, layout = STAGES[number], layouts[number]
        config = infer_config(state, settled.unets[number])
        _check_decided(number, given, open_names[number], config)
        config |= _noise_config(config, settled, number, len(unets)) | {"source_release": layout.release}
        converted = {our_name(key): tensor for key, tensor in state.items()}
        stages[name] = ConvertedStage(config, converted, _stage_settings(config, settled, number, len(unets)))
        report.append(_stage_report(name, config, unets[number], joined.source[number]))
    versions = sorted({checkpoint.version for checkpoint in checkpoints if checkpoint.version is not None})
    left_out = sorted({key for checkpoint in checkpoints for key in checkpoint.left_out})
    report.append(f"imagen-pytorch: {', '.join(versions) or 'the files do not say which release'}")
    report.append(f"not needed: {', '.join(left_out) or 'nothing'}")
    report.append(f"usual values taken for: {', '.join(settled.assumed) or 'nothing'}")
    places = min(stage.config["text_max_length"] for stage in stages.values())
    return ConvertedCascade(stages, {"max_length": places}, tuple(report))


def export_imagen_pytorch(stages: Mapping[str, tuple[Mapping[str, Any], Mapping[str, Tensor]]]) -> State:
    """Return the state dict of an `Imagen` or `ElucidatedImagen`, of the release that the weights came from.

    Args:
        stages: each stage's configuration and weights, by name.

    Raises:
        ValueError: weights that imagen-pytorch has no name for.
    """
    exported: State = {}
    for name, (config, state) in stages.items():
        number = STAGES.index(name)
        latest = {their_name(key): tensor for key, tensor in state.items()}
        unknown = [key for key in latest if our_name(key) not in state]
        if unknown:
            raise ValueError(f"{name!r} holds weights that imagen-pytorch does not know, such as {unknown[0]!r}.")
        older = from_latest(latest, LAYOUTS[config["source_release"]])
        exported |= {f"unets.{number}.{key}": tensor for key, tensor in older.items()}
    return exported


def _channels(given: ImagenOptions, stored: ImagenOptions, number: int) -> int | None:
    for options in (given, stored):
        if number < len(options.unets) and options.unets[number].channels is not None:
            return options.unets[number].channels
    return None


def _check_decided(number: int, given: ImagenOptions, open_names: Sequence[str], config: Mapping[str, Any]) -> None:
    """Refuse options that say something else than the weights, which then decide."""
    told = {"attn_heads": config["attention_heads"]}
    # Where queries and keys have learned scales, the release has no such option. Nor do groups say anything to the later
    # releases' norms, which still take the argument: who copies all arguments of their U-Net gives both.
    if config["similarity"] != "rms":
        told["cosine_sim_attn"] = config["similarity"] == "cosine"
    for name, value in told.items():
        wanted = getattr(given.unets[number], name) if number < len(given.unets) else None
        if wanted not in (None, value) and name not in open_names:
            raise ValueError(f"`unets.{number}.{name}` is {wanted!r}, but the weights say {value!r}; leave it out.")


def _noise_config(config: Mapping[str, Any], settled: Settled, number: int, stages: int) -> dict[str, Any]:
    """Return the part of the configuration that says what the U-Net was trained on."""
    shared = settled.shared
    own: dict[str, Any] = {
        "sample_size": by_stage("image_sizes", shared["image_sizes"], stages)[number],
        "low_res_noise_schedule": shared.get("lowres_noise_schedule") or "linear",
    }
    if shared["elucidated"]:
        sigma = {key: float(by_stage(key, shared[key], stages)[number]) for key in ("sigma_min", "sigma_max")}
        return own | {
            "prediction_type": "sample",
            "sigma_data": float(by_stage("sigma_data", shared["sigma_data"], stages)[number]),
            "log_snr_min": -2 * math.log(sigma["sigma_max"]),
            "log_snr_max": -2 * math.log(sigma["sigma_min"]),
        }
    kind = by_stage("noise_schedules", shared["noise_schedules"], stages)[number]
    objective = by_stage("pred_objectives", shared["pred_objectives"], stages)[number]
    own |= {"noise_schedule": kind, "prediction_type": prediction_type(objective)}
    if config["time_frequencies"] is not None:
        return own | {"log_snr_min": log_snr_at(kind, 1.0), "log_snr_max": log_snr_at(kind, 0.0)}
    # Fixed sinusoids are told the number of a step on a discrete schedule.
    steps = int(by_stage("timesteps", shared["timesteps"], stages)[number])
    levels = discrete_log_snrs(kind, steps)
    return own | {
        "noise_condition": "step",
        "num_train_timesteps": steps,
        "log_snr_min": float(levels[-1]),
        "log_snr_max": float(levels[0]),
    }


def _stage_settings(config: Mapping[str, Any], settled: Settled, number: int, stages: int) -> dict[str, Any]:
    shared = settled.shared
    steps = "num_sample_steps" if shared["elucidated"] else "timesteps"
    is_dynamic = by_stage("dynamic_thresholding", shared["dynamic_thresholding"], stages)[number]
    settings = {
        "num_inference_steps": int(by_stage(steps, shared[steps], stages)[number]),
        "guidance_scale": 1.0,
        "thresholding": "dynamic" if is_dynamic else "static",
        "threshold_percentile": float(shared["dynamic_thresholding_percentile"]),
    }
    if config["low_res_channels"]:
        level = low_res_level(shared["lowres_noise_schedule"], float(shared["lowres_sample_noise_level"]))
        settings |= {"noise_level": level, "resize": shared["resize_mode"]}
    return settings


def _self_conditioned(config: Mapping[str, Any]) -> str:
    if not config["self_condition"]:
        return ""
    spare = config["in_channels"]
    return (
        f"; self-conditioned: {spare} spare input channels are taken for its last clean picture (one with "
        f"`cond_images_channels={spare}` would look the same, and makes no cascade)"
    )


def _stage_report(name: str, config: Mapping[str, Any], state: Mapping[str, Tensor], source: str) -> str:
    count = sum(tensor.numel() for tensor in state.values())
    return (
        f"{name}: {len(state)} tensors, {count / 1e6:.1f}M parameters, {source} weights, layout of release "
        f"{config['source_release']}; {config['sample_size']} px, widths {tuple(config['block_out_channels'])}, "
        f"{config['prediction_type']}{_self_conditioned(config)}"
    )
