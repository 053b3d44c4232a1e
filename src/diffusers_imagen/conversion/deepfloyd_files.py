# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""DeepFloyd IF's original files to a saved cascade: safe reading, writing tensor by tensor, and a report.

The maths of it is in `deepfloyd_if.py`. Called by scripts/convert/convert_deepfloyd_if.py.
"""

import json
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import diffusers
import torch
import yaml
from diffusers import DDPMScheduler
from torch import Tensor

from diffusers_imagen.conversion.archive import check_sums
from diffusers_imagen.conversion.deepfloyd_if import (
    convert,
    enlarges,
    expected_shapes,
    moved,
    moves,
    unet_config,
)
from diffusers_imagen.conversion.deepfloyd_settings import (
    BASE,
    ENLARGEMENT,
    LOW_RES_NOISE,
    NOISE,
    ddpm_settings,
    text_settings,
)
from diffusers_imagen.conversion.new_folder import check_free, new_folder
from diffusers_imagen.conversion.weight_checks import check_finite, check_kinds
from diffusers_imagen.conversion.weight_files import WeightFile, write_weights

CONFIG_FILE = "config.yml"
WEIGHTS_FILE = "pytorch_model.bin"
# So much of the original file is looked at before its memory is given back.
_PORTION = 256 * 2**20
_UPSCALED = 1024  # pixels that the third stage draws, whatever its config.yml says
_STAGES = ("base", "sr_1", "sr_2")
_PARTS = (("unet", "scheduler"), ("sr_unet_1", "sr_scheduler_1"), ("sr_unet_2", "sr_scheduler_2"))
_WITHOUT = ("tokenizer", "text_encoder", "safety_checker", "feature_extractor", "watermarker")


@dataclass
class ConversionReport:
    """What was read, what was concluded from it, and what was written, a line each."""

    read: list[str] = field(default_factory=list)
    inferred: list[str] = field(default_factory=list)
    written: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        parts = (("read", self.read), ("inferred", self.inferred), ("written", self.written))
        return "\n".join(f"{name}: {line}" for name, lines in parts for line in lines)


@dataclass(frozen=True)
class OriginalStage:
    """An original stage that was read and checked, its weights still in their file."""

    weights: Path
    config: dict[str, Any]
    enlarges: bool
    sizes: dict[str, int]
    """Bytes of each original weight."""


def convert_folders(
    stages: list[Path], output: Path, max_shard_size: int = 2 * 10**9, dry_run: bool = False
) -> ConversionReport:
    """Convert the original files of one to three stages to a cascade that `ImagenCascadePipeline` loads.

    Nothing of a file's pickle is executed, weights go from file to file with a few hundred megabytes in memory, and
    the output appears when all of it is there. It has no tokenizer and no text encoder: IF's is Google's T5 v1.1 XXL,
    given to `from_pretrained` as it was saved anywhere.

    Args:
        stages: folders with `pytorch_model.bin` and `config.yml`, the base first.
        output: a folder that does not exist yet, or an empty one.
        max_shard_size: bytes of a file of weights.
        dry_run: whether to read and check everything and write nothing.

    Returns:
        What was done.

    Raises:
        ValueError: no stages, a file that is missing, damaged or not to be trusted, weights that do not fit their
            config, or an output that holds something.
    """
    if not 1 <= len(stages) <= len(_STAGES):
        raise ValueError(f"`stages` holds {len(stages)} folders; give one to three, the base first.")
    if max_shard_size < 1:
        raise ValueError(f"`max_shard_size` is {max_shard_size}; give a number of bytes above 0.")
    check_free(output)
    report = ConversionReport()
    read = [_read_stage(folder, number, report) for number, folder in enumerate(stages)]
    if dry_run:
        report.written.append("nothing (dry run)")
        return report
    with new_folder(output) as folder:
        for stage, (unet, scheduler) in zip(read, _PARTS, strict=False):
            _write_unet(stage, folder / unet, max_shard_size, report, f"{output.name}/{unet}")
            DDPMScheduler(**ddpm_settings(stage.enlarges)).save_pretrained(folder / scheduler)
        _write_json(folder / "model_index.json", _index(read))
        report.written.append(f"{output.name}/model_index.json and {len(read)} schedulers")
    return report


def load_weights(path: Path) -> dict[str, Tensor]:
    """Return the weights of a file that `torch.save` wrote, mapped from it; its pickle may hold nothing else.

    Args:
        path: the file.

    Raises:
        ValueError: a file that is missing, damaged, or holds anything but named tensors.
    """
    if not path.is_file():
        raise ValueError(f"{str(path)!r} is no file; give the folder with {WEIGHTS_FILE} and {CONFIG_FILE}.")
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except Exception as error:  # a damaged file may make anything of the reader
        reason = str(error).strip().partition("\n")[0]
        raise ValueError(
            f"{str(path)!r} cannot be read as a file of weights and nothing else ({type(error).__name__}: "
            f"{reason[:200]}); fetch it again from where it comes from."
        ) from error
    if not isinstance(loaded, dict) or not all(isinstance(name, str) for name in loaded):
        raise ValueError(f"{str(path)!r} holds a {type(loaded).__name__}, not weights by name; give an original file.")
    check_kinds(loaded, repr(str(path)))
    return loaded


def load_params(path: Path) -> dict[str, Any]:
    """Return `params` of an original `config.yml`.

    Args:
        path: the file.

    Raises:
        ValueError: a file that is missing, damaged or without `params`.
    """
    if not path.is_file():
        raise ValueError(f"{str(path)!r} is no file; give the folder with {WEIGHTS_FILE} and {CONFIG_FILE}.")
    try:
        loaded = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"{str(path)!r} cannot be read as plain YAML: {str(error).partition(chr(10))[0]}.") from error
    params = loaded.get("params") if isinstance(loaded, dict) else None
    if not isinstance(params, dict):
        raise ValueError(f"{str(path)!r} has no `params`; give the {CONFIG_FILE} that came with the weights.")
    return params


def _read_stage(folder: Path, number: int, report: ConversionReport) -> OriginalStage:
    params = load_params(folder / CONFIG_FILE)
    try:
        config = unet_config(params, _UPSCALED if number == 2 else None)
    except ValueError as error:
        raise ValueError(f"{str(folder / CONFIG_FILE)!r}: {error}") from error
    if enlarges(params) != (number > 0):
        kind = "an enlargement" if number == 0 else "a base"
        raise ValueError(f"{str(folder)!r} is {kind}; give the base first, then the enlargements in their order.")
    path = folder / WEIGHTS_FILE
    weights = load_weights(path)
    try:
        # On shapes alone: nothing is read of the weights themselves.
        converted = convert({name: weight.to("meta") for name, weight in weights.items()}, config)
    except ValueError as error:
        raise ValueError(f"{str(path)!r}: {error}") from error
    sizes = {name: weight.nbytes for name, weight in weights.items()}
    check_sums(path)
    for name, weight in _streamed(path, list(weights), sizes):
        check_finite(name, weight, repr(str(path)))
    dtypes = sorted({str(weight.dtype).removeprefix("torch.") for weight in weights.values()})
    report.read.append(f"{path}: {len(weights)} weights, {sum(sizes.values()):,} bytes, {', '.join(dtypes)}")
    for name in ("block_out_channels", "layers_per_block", "attention_head_dim", "encoder_hid_dim", "sample_size"):
        report.inferred.append(f"{_STAGES[number]}: {name} = {config[name]}")
    report.inferred.append(f"{_STAGES[number]}: {len(converted)} weights in Diffusers' layout")
    if params.get("activation") == "gelu_jit":
        report.inferred.append(
            f"{_STAGES[number]}: activation gelu_jit is written as gelu, as in the released Diffusers files; the two "
            "differ by 5e-4 at most"
        )
    return OriginalStage(path, config, number > 0, sizes)


def _write_unet(stage: OriginalStage, folder: Path, max_shard_size: int, report: ConversionReport, place: str) -> None:
    folder.mkdir()
    expected = expected_shapes(stage.config)
    plan = moves(stage.config, expected)
    dtypes = {name: weight.dtype for name, weight in load_weights(stage.weights).items()}
    files = [
        WeightFile(target, tuple(expected[target]), dtypes[move.source]) for move in plan for target in move.targets
    ]
    head_dim = stage.config["attention_head_dim"]

    def produced() -> Iterator[tuple[str, Tensor]]:
        weights = _streamed(stage.weights, [move.source for move in plan], stage.sizes)
        for move, (_, weight) in zip(plan, weights, strict=True):
            yield from moved(move, weight, head_dim).items()

    names = write_weights(folder, files, produced(), max_shard_size)
    model_config = {"_class_name": "DeepFloydUNet2DConditionModel", "_diffusers_version": diffusers.__version__}
    _write_json(folder / "config.json", model_config | stage.config)
    report.written.append(f"{place}: {len(files)} weights in {len(names)} files")


def _streamed(path: Path, names: Sequence[str], sizes: Mapping[str, int]) -> Iterator[tuple[str, Tensor]]:
    """Yield weights by name with a few hundred megabytes in memory."""
    portion: list[str] = []
    for place, name in enumerate(names, 1):
        portion.append(name)
        if place == len(names) or sum(sizes[item] for item in portion) > _PORTION:
            # A new mapping each time: what was read of the old one no longer counts as this process's memory.
            weights = load_weights(path)
            for item in portion:
                yield item, weights[item]
            del weights
            portion = []


def _index(stages: list[OriginalStage]) -> dict[str, Any]:
    index: dict[str, Any] = {"_class_name": "ImagenCascadePipeline", "_diffusers_version": diffusers.__version__}
    index |= {name: [None, None] for name in _WITHOUT}
    settings = {}
    for number, (unet, scheduler) in enumerate(_PARTS):
        there = number < len(stages)
        index[unet] = ["diffusers_imagen", "DeepFloydUNet2DConditionModel"] if there else [None, None]
        index[scheduler] = ["diffusers", "DDPMScheduler"] if there else [None, None]
    for name, stage in zip(_STAGES, stages, strict=False):
        threshold = ddpm_settings(stage.enlarges)
        settings[name] = {
            **(ENLARGEMENT if stage.enlarges else BASE),
            "thresholding": "dynamic",
            "threshold_percentile": threshold["dynamic_thresholding_ratio"],
            "threshold_max": threshold["sample_max_value"],
            "noise": {**NOISE, "low_res": LOW_RES_NOISE} if stage.enlarges else NOISE,
        }
    return index | {"stages": settings, "text": text_settings()}


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
