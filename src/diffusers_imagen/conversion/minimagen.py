# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""MinImagen's training folders to configurations and weights of `ImagenPytorchUNet2DConditionModel`.

Its U-Net is one of imagen-pytorch 1.0 with fewer options, so all but its files and its noise is converted as those are.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from diffusers_imagen.conversion.archive import read_archive
from diffusers_imagen.conversion.imagen_pytorch import ConvertedCascade, convert_imagen_pytorch
from diffusers_imagen.conversion.imagen_pytorch_checkpoint import find_unets
from diffusers_imagen.conversion.imagen_pytorch_layouts import detect_layout
from diffusers_imagen.conversion.imagen_pytorch_options import ImagenOptions
from diffusers_imagen.diffusion.imagen_pytorch_schedules import discrete_log_snrs, level_of_log_snr

_DEFAULTS = {"timesteps": 1000, "lowres_sample_noise_level": 0.2, "dynamic_thresholding_percentile": 0.9}
_WEIGHTS = re.compile(r"unet_(\d+)_.+\.pth")


@dataclass(frozen=True)
class MinimagenFolder:
    """What a training folder holds.

    Args:
        unets: the weights of each U-Net by its number.
        parameters: arguments of MinImagen's `Imagen`.
    """

    unets: Mapping[int, Mapping[str, Tensor]]
    parameters: Mapping[str, Any]


def read_minimagen(folder: Path) -> MinimagenFolder:
    """Read the newest weights of each U-Net and the arguments in a training folder.

    Args:
        folder: with `state_dicts` and `parameters`.

    Raises:
        ValueError: a folder without them, or a file that cannot be read.
    """
    newest: dict[int, Path] = {}
    for path in sorted((folder / "state_dicts").glob("*.pth")):
        match = _WEIGHTS.fullmatch(path.name)
        if match is None:
            raise ValueError(f"`state_dicts` holds {path.name!r}, which MinImagen does not save.")
        newest[int(match[1])] = path
    if not newest:
        raise ValueError(f"`folder` is {str(folder)!r}, which has no `state_dicts/unet_*.pth`.")
    parameters: dict[str, Any] = {}
    for path in sorted((folder / "parameters").glob("imagen_params_*.json")):
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
        except (ValueError, RecursionError) as error:
            raise ValueError(f"`parameters` holds {path.name!r}, which is no JSON: {error}") from error
        if not isinstance(found, dict):
            raise ValueError(f"`parameters` holds {path.name!r}, a {type(found).__name__}, but no arguments by name.")
        parameters |= found
    unets = {number: read_archive(path) for number, path in newest.items()}
    for number, unet in unets.items():
        if not isinstance(unet, Mapping):
            raise ValueError(
                f"`state_dicts` holds {newest[number].name!r}, a {type(unet).__name__}, but no state dict."
            )
    return MinimagenFolder(unets, parameters)


def convert_minimagen(found: MinimagenFolder, options: ImagenOptions | None = None) -> ConvertedCascade:
    """Convert a cascade of MinImagen.

    Args:
        found: what `read_minimagen` returned.
        options: what the folder does not say; there is little beside `image_sizes`.

    Raises:
        ValueError: U-Nets that make no cascade, or weights that are missing, unknown or of a wrong shape.
    """
    given = options or ImagenOptions()
    names = ("image_sizes", *_DEFAULTS)
    said = {name: found.parameters.get(name, _DEFAULTS.get(name)) for name in names}
    said = {name: value if getattr(given, name) is None else getattr(given, name) for name, value in said.items()}
    own = replace(given, noise_schedules=["linear"] * len(found.unets), lowres_noise_schedule="linear", **said)
    state = {f"unets.{n}.{key}": tensor for n, unet in found.unets.items() for key, tensor in unet.items()}
    checkpoint = find_unets(state)
    for number, unet in checkpoint.unets.items():
        # Without self-attention its names are those of imagen-pytorch 1.0; the gate of the last block is not.
        if detect_layout(unet).release not in ("minimagen", "1.0") or "final_res_block.gca.to_k.weight" in unet:
            raise ValueError(f"U-Net {number} is none of MinImagen's; try the converter for imagen-pytorch.")
    converted = convert_imagen_pytorch([checkpoint], own, usual=True)
    stages = {}
    for name, stage in converted.stages.items():
        settings = dict(stage.settings)
        if "resize" in settings:
            settings |= {"resize": "bicubic", "noise_level": _low_res_level(stage.config, own)}
        stages[name] = replace(stage, settings=settings)
    return replace(converted, stages=stages)


def _low_res_level(config: Mapping[str, Any], options: ImagenOptions) -> float:
    steps = config["num_train_timesteps"]
    step = min(int(steps * float(options.lowres_sample_noise_level or 0)), steps - 1)
    return level_of_log_snr(float(discrete_log_snrs("linear", steps)[step]))
