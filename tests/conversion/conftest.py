"""Small original checkpoints of DeepFloyd IF: a config.yml's settings and random weights under the original names. And
what imagen-pytorch itself gave for weights by formula, and those formulas.
"""

import json
import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from diffusers import UNet2DConditionModel

from diffusers_imagen.conversion.deepfloyd_if import restore, unet_config

HERE = Path(__file__).parent
REFERENCES = HERE / "references"
FORMULAS = runpy.run_path(str(HERE / "formulas.py"))

COMMON = {
    "out_channels": 6,
    "activation": "gelu",
    "encoder_dim": 16,
    "encoder_channels": 32,
    "att_pool_heads": 4,
    "num_head_channels": 16,
    "use_scale_shift_norm": True,
    "resblock_updown": True,
    "dropout": 0.0,
    "precision": "32",
}
# The places of attention and the numbers of blocks are the released ones', the widths are not.
PARAMS: dict[str, dict[str, Any]] = {
    "I": COMMON
    | {
        "in_channels": 3,
        "model_channels": 32,
        "channel_mult": "1,2,3,4",
        "num_res_blocks": 3,
        "attention_resolutions": "32,16,8",
        "image_size": 64,
    },
    "II": COMMON
    | {
        "in_channels": 6,
        "model_channels": 32,
        "channel_mult": "1,2,2,3,3",
        "num_res_blocks": [2, 2, 3, 5, 5],
        "attention_resolutions": "32,16",
        "image_size": 256,
        "disable_self_attentions": True,
        "efficient_activation": True,
        "scale_skip_connection": True,
        "interpolate_mode": "bilinear",
    },
    "small": COMMON
    | {
        "in_channels": 3,
        "model_channels": 32,
        "channel_mult": [1, 2],
        "num_res_blocks": 1,
        "attention_resolutions": [4],
        "image_size": 8,
        "encoder_dim": 32,
    },
    "small II": COMMON
    | {
        "in_channels": 6,
        "model_channels": 32,
        "channel_mult": "1,2",
        "num_res_blocks": [1, 2],
        "attention_resolutions": "8",
        "disable_self_attentions": "8",
        "image_size": 16,
        "efficient_activation": True,
        "scale_skip_connection": True,
        "encoder_dim": 32,
    },
}


@pytest.fixture
def params() -> dict[str, dict[str, Any]]:
    """Give the settings by name; a copy that tests may change."""
    return {name: dict(settings) for name, settings in PARAMS.items()}


@pytest.fixture
def original() -> Callable[[str], tuple[UNet2DConditionModel, dict[str, torch.Tensor]]]:
    """Give a function that makes a random U-Net of Diffusers and its weights as the original has them."""

    def make(name: str) -> tuple[UNet2DConditionModel, dict[str, torch.Tensor]]:
        config = unet_config(PARAMS[name])
        torch.manual_seed(0)
        unet = UNet2DConditionModel(**config).eval()
        return unet, {key: weight.clone() for key, weight in restore(unet.state_dict(), config).items()}

    return make


@pytest.fixture
def original_folder(tmp_path: Path, original: Callable[..., Any]) -> Callable[..., Path]:
    """Give a function that writes an original stage's folder."""

    def make(name: str, change: Callable[[dict[str, torch.Tensor]], Any] | None = None) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        weights = original(name)[1]
        if change is not None:
            change(weights)
        torch.save(weights, folder / "pytorch_model.bin")
        (folder / "config.yml").write_text(yaml.safe_dump({"params": PARAMS[name]}))
        return folder

    return make


RELEASES = sorted(path.stem for path in REFERENCES.glob("*.json"))
# MinImagen has none of the odd options.
CASCADES = [(name, "usual") for name in RELEASES] + [(name, "odd") for name in RELEASES if name.startswith("imagen-")]


@pytest.fixture(params=CASCADES, ids=" ".join)
def cascade(request):
    """A release's U-Nets: names and shapes of a base and an enlargement, and what the enlargement predicts."""
    name, kind = request.param
    reference = json.loads((REFERENCES / f"{name}.json").read_text(encoding="utf-8"))
    return reference["odd"] if kind == "odd" else reference


@pytest.fixture
def latest():
    """The same of imagen-pytorch 2.1.0."""
    return json.loads((REFERENCES / "imagen-pytorch-2.1.0.json").read_text(encoding="utf-8"))


@pytest.fixture
def first():
    """The same of imagen-pytorch 1.0.2."""
    return json.loads((REFERENCES / "imagen-pytorch-1.0.2.json").read_text(encoding="utf-8"))


@pytest.fixture
def make_state():
    return FORMULAS["by_formula"]


@pytest.fixture
def make_inputs():
    return FORMULAS["inputs_by_formula"]


@pytest.fixture
def minimagen():
    """The same of MinImagen 0.0.9."""
    return json.loads((REFERENCES / "minimagen-0.0.9.json").read_text(encoding="utf-8"))
