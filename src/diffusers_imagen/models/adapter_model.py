# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""LoRA adapters of one U-Net, read with their strength from wherever they are. Base class of the U-Nets.

Diffusers' own method looks for a pickle unless it is told otherwise: a folder that `save_lora_adapter` wrote would not be
found, and of a file given by its path the header would be left unread, and with it alpha.
"""

import os
from typing import Any

from diffusers.loaders import PeftAdapterMixin
from torch import Tensor


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
            OSError: no safetensors file there.
        """
        super().load_lora_adapter(
            pretrained_model_name_or_path_or_dict, prefix, hotswap, **kwargs | {"use_safetensors": True}
        )
