# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""LoRA adapters of one U-Net, read with their strength from wherever they are. Base class of the U-Nets.

Diffusers' own method looks for a pickle unless it is told otherwise: a folder that `save_lora_adapter` wrote would not be
found, and of a file given by its path the header would be left unread, and with it alpha.
"""

import os
from collections.abc import Iterator, Mapping
from typing import Any

from diffusers.loaders import PeftAdapterMixin
from torch import Tensor, nn

from diffusers_imagen.models.adapter_files import adapter_names_in
from diffusers_imagen.models.merged_adapters import noting_strengths, restoring_strengths
from diffusers_imagen.models.packing import unpack_layers

_COMPONENTS = ("unet", "sr_unet_1", "sr_unet_2")


class AdapterModel(PeftAdapterMixin):
    """A model that reads adapters from safetensors, always with their configuration, and weights them by its parts."""

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
            ValueError: an adapter's name or a file's that cannot be, the file of a whole cascade without `prefix`, or
                weights that are stored in eight bits already.
            OSError: no safetensors file there.
        """
        check_adapter_name(kwargs.get("adapter_name"))
        self._ready_for_adapter()
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

    def add_adapter(self, adapter_config: Any, adapter_name: str = "default") -> None:
        """Attach a new LoRA adapter, to be trained.

        Args:
            adapter_config: PEFT's configuration.
            adapter_name: for `set_adapters` and its like.

        Raises:
            ValueError: a name that is in use or cannot be, or weights that are stored in eight bits already.
        """
        check_adapter_name(adapter_name)
        self._ready_for_adapter()
        super().add_adapter(adapter_config, adapter_name)

    def set_adapters(self, adapter_names: list[str] | str, weights: Any = None) -> None:
        """Turn adapters on, and all others off.

        Args:
            adapter_names: one or several, as they were loaded.
            weights: strength of all, or a list with that of each, 1 where it is `None`. A mapping gives it by part, as
                other U-Nets take it: `{"down": 0.5, "mid": 0, "up": {"block_1": 2}}`; what it does not name has 1.

        Raises:
            ValueError: a part or a block that the U-Net does not have, or one without a number.
        """
        given = [self._by_layer(weight) for weight in (weights if isinstance(weights, list) else [weights])]
        super().set_adapters(adapter_names, given if isinstance(weights, list) else given[0])

    def fuse_lora(
        self, lora_scale: float = 1.0, safe_fusing: bool = False, adapter_names: list[str] | None = None
    ) -> None:
        """Add adapters to the weights that they belong to.

        Args:
            lora_scale: strength, on top of what `set_adapters` set.
            safe_fusing: whether to leave weights alone that would become NaN.
            adapter_names: which; `None` for those that are active.
        """
        with noting_strengths(self):
            super().fuse_lora(lora_scale, safe_fusing, adapter_names)

    def unfuse_lora(self) -> None:
        """Take merged adapters out of the weights again; they are as strong as before, unless they were set since."""
        with restoring_strengths(self):
            super().unfuse_lora()

    def _ready_for_adapter(self) -> None:
        if not isinstance(self, nn.Module):
            return
        unpack_layers(self)
        # PEFT would give an adapter the same eight bits, in which nothing can be computed.
        if any(weight.is_floating_point() and weight.element_size() == 1 for weight in self.parameters()):
            raise ValueError(
                f"The weights of this {type(self).__name__} are stored in eight bits; load or add adapters before "
                "`enable_layerwise_casting`, which leaves them as they are."
            )

    def _by_layer(self, weight: Any) -> Any:
        if not isinstance(weight, Mapping):
            return weight
        # The first name that a layer's has in it counts, and every name has "" in it.
        return dict(_weights_by_layer(self, weight)) | {"": 1.0}


def _weights_by_layer(model: Any, weights: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """Give the weights of parts under what their layers' names begin with."""
    for part, weight in weights.items():
        names = (
            (f"{part}_levels", f"{part}_blocks", f"{part}_block", f"{part}_block1")
            if part in ("down", "mid", "up")
            else ()
        )
        name = next((name for name in names if hasattr(model, name)), None)
        if name is None:
            raise ValueError(f"`weights` has {part!r}; parts of a U-Net with a weight are 'down', 'mid' and 'up'.")
        blocks = getattr(model, name)
        known = [f"block_{number}" for number in range(len(blocks) if isinstance(blocks, nn.ModuleList) else 0)]
        for block, value in weight.items() if isinstance(weight, Mapping) else [(None, weight)]:
            if block is not None and block not in known:
                raise ValueError(f"`weights` has {block!r} of {part!r}, which has {known or 'one block'}.")
            if not isinstance(value, int | float):
                raise ValueError(f"`weights` has {value!r} for {part!r}; a part or a block has one number.")
            if part == "mid" and block is None:
                # All of the middle, which has several parts in some families.
                yield "mid_", value
            else:
                yield f"{name}." if block is None else f"{name}.{known.index(block)}.", value


def check_adapter_name(adapter_name: str | None) -> None:
    """Refuse a name that PyTorch cannot give to an adapter's layers.

    Raises:
        ValueError: a name that is empty or has a dot in it.
    """
    if adapter_name is not None and (not isinstance(adapter_name, str) or not adapter_name or "." in adapter_name):
        raise ValueError(
            f"`adapter_name` is {adapter_name!r}; take one with at least one character and without a dot."
        )
