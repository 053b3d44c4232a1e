# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""Files of LoRA weights: what they hold for which U-Net, whether it fits, and writing them.

The format is Diffusers': safetensors, keys such as "sr_unet_1.mid_blocks.0.attention.attn.to_q.lora_A.weight", and PEFT's
configurations in the header, without which the strength alpha / r of an adapter would be lost. Called by `lora`.
"""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from diffusers.loaders.lora_base import LORA_ADAPTER_METADATA_KEY, LORA_WEIGHT_NAME_SAFE
from safetensors.torch import save_file
from torch import Tensor, nn

Weights = dict[str, Tensor]
Metadata = dict[str, Any]
_LAYER = re.compile(r"(.+?)\.lo(?:ra|kr)[_.]")


def by_component(values: Mapping[str, Any], components: Sequence[str], default: str) -> dict[str, dict[str, Any]]:
    """Sort a file's weights, or its metadata, by the component that their names begin with.

    Args:
        values: by name.
        components: names that may come before the first dot.
        default: the component of all that is there, if no name begins with one.

    Raises:
        ValueError: names of which only some begin with a component.
    """
    sorted_out: dict[str, dict[str, Any]] = {}
    for name, value in values.items():
        first, _, rest = name.partition(".")
        if first in components:
            sorted_out.setdefault(first, {})[rest] = value
    strangers = [name for name in values if name.partition(".")[0] not in components]
    if sorted_out and strangers:
        raise ValueError(
            f"The LoRA has weights for {sorted(sorted_out)}, but also {strangers[0]!r}, and {len(strangers) - 1} more "
            f"that belong to none of {list(components)}; take them out, or ask for the file of another pipeline."
        )
    return sorted_out or {default: dict(values)}


def check_fit(component: str, weights: Weights, model: nn.Module) -> None:
    """Refuse weights for layers that a model does not have, or has in another size, and halves of an adapter.

    Args:
        component: the model's name in the pipeline.
        weights: named by the model's layers.
        model: with other adapters, or without any.

    Raises:
        ValueError: naming the layer.
    """
    layers = dict(model.named_modules())
    for name, weight in weights.items():
        match = _LAYER.match(name)
        layer = layers.get(match[1]) if match else None
        if layer is None:
            raise ValueError(
                f"The LoRA has {name!r} for `{component}`, which is of class {type(model).__name__} and has no such layer; it was "
                "made for another model. `component` says which U-Net a file without component names is for."
            )
        base: Any = getattr(layer, "base_layer", layer)
        for part, side in (("lora_A", 1), ("lora_B", 0)):
            if f".{part}." in name and weight.ndim > 1 and weight.shape[side] != base.weight.shape[side]:
                raise ValueError(
                    f"The LoRA has {name!r} of shape {tuple(weight.shape)} for `{component}`, whose layer has weights "
                    f"of shape {tuple(base.weight.shape)}; it was made for a model of another size."
                )
    _check_pairs(component, weights)


def check_tensors(weights: Any) -> None:
    """Refuse weights that are none, before they are sorted out.

    Args:
        weights: of a file, or the caller's, by name.

    Raises:
        ValueError: naming the first that cannot be.
    """
    if not weights:
        raise ValueError("The LoRA holds no weights; give those of an adapter.")
    for name, weight in weights.items():
        if not isinstance(name, str) or not isinstance(weight, Tensor) or not weight.is_floating_point():
            kind = weight.dtype if isinstance(weight, Tensor) else type(weight).__name__
            raise ValueError(
                f"The LoRA has {name!r} of kind {kind}; give tensors of floating-point numbers by their names."
            )
        if not bool(weight.float().isfinite().all()):
            raise ValueError(
                f"The LoRA has {name!r}, which holds values that are not finite; fetch or train it again."
            )


def _check_pairs(component: str, weights: Weights) -> None:
    """Refuse a LoRA of which a layer has one half alone, or halves of different ranks."""
    for name, weight in weights.items():
        if not name.endswith((".lora_A.weight", ".lora_B.weight")):
            continue
        down = ".lora_A." in name
        other = name.replace(".lora_A.", ".lora_B.") if down else name.replace(".lora_B.", ".lora_A.")
        if other not in weights:
            raise ValueError(
                f"The LoRA has {name!r} for `{component}`, but not {other!r}: it is incomplete; fetch or save it again."
            )
        if down and weight.shape[0] != weights[other].shape[1]:
            raise ValueError(
                f"The LoRA has {name!r} of rank {weight.shape[0]} for `{component}`, but {other!r} of rank "
                f"{weights[other].shape[1]}; both must be of one."
            )


def write_lora(
    folder: Path,
    weights: Mapping[str, Weights],
    metadata: Mapping[str, Metadata | None],
    weight_name: str | None = None,
) -> None:
    """Write one file for all components, complete or not at all.

    Args:
        folder: made if it does not exist.
        weights: by component and layer.
        metadata: by component, PEFT's configuration.
        weight_name: the file's, `None` for Diffusers' "pytorch_lora_weights.safetensors".

    Raises:
        ValueError: a file in place of the folder, or a name that is not a safetensors file's.
    """
    weight_name = weight_name or LORA_WEIGHT_NAME_SAFE
    if not weight_name.endswith(".safetensors"):
        raise ValueError(f"`weight_name` is {weight_name!r}; LoRA weights are saved as safetensors, name them so.")
    if folder.is_file():
        raise ValueError(f"`save_directory` is the file {folder}; name a folder.")
    tensors = {f"{component}.{name}": value for component, part in weights.items() for name, value in part.items()}
    config = {
        f"{component}.{name}": sorted(value) if isinstance(value, set) else value
        for component, part in metadata.items()
        for name, value in (part or {}).items()
    }
    header = {"format": "pt"}
    if config:
        header[LORA_ADAPTER_METADATA_KEY] = json.dumps(config, indent=2, sort_keys=True)
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / f".{weight_name}.tmp"
    save_file({name: value.detach().contiguous() for name, value in tensors.items()}, temporary, metadata=header)
    temporary.replace(folder / weight_name)
