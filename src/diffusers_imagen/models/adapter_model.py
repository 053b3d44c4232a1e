# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""LoRA adapters of one U-Net, read with their strength from wherever they are. Base class of the U-Nets.

Diffusers' own method looks for a pickle unless it is told otherwise: a folder that `save_lora_adapter` wrote would not be
found, and of a file given by its path the header would be left unread, and with it alpha.
"""

import os
from typing import Any

from diffusers.loaders import PeftAdapterMixin
from torch import Tensor

from diffusers_imagen.models.adapter_files import adapter_names_in

_COMPONENTS = ("unet", "sr_unet_1", "sr_unet_2")


class AdapterModel(PeftAdapterMixin):
    """A model that reads adapters from safetensors, always with their configuration."""

    def load_lora_adapter(
        self,
        pretrained_model_name_or_path_or_dict: str | os.PathLike[str] | dict[str, Tensor],
        prefix: str | None = None,
        hotswap: bool = False,
        **kwargs: Any,
    ) -> None:
        """Attach a LoRA adapter.

        Args:
            pretrained_model_name_or_path_or_dict: a folder, a safetensors file, a Hub repository or the weights.
            prefix: what the weights' names begin with, before the first dot, such as "unet"; `None` for nothing.
            hotswap: whether to exchange the weights of an adapter of the same name in their place.
            **kwargs: as `PeftAdapterMixin.load_lora_adapter` takes them: `adapter_name`, `weight_name`...

        Raises:
            ValueError: an adapter's name or a file's that cannot be, or the file of a whole cascade without `prefix`.
            OSError: no safetensors file there.
        """
        check_adapter_name(kwargs.get("adapter_name"))
        source = pretrained_model_name_or_path_or_dict
        if isinstance(source, dict):
            names = list(source)
        else:
            names = adapter_names_in(source, kwargs.get("weight_name"), kwargs.get("subfolder"))
        found = sorted({name.partition(".")[0] for name in names} & set(_COMPONENTS))
        if prefix is None and found:
            raise ValueError(
                f"The LoRA names its weights by component, {found}: give the one for this U-Net as `prefix`, such as "
                f"prefix={found[0]!r}, or load all of them with `pipe.load_lora_weights`."
            )
        super().load_lora_adapter(
            pretrained_model_name_or_path_or_dict, prefix, hotswap, **kwargs | {"use_safetensors": True}
        )


def check_adapter_name(adapter_name: str | None) -> None:
    """Refuse a name that PyTorch cannot give to an adapter's layers.

    Raises:
        ValueError: a name that is empty or has a dot in it.
    """
    if adapter_name is not None and (not isinstance(adapter_name, str) or not adapter_name or "." in adapter_name):
        raise ValueError(
            f"`adapter_name` is {adapter_name!r}; take one with at least one character and without a dot."
        )
