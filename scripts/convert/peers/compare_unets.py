# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""Compare one release's U-Nets with what becomes of them: file, conversion, prediction, and the way back.

Called by `check_against_imagen_pytorch.py`, once for each release in a process of its own.
"""

import contextlib
import inspect
import io
import tempfile
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from configurations import CONFIGURATIONS
from import_peer import TEXT_WIDTH
from torch import Tensor, nn

from diffusers_imagen.conversion.archive import read_archive
from diffusers_imagen.conversion.imagen_pytorch import convert_imagen_pytorch, export_imagen_pytorch
from diffusers_imagen.conversion.imagen_pytorch_checkpoint import find_unets
from diffusers_imagen.conversion.imagen_pytorch_options import ImagenOptions, UnetOptions, unet_options
from diffusers_imagen.models.unet_imagen_pytorch import ImagenPytorchUNet2DConditionModel
from diffusers_imagen.pipelines.converted_cascade import converted_unet

_SIDE, _TOKENS = 16, 7
_NAMES = {
    "sample": "x",
    "timestep": "time",
    "encoder_hidden_states": "text_embeds",
    "encoder_attention_mask": "text_mask",
    "low_res": "lowres_cond_img",
    "low_res_timestep": "lowres_noise_times",
    "self_condition": "self_cond",
    "condition_image": "cond_images",
}


@dataclass(frozen=True)
class Outcome:
    """How a configuration fared.

    Args:
        float32: largest difference of predictions over the largest prediction, with text and without.
        rounding: the same between theirs in float32 and ours in float64, which is what float32 costs them.
        returns: whether the way back gives the same file, to the bit.
    """

    float32: float
    rounding: float
    returns: bool


def compare_unets(peer: ModuleType) -> dict[str, Outcome | str]:
    """Return every configuration's outcome, or why the release does not have it."""
    outcomes: dict[str, Outcome | str] = {}
    known = inspect.signature(peer.Unet.__init__).parameters
    for name, arguments in CONFIGURATIONS.items():
        unknown = sorted(set(arguments) - set(known))
        if unknown:
            outcomes[name] = f"has no {unknown[0]}"
            continue
        torch.manual_seed(len(outcomes))
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                theirs = peer.Unet(**arguments).eval()
                base = theirs if not arguments.get("lowres_cond") else peer.Unet(**CONFIGURATIONS["plain"])
        except Exception as error:  # whatever the peer raises
            outcomes[name] = f"cannot be made: {type(error).__name__}: {error}"
            continue
        liven(theirs)
        outcomes[name] = _compare(theirs, base, arguments)
    return outcomes


def liven(unet: nn.Module) -> None:
    """Give a new U-Net weights as if it had been trained: none of its tensors all zeros or all ones."""
    with torch.no_grad():
        for weight in unet.parameters():
            if bool((weight == weight.flatten()[0]).all()):
                weight.add_(torch.randn_like(weight) * 0.1)


def soften(unet: nn.Module) -> None:
    """Make predictions depend less on the picture: with random weights, rounding grows in every step otherwise."""
    with torch.no_grad():
        unet.final_conv.weight.mul_(0.1)


def _compare(theirs: nn.Module, base: nn.Module, arguments: dict[str, Any]) -> Outcome:
    inputs = _inputs(theirs, arguments)
    state = {f"unets.0.{key}": value for key, value in base.state_dict().items()}
    options = [UnetOptions() if base is not theirs else unet_options(arguments)]
    if base is not theirs:
        state |= {f"unets.1.{key}": value for key, value in theirs.state_dict().items()}
        options = [unet_options(CONFIGURATIONS["plain"]), unet_options(arguments)]
    sizes = (_SIDE, 2 * _SIDE)[: len(options)]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "imagen.pt"
        torch.save(state, path)
        found = find_unets(read_archive(path))
        converted = convert_imagen_pytorch([found], ImagenOptions(image_sizes=sizes, unets=tuple(options)), usual=True)
        stage = list(converted.stages.values())[-1]
        ours = converted_unet(stage)
        back = export_imagen_pytorch({name: (part.config, part.state) for name, part in converted.stages.items()})
        returns = set(back) == set(state) and all(
            torch.equal(back[key], value) and back[key].dtype == value.dtype for key, value in state.items()
        )
        single = difference(theirs, ours, inputs)
        return Outcome(single, difference(theirs, ours.double(), inputs), returns)


def _inputs(unet: nn.Module, arguments: dict[str, Any]) -> dict[str, Any]:
    channels = arguments.get("channels", 3)
    inputs = {
        "x": torch.randn(2, channels, _SIDE, _SIDE),
        "time": torch.tensor([1.5, -3.25]),
        "text_embeds": torch.randn(2, _TOKENS, TEXT_WIDTH),
        "text_mask": torch.tensor([[True] * _TOKENS, [True] * 3 + [False] * (_TOKENS - 3)]),
    }
    if not arguments.get("cond_on_text", True):
        del inputs["text_embeds"], inputs["text_mask"]
    if arguments.get("lowres_cond"):
        inputs |= {"lowres_cond_img": torch.randn_like(inputs["x"]), "lowres_noise_times": torch.tensor([2.0, 0.5])}
    if arguments.get("self_cond"):
        inputs["self_cond"] = torch.randn_like(inputs["x"])
    if arguments.get("cond_images_channels"):
        inputs["cond_images"] = torch.randn(2, arguments["cond_images_channels"], _SIDE // 2, _SIDE // 2)
    return inputs


def difference(theirs: nn.Module, ours: ImagenPytorchUNet2DConditionModel, inputs: dict[str, Any]) -> float:
    """Return the largest difference of predictions over the largest prediction, with text and without."""
    dtype = ours.dtype
    given = {ours_name: inputs[name] for ours_name, name in _NAMES.items() if name in inputs}
    given = {name: value if not value.is_floating_point() else value.to(dtype) for name, value in given.items()}
    with torch.no_grad():
        differences = [_relative(theirs(**inputs), ours(**given).sample)]
        if "text_embeds" in inputs:
            given["encoder_attention_mask"] = torch.zeros_like(inputs["text_mask"])
            differences.append(_relative(theirs(**inputs, cond_drop_prob=1.0), ours(**given).sample))
    return max(differences)


def _relative(expected: Tensor, found: Tensor) -> float:
    return float((expected - found).abs().max() / expected.abs().max())
