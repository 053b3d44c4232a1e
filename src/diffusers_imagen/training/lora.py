# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""Put a LoRA into a U-Net for training, and write it as Diffusers' `load_lora_adapter` reads it.

The loop trains whatever asks for a gradient; here is decided that only the adapter does. Called where a run's U-Net is
made and where it is exported.
"""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors.torch import save_file
from torch import nn

from diffusers_imagen.training.fine_tune_config import LoraConfig

if TYPE_CHECKING:
    from diffusers_imagen.training.state import UNet

WEIGHTS = "pytorch_lora_weights.safetensors"
"""The file's name in Diffusers."""

_ADAPTER = "default"
# The name under which Diffusers looks for an adapter's configuration in the file's header.
_METADATA = "lora_adapter_metadata"
_ATTENTION = ("to_q", "to_k", "to_v", "add_k_proj", "add_v_proj", "to_out.0")
# They turn pixels into features and back; a change of low rank there is one of all colours at once.
_ENDS = ("conv_in", "conv_out")


def lora_targets(unet: nn.Module, config: LoraConfig) -> list[str]:
    """Give the names of the layers that are adapted, or ends of names.

    Args:
        unet: The U-Net.
        config: Which layers.

    Raises:
        ValueError: If the U-Net has no layer of such a name, or one that cannot be adapted.
    """
    # Exactly these classes: peft makes the adapter of a layer's own, whose constructor must be theirs.
    layers = {name for name, layer in unet.named_modules() if type(layer) in (nn.Linear, nn.Conv2d)}
    if config.target_modules:
        for target in config.target_modules:
            if not any(name == target or name.endswith(f".{target}") for name in layers):
                raise ValueError(
                    f"`lora.target_modules` holds {target!r}, but the U-Net has no linear layer or convolution of this "
                    f"name; it has {', '.join(sorted(layers)[:5])}, ..."
                )
        return list(config.target_modules)
    if config.layers == "all":
        return sorted(layers - set(_ENDS))
    return [end for end in _ATTENTION if any(name.endswith(f".{end}") for name in layers)]


def add_lora(unet: "UNet", config: LoraConfig) -> None:
    """Freeze a U-Net and put an adapter into it that changes nothing yet.

    Args:
        unet: The U-Net, changed in place: of its parameters only the adapter's ask for a gradient afterwards.
        config: Rank, strength and layers.

    Raises:
        ValueError: If the U-Net lacks the layers, or the package `peft` is missing.
    """
    try:
        import peft
    except ImportError as error:
        raise ValueError('`lora` needs the package peft; run `pip install "diffusers-imagen[train]"`.') from error
    unet.requires_grad_(False)
    unet.add_adapter(
        peft.LoraConfig(
            r=config.rank,
            # Any number will do, though it is annotated as a whole one.
            lora_alpha=config.rank if config.alpha is None else config.alpha,
            lora_dropout=config.dropout,
            target_modules=lora_targets(unet, config),
        ),
        _ADAPTER,
    )


def export_lora(unet: "UNet", folder: Path) -> None:
    """Write the adapter of a U-Net as `pytorch_lora_weights.safetensors`, replacing an earlier one at once.

    The strength alpha / rank is multiplied into the weights and the header says alpha = rank, so that the adapter is as
    strong for readers that do not see the header, as Diffusers does not when it is given the file's path.

    Args:
        unet: A U-Net with an adapter of `add_lora`.
        folder: Where, made if it does not exist; its parent must.
    """
    from peft.utils import get_peft_model_state_dict

    config: dict[str, Any] = unet.peft_config[_ADAPTER].to_dict()
    strength = config["lora_alpha"] / config["r"]
    tensors = {
        name: (strength * tensor if ".lora_B." in name else tensor).detach().cpu().contiguous()
        for name, tensor in get_peft_model_state_dict(unet, adapter_name=_ADAPTER).items()
    }
    header = config | {"lora_alpha": config["r"]}
    header = {name: sorted(value) if isinstance(value, set) else value for name, value in header.items()}
    folder.mkdir(exist_ok=True)
    temporary = folder / f".{WEIGHTS}.tmp"
    save_file(tensors, temporary, metadata={"format": "pt", _METADATA: json.dumps(header, sort_keys=True)})
    temporary.replace(folder / WEIGHTS)
