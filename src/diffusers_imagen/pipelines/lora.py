# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""LoRA adapters of a whole cascade: one file and one name for all of its U-Nets.

Diffusers' `LoraBaseMixin` turns adapters on and off, weights, merges and removes them; here is what depends on
the pipeline: which models have them, loading and saving. Base class of the pipeline.
"""

import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from diffusers.loaders.lora_base import LoraBaseMixin
from torch import nn

from diffusers_imagen.models.adapter_files import adapter_names_in
from diffusers_imagen.models.adapter_model import check_adapter_name
from diffusers_imagen.models.merged_adapters import restoring_strengths
from diffusers_imagen.models.unet import ImagenUNet
from diffusers_imagen.pipelines.lora_files import Metadata, Weights, by_component, check_fit, check_tensors, write_lora
from diffusers_imagen.pipelines.stage_settings import is_number

_logger = logging.getLogger(__name__)
_UNETS = ("unet", "sr_unet_1", "sr_unet_2")


class LoraCascade(LoraBaseMixin):
    """Load, save, weight and merge adapters of all U-Nets of a cascade at once."""

    _lora_loadable_modules = list(_UNETS)  # noqa: RUF012 (the host reads class attributes)
    unet_name = "unet"

    @classmethod
    def lora_state_dict(
        cls, pretrained_model_name_or_path_or_dict: str | os.PathLike[str] | Weights, **kwargs: Any
    ) -> Weights | tuple[Weights, Metadata | None]:
        """Read LoRA weights without loading them into a pipeline.

        Args:
            pretrained_model_name_or_path_or_dict: a folder, a safetensors file, a Hub repository or the weights.
            **kwargs: as Diffusers' loaders take them: `weight_name`, `subfolder`, `revision`, `token`,
                `local_files_only`...; with `return_lora_metadata=True` the configurations are returned too.

        Raises:
            ValueError: a file that is named as none of safetensors.
            OSError: no safetensors file there.
        """
        # Diffusers' loader for any model that has no naming of its own; a second, which only this needs.
        from diffusers.loaders.lora_pipeline import CogVideoXLoraLoaderMixin

        place: Any = pretrained_model_name_or_path_or_dict
        if not isinstance(place, dict):
            adapter_names_in(place, kwargs.get("weight_name"), kwargs.get("subfolder"))
            place = os.fspath(place)
        # Safetensors alone: pickles may run code, and have no header that holds alpha.
        return CogVideoXLoraLoaderMixin.lora_state_dict(place, **kwargs | {"use_safetensors": True})

    def load_lora_weights(
        self,
        pretrained_model_name_or_path_or_dict: str | os.PathLike[str] | Weights,
        adapter_name: str | None = None,
        hotswap: bool = False,
        *,
        component: str = "unet",
        metadata: Metadata | None = None,
        low_cpu_mem_usage: bool = True,
        **kwargs: Any,
    ) -> None:
        """Attach LoRA adapters to the U-Nets that a file has weights for.

        Args:
            pretrained_model_name_or_path_or_dict: a folder, a safetensors file, a Hub repository or the weights.
            adapter_name: for `set_adapters` and its like; `None` for "default_0" or the next such name.
            hotswap: whether to exchange the weights of the adapter of this name in their place.
            component: the U-Net that a file belongs to whose weights are not named by component, such as one that
                `unet.save_lora_adapter` wrote.
            metadata: PEFT's configurations, named as in a file's header, for weights that come without. Where there
                are none, alpha is taken to be the rank.
            low_cpu_mem_usage: whether to skip making weights that are replaced at once.
            **kwargs: as `lora_state_dict` takes them.

        Raises:
            ValueError: weights that fit no U-Net of the pipeline, or a name that is in use, before any is attached.
            OSError: no safetensors file there.
        """
        if component not in _UNETS:
            raise ValueError(f"`component` is {component!r}; it is one of {list(_UNETS)}.")
        if getattr(self, "_disk_offload", None) is not None:
            raise ValueError(
                "LoRA weights are to be loaded before `pipe.enable_model_disk_offload()`, which would not keep them; "
                "call `pipe.remove_all_hooks()` first."
            )
        source = pretrained_model_name_or_path_or_dict
        if isinstance(source, dict):
            check_tensors(source)
        elif not isinstance(source, str | os.PathLike):
            raise ValueError(
                f"The LoRA is {source!r}; give a folder, a safetensors file, a Hub repository or weights by name."
            )
        check_adapter_name(adapter_name)
        read = self.lora_state_dict(source, **kwargs | {"return_lora_metadata": True})
        state_dict, stored = read if isinstance(read, tuple) else (read, None)
        check_tensors(state_dict)
        parts = self._present(by_component(state_dict, _UNETS, component))
        configs = by_component(metadata or stored or {}, _UNETS, component)
        for name, weights in parts.items():
            check_fit(name, weights, self._unpacked(name))
        adapter_name = self._free_name(parts, adapter_name, hotswap)
        loaded = []
        try:
            for name, weights in parts.items():
                model: Any = getattr(self, name)
                loaded.append(model)
                model.load_lora_adapter(
                    weights,
                    prefix=None,
                    hotswap=hotswap,
                    adapter_name=adapter_name,
                    metadata=configs.get(name) or None,
                    low_cpu_mem_usage=low_cpu_mem_usage,
                    _pipeline=self,
                )
        except Exception:
            for model in loaded[:-1] if not hotswap else ():
                model.delete_adapters(adapter_name)
            raise

    @classmethod
    def save_lora_weights(
        cls,
        save_directory: str | os.PathLike[str],
        unet_lora_layers: Weights | None = None,
        sr_unet_1_lora_layers: Weights | None = None,
        sr_unet_2_lora_layers: Weights | None = None,
        is_main_process: bool = True,
        weight_name: str | None = None,
        safe_serialization: bool = True,
        unet_lora_adapter_metadata: Metadata | None = None,
        sr_unet_1_lora_adapter_metadata: Metadata | None = None,
        sr_unet_2_lora_adapter_metadata: Metadata | None = None,
    ) -> None:
        """Save LoRA weights that a training loop has at hand; `save_lora_adapter` saves a pipeline's own.

        Args:
            save_directory: made if it does not exist.
            unet_lora_layers: what PEFT's `get_peft_model_state_dict(pipe.unet)` gives.
            sr_unet_1_lora_layers: likewise.
            sr_unet_2_lora_layers: likewise.
            is_main_process: whether this process writes.
            weight_name: the file's, `None` for "pytorch_lora_weights.safetensors".
            safe_serialization: only `True`: pickles may run code.
            unet_lora_adapter_metadata: `pipe.unet.peft_config[name].to_dict()`, which holds alpha.
            sr_unet_1_lora_adapter_metadata: likewise.
            sr_unet_2_lora_adapter_metadata: likewise.

        Raises:
            ValueError: no weights, or a pickle asked for.
        """
        if not safe_serialization:
            raise ValueError("`safe_serialization` is False, but pickles may run code; leave it out.")
        every = zip(_UNETS, (unet_lora_layers, sr_unet_1_lora_layers, sr_unet_2_lora_layers), strict=True)
        layers = {name: weights for name, weights in every if weights}
        if not layers:
            raise ValueError("There are no weights to save; give `unet_lora_layers` or an enlargement's.")
        configs = (unet_lora_adapter_metadata, sr_unet_1_lora_adapter_metadata, sr_unet_2_lora_adapter_metadata)
        metadata = {name: config for name, config in zip(_UNETS, configs, strict=True) if name in layers}
        for name, config in metadata.items():
            if not config:
                _logger.warning("`%s_lora_adapter_metadata` is missing: alpha will be taken to be the rank.", name)
        if is_main_process:
            write_lora(Path(save_directory), layers, metadata, weight_name)

    def save_lora_adapter(
        self, save_directory: str | os.PathLike[str], adapter_name: str = "default", weight_name: str | None = None
    ) -> None:
        """Save one adapter of all U-Nets that have it, with its rank and alpha, for `load_lora_weights`.

        Args:
            save_directory: made if it does not exist.
            adapter_name: as it was loaded or added.
            weight_name: the file's, `None` for "pytorch_lora_weights.safetensors".

        Raises:
            ValueError: no U-Net has an adapter of this name.
        """
        from peft.utils import get_peft_model_state_dict

        models = {
            name: getattr(self, name) for name, names in self.get_list_adapters().items() if adapter_name in names
        }
        if not models:
            raise ValueError(
                f"`adapter_name` is {adapter_name!r}, but the U-Nets have {self.get_list_adapters() or 'no adapters'}."
            )
        write_lora(
            Path(save_directory),
            {name: get_peft_model_state_dict(model, adapter_name=adapter_name) for name, model in models.items()},
            {name: model.peft_config[adapter_name].to_dict() for name, model in models.items()},
            weight_name,
        )

    def set_adapters(self, adapter_names: list[str] | str, adapter_weights: Any = None) -> None:
        """Turn adapters on, and all others off.

        Args:
            adapter_names: one or several, as they were loaded.
            adapter_weights: strength of all, or of each; by component as Diffusers takes it, and for each by its parts
                as the U-Nets' own method takes it: `{"unet": {"down": 0.5}}`.

        Raises:
            ValueError: no names, one that no U-Net has, a part that a U-Net does not have, or a strength that is no number.
        """
        if not adapter_names:
            raise ValueError(
                "`adapter_names` is empty; name adapters, or call `pipe.disable_lora()` to draw without any."
            )
        check_strengths("adapter_weights", adapter_weights)
        super().set_adapters(adapter_names, adapter_weights)

    def fuse_lora(
        self,
        components: list[str] | None = None,
        lora_scale: float = 1.0,
        safe_fusing: bool = False,
        adapter_names: list[str] | None = None,
    ) -> None:
        """Add adapters to the weights that they belong to, so that drawing costs nothing more.

        Args:
            components: names of U-Nets; `None` for all.
            lora_scale: strength, on top of what `set_adapters` set.
            safe_fusing: whether to leave weights alone that would become NaN.
            adapter_names: which; `None` for those that are active.

        Raises:
            ValueError: a component that has no adapters in this pipeline, or a strength that is no number.
        """
        components = self._fusable(components)
        check_strengths("lora_scale", lora_scale)
        super().fuse_lora(components, lora_scale, safe_fusing, adapter_names)

    def unfuse_lora(self, components: list[str] | None = None) -> None:
        """Take merged adapters out of the weights again, up to rounding; they are as strong as before.

        Args:
            components: names of U-Nets; `None` for all.

        Raises:
            ValueError: a component that has no adapters in this pipeline.
        """
        components = self._fusable(components)
        with ExitStack() as stack:
            for name in components:
                if isinstance(model := getattr(self, name, None), nn.Module):
                    stack.enter_context(restoring_strengths(model))
            super().unfuse_lora(components)

    def delete_adapters(self, adapter_names: list[str] | str) -> None:
        """Remove adapters from all U-Nets that have them.

        Args:
            adapter_names: one or several, as they were loaded.

        Raises:
            ValueError: one that no U-Net has.
        """
        present = {name for names in self.get_list_adapters().values() for name in names}
        for name in [adapter_names] if isinstance(adapter_names, str) else adapter_names:
            if name not in present:
                raise ValueError(
                    f"`adapter_names` holds {name!r}, but the U-Nets have {sorted(present) or 'no adapters'}."
                )
        super().delete_adapters(adapter_names)

    def get_active_adapters(self) -> list[str]:
        """Return the names of the adapters that are on in some U-Net, in the order of the stages."""
        models = [model for name in _UNETS if getattr(model := getattr(self, name), "peft_config", None)]
        return list(dict.fromkeys(name for model in models for name in model.active_adapters()))

    def _present(self, parts: dict[str, Weights]) -> dict[str, Weights]:
        missing = [name for name in parts if getattr(self, name) is None]
        if len(missing) == len(parts):
            raise ValueError(f"The LoRA has weights for {missing}, which this pipeline was loaded without.")
        if missing:
            _logger.warning("The LoRA's weights for %s are left out: the pipeline has no such stages.", missing)
        return {name: parts[name] for name in _UNETS if name in parts and name not in missing}

    def _free_name(self, parts: Mapping[str, Weights], adapter_name: str | None, hotswap: bool) -> str:
        taken = self.get_list_adapters()
        if adapter_name is None:
            used = {name for names in taken.values() for name in names}
            return next(name for number in range(len(used) + 1) if (name := f"default_{number}") not in used)
        for component in parts:
            exists = adapter_name in taken.get(component, ())
            if exists and not hotswap:
                raise ValueError(f"`adapter_name` is {adapter_name!r}, which `{component}` has already; take another.")
            if hotswap and not exists:
                raise ValueError(
                    f"`hotswap` is True, but `{component}` has no adapter named {adapter_name!r} to exchange."
                )
        return adapter_name

    def _fusable(self, components: list[str] | None) -> list[str]:
        names = [name for name in _UNETS if getattr(self, name) is not None]
        for name in components or names:
            if name in names:
                self._unpacked(name)
        return list(components or names)

    def _unpacked(self, name: str) -> Any:
        """Return a U-Net with its weights as PEFT knows them."""
        model = getattr(self, name)
        if isinstance(model, ImagenUNet):
            model.unpack_weights()
        return model


def check_strengths(name: str, strengths: Any) -> None:
    """Refuse strengths that are no finite numbers.

    Args:
        name: the argument's.
        strengths: one for all, a list with one for each adapter, or either of them by component; `None` for 1.

    Raises:
        ValueError: naming the argument and the value.
    """
    if isinstance(strengths, Mapping):
        strengths = list(strengths.values())
    if isinstance(strengths, list | tuple):
        for strength in strengths:
            check_strengths(name, strength)
    elif strengths is not None and not is_number(strengths):
        raise ValueError(
            f"`{name}` holds {strengths!r}; give finite numbers, which may differ by adapter and by U-Net."
        )


def check_attention_kwargs(cross_attention_kwargs: Mapping[str, Any] | None) -> None:
    """Refuse what `cross_attention_kwargs` does not know.

    Raises:
        ValueError: something else than `{"scale": number}`.
    """
    known = cross_attention_kwargs is None or (
        isinstance(cross_attention_kwargs, Mapping)
        and set(cross_attention_kwargs) <= {"scale"}
        and all(is_number(value) for value in cross_attention_kwargs.values())
    )
    if not known:
        raise ValueError(
            f"`cross_attention_kwargs` is {cross_attention_kwargs!r}; it is None or {{'scale': a number}}, the strength "
            "of LoRA adapters in this call."
        )


@contextmanager
def scaled_adapters(model: nn.Module, cross_attention_kwargs: Mapping[str, Any] | None) -> Iterator[None]:
    """Multiply the strength of a model's active adapters for a while.

    Args:
        model: with adapters or without.
        cross_attention_kwargs: `{"scale": number}`, as other pipelines take it.
    """
    scale = (cross_attention_kwargs or {}).get("scale", 1.0)
    if scale == 1.0 or not getattr(model, "peft_config", None):
        yield
        return
    from peft.tuners.tuners_utils import BaseTunerLayer

    layers: list[Any] = [layer for layer in model.modules() if isinstance(layer, BaseTunerLayer)]
    before = [dict(layer.scaling) for layer in layers]
    for layer in layers:
        layer.scale_layer(scale)
    try:
        yield
    finally:
        for layer, scaling in zip(layers, before, strict=True):
            layer.scaling.update(scaling)
