# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""Record for the tests what a release's U-Nets are called and predict, with weights that a formula gives.

.venv-peers/bin/python scripts/convert/peers/record_references.py .venv-peers --release imagen-pytorch-2.1.0

Without `--release` all are recorded. They are read by tests/conversion.
"""

import argparse
import contextlib
import inspect
import io
import json
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
from import_peer import TEXT_WIDTH, import_peer
from torch import nn

TESTS = Path(__file__).resolve().parents[3] / "tests" / "conversion"
SIDE, TEXT_PLACES = 8, 6
_SHARED = {"dim": 8, "text_embed_dim": TEXT_WIDTH, "dim_mults": (1, 2), "attn_heads": 2}
_IMAGEN_PYTORCH = {"attn_dim_head": 8, "max_text_len": TEXT_PLACES, "attn_pool_num_latents": 2}
_ENLARGEMENT = {"lowres_cond": True, "layer_attns": (False, True)}
# What a release does not know is left out.
_ODD = _ENLARGEMENT | {
    "use_linear_attn": (True, False),
    "num_resnet_blocks": (1, 2),
    "layer_attns_depth": (2, 1),
    "ff_mult": 1.5,
    "cond_dim": 12,
    "memory_efficient": True,
    "combine_upsample_fmaps": True,
    "init_conv_to_final_conv_residual": True,
    "pixel_shuffle_upsample": False,
    "use_global_context_attn": False,
    "num_time_tokens": 3,
    "init_cross_embed_kernel_sizes": (3, 5),
}


def record(folder: Path) -> dict[str, Any]:
    """Return what two cascades' weights are called and their enlargements predict, an ordinary one's and an odd one's."""
    is_minimagen = folder.name.startswith("minimagen")
    unet_class = import_peer(folder, "minimagen.Unet" if is_minimagen else "imagen_pytorch").Unet
    own = _SHARED | ({"attend_at_middle": True} if is_minimagen else _IMAGEN_PYTORCH)
    recorded = {"release": folder.name} | _cascade(unet_class, own, _ENLARGEMENT)
    if not is_minimagen:
        known = inspect.signature(unet_class.__init__).parameters
        odd = {name: value for name, value in _ODD.items() if name in known}
        recorded["odd"] = _cascade(unet_class, own, odd)
    return recorded


def _cascade(unet_class: type[nn.Module], shared: dict[str, Any], enlargement: dict[str, Any]) -> dict[str, Any]:
    formulas = runpy.run_path(str(TESTS / "formulas.py"))
    with contextlib.redirect_stdout(io.StringIO()):
        unets = [unet_class(**shared), unet_class(**shared, **enlargement)]
    shapes = {
        f"unets.{n}.{key}": list(value.shape)
        for n, unet in enumerate(unets)
        for key, value in unet.state_dict().items()
    }
    state = formulas["by_formula"](shapes)
    unets[1].load_state_dict(
        {key.removeprefix("unets.1."): v for key, v in state.items() if key.startswith("unets.1.")}
    )
    inputs = formulas["inputs_by_formula"](SIDE, TEXT_WIDTH)
    with torch.no_grad():
        prediction = unets[1].eval()(**inputs)
        without_text = unets[1](**inputs, cond_drop_prob=1.0)
    return {
        "shapes": shapes,
        "prediction": prediction.flatten()[::16].tolist(),
        "without_text": without_text.flatten()[::16].tolist(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("environment", type=Path, help="what environment.py made")
    parser.add_argument("--release", help="only this one")
    arguments = parser.parse_args()
    peers = arguments.environment / "peers"
    if arguments.release is None:
        for folder in sorted(peers.iterdir()):
            command = [sys.executable, __file__, arguments.environment, "--release", folder.name]
            subprocess.run(command, check=True)
        return
    text = json.dumps(record(peers / arguments.release), separators=(",", ":")).replace('],"', '],\n"')
    (TESTS / "references" / f"{arguments.release}.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
