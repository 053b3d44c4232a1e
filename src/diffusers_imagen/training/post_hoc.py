# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""Make a U-Net of any power-function average from the snapshots of a run. Called by the command line.

The arithmetic is in `power_average.py`; the snapshots are written by the training loop, as checkpoints are.
"""

import json
import shutil
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from diffusers_imagen.models.unet_deepfloyd import DeepFloydUNet2DConditionModel
from diffusers_imagen.models.unet_efficient import EfficientUNet2DConditionModel
from diffusers_imagen.models.unet_imagen import ImagenUNet2DConditionModel
from diffusers_imagen.training.checkpoint import checkpoint_steps, load_checkpoint
from diffusers_imagen.training.export import export_model
from diffusers_imagen.training.power_average import Profile, combination_error, combine_profiles
from diffusers_imagen.training.run_folder import CONFIG, SNAPSHOTS, unet_folder

_CLASSES = {
    kind.__name__: kind
    for kind in (ImagenUNet2DConditionModel, EfficientUNet2DConditionModel, DeepFloydUNet2DConditionModel)
}


class PostHocAverage(NamedTuple):
    """Say what was averaged.

    Attributes:
        step: That the average is of.
        snapshots: How many it is made of.
        error: How far its profile is from the one that was asked for, relative to that.
    """

    step: int
    snapshots: int
    error: float


def write_average(run: Path, sigma_rel: float, output: Path, step: int | None = None) -> PostHocAverage:
    """Write the U-Net of an average that nobody had to choose before the training.

    Args:
        run: The run's folder, which has snapshots (`ema.post_hoc`).
        sigma_rel: Width of the average's profile relative to the training's length until `step`.
        output: Folder of the U-Net; the run's configuration is put beside it, so that it can be assembled.
        step: Of one of the snapshots; None for the last one's.

    Returns:
        What was averaged.

    Raises:
        ValueError: If there are no snapshots, none is of `step`, the width is impossible, one is damaged, or `output` is
            there already.
    """
    if output.exists():
        raise ValueError(f"`output` is {str(output)!r}, which is there already; give a new folder.")
    found = checkpoint_steps(run / SNAPSHOTS)
    if not found:
        raise ValueError(f"`run` is {str(run)!r}, which has no {SNAPSHOTS}/; train it with `ema.post_hoc` true.")
    step = max(found) if step is None else step
    if step not in found:
        steps = ", ".join(map(str, sorted(found)))
        raise ValueError(f"`step` is {step}, but there are snapshots of {steps}; give one of these.")
    profiles: dict[Profile, tuple[Path, str]] = {}
    for other, path in sorted(found.items()):
        if other <= step:
            updates = int(json.loads((path / "record.json").read_text(encoding="utf-8"))["updates"])
            files = sorted(path.glob("*.safetensors"))
            profiles |= {Profile(float(file.stem), updates): (path, file.stem) for file in files}
    target = Profile(sigma_rel, max(profile.updates for profile in profiles))
    factors = combine_profiles(list(profiles), target)
    weights = _combine(dict(zip(profiles.values(), factors.tolist(), strict=True)))

    kind = _CLASSES[json.loads((unet_folder(run) / "config.json").read_text(encoding="utf-8"))["_class_name"]]
    unet = kind.from_config(kind.load_config(unet_folder(run)))
    unet.load_state_dict({name: weights[name].to(value.dtype) for name, value in unet.state_dict().items()})
    output.absolute().parent.mkdir(parents=True, exist_ok=True)
    export_model(unet, output)
    if (run / CONFIG).is_file():
        shutil.copyfile(run / CONFIG, output / CONFIG)
    return PostHocAverage(
        step, len({path for path, _ in profiles.values()}), combination_error(list(profiles), factors, target)
    )


def _combine(factors: dict[tuple[Path, str], float]) -> dict[str, Tensor]:
    """Add snapshots, each file of them times its factor, in float64: the factors are large and of both signs."""
    total: dict[str, Tensor] = {}
    for path in dict.fromkeys(path for path, _ in factors):
        snapshot = load_checkpoint(path)
        for name, tensors in snapshot.tensors.items():
            for key, tensor in tensors.items():
                part = factors[path, name] * tensor.double()
                total[key] = total[key].add_(part) if key in total else part
    return total
