# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""Compare MinImagen's U-Nets and its base's pictures with what becomes of them.

Its enlargements noise the smaller picture before they bring it to [-1, 1], in sampling alone; only their U-Nets are
compared. Called by `check_against_imagen_pytorch.py`.
"""

import contextlib
import io
import json
import tempfile
from math import nan
from pathlib import Path
from typing import Any

import torch
from compare_unets import Outcome, difference, liven, soften
from diffusers import DDPMScheduler
from import_peer import TEXT_WIDTH, import_peer
from torch import nn

from diffusers_imagen.conversion.imagen_pytorch import ConvertedCascade, export_imagen_pytorch
from diffusers_imagen.conversion.minimagen import convert_minimagen, read_minimagen
from diffusers_imagen.pipelines.converted_cascade import converted_cascade, converted_unet

_SIDE, _STEPS = 16, 25
_PLAIN: dict[str, Any] = {"dim": 16, "dim_mults": (1, 2), "text_embed_dim": TEXT_WIDTH, "attn_heads": 2}
_CONFIGURATIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "attention in the middle": {"attend_at_middle": True},
    "no attention": {"layer_attns": False, "layer_cross_attns": False},
    "by level": {"num_resnet_blocks": (1, 2), "layer_attns": (False, True), "layer_cross_attns": (False, True)},
    "memory efficient": {"memory_efficient": True, "cond_dim": 24},
    "enlargement": {"lowres_cond": True, "memory_efficient": True},
}


def compare_minimagen(folder: Path) -> tuple[dict[str, Outcome | str], dict[str, tuple[float, float]]]:
    """Return the U-Nets' outcomes and the largest difference of a base's pictures."""
    unet_class = import_peer(folder, "minimagen.Unet").Unet
    outcomes: dict[str, Outcome | str] = {}
    for name, changed in _CONFIGURATIONS.items():
        torch.manual_seed(len(outcomes))
        unets = [unet_class(**(_PLAIN | changed)).eval()]
        if changed.get("lowres_cond"):
            unets.insert(0, unet_class(**_PLAIN))
        liven(unets[-1])
        converted = _converted(unets)
        back = export_imagen_pytorch({key: (part.config, part.state) for key, part in converted.stages.items()})
        state = {f"unets.{n}.{key}": value for n, unet in enumerate(unets) for key, value in unet.state_dict().items()}
        returns = set(back) == set(state) and all(torch.equal(back[key], value) for key, value in state.items())
        ours = converted_unet(list(converted.stages.values())[-1])
        inputs = {
            "x": torch.randn(2, 3, _SIDE, _SIDE),
            "time": torch.tensor([3, 17]),
            "text_embeds": torch.randn(2, 7, TEXT_WIDTH),
            "text_mask": torch.tensor([[True] * 7, [True] * 3 + [False] * 4]),
        }
        if changed.get("lowres_cond"):
            inputs |= {"lowres_cond_img": torch.randn_like(inputs["x"]), "lowres_noise_times": torch.tensor([4, 4])}
        with torch.no_grad():
            single = difference(unets[-1], ours, inputs)
            outcomes[name] = Outcome(single, difference(unets[-1], ours.double(), inputs), returns)
    return outcomes, {f"base, guidance {scale}": (nan, _base_pictures(folder, scale)) for scale in (1.0, 3.0)}


def _converted(unets: list[nn.Module]) -> ConvertedCascade:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "state_dicts").mkdir()
        (folder / "parameters").mkdir()
        parameters = {"image_sizes": [_SIDE, 2 * _SIDE][: len(unets)], "timesteps": _STEPS}
        (folder / "parameters" / "imagen_params_1.json").write_text(json.dumps(parameters))
        for number, unet in enumerate(unets):
            torch.save(unet.state_dict(), folder / "state_dicts" / f"unet_{number}_state_1.pth")
        return convert_minimagen(read_minimagen(folder))


def _base_pictures(folder: Path, scale: float) -> float:
    torch.manual_seed(0)
    unet = import_peer(folder, "minimagen.Unet").Unet(**_PLAIN).eval()
    liven(unet)
    soften(unet)
    imagen_class = import_peer(folder, "minimagen.Imagen").Imagen
    theirs = imagen_class(
        (unet,), text_encoder_name="t5_small", text_embed_dim=TEXT_WIDTH, image_sizes=(_SIDE,), timesteps=_STEPS
    )
    ours = converted_cascade(_converted([unet]))
    ours.set_progress_bar_config(disable=True)
    factor = 1000 / _STEPS
    ours.scheduler = DDPMScheduler(
        _STEPS, beta_start=1e-4 * factor, beta_end=0.02 * factor, clip_sample=False, prediction_type="sample"
    )
    text, mask = torch.randn(2, 7, TEXT_WIDTH), torch.ones(2, 7, dtype=torch.bool)
    with contextlib.redirect_stderr(io.StringIO()):
        torch.manual_seed(1)
        expected = theirs.sample(text_embeds=text, text_masks=mask, cond_scale=scale)
        torch.manual_seed(1)
        drawn = ours(prompt_embeds=text, prompt_attention_mask=mask, guidance_scale=scale, output_type="latent").images
    return float((drawn.clamp(-1, 1) - (2 * expected - 1)).abs().max())
