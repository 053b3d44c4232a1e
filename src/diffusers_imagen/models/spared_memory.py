# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""Diffusers' ways of keeping a U-Net's weights out of memory, without what goes wrong in them silently or late.

Base class of the U-Nets; the pipeline, which offloads all models at once, calls `new_folder` and
`untie_weights` for each.
"""

import os
import tempfile
from pathlib import Path

import torch
from diffusers.models.modeling_utils import ModelMixin
from torch import nn

_TAKEN = ".taken"  # Two processes may be given one folder at the same time.


class SparingModel(ModelMixin):
    """A model of Diffusers whose groups on disk are its own, and whose eight bits fit the precision that it has."""

    def enable_group_offload(
        self,
        onload_device: torch.device,
        offload_device: torch.device = torch.device("cpu"),  # noqa: B008 (Diffusers' own default)
        offload_type: str = "block_level",
        num_blocks_per_group: int | None = None,
        non_blocking: bool = False,
        use_stream: bool = False,
        record_stream: bool = False,
        low_cpu_mem_usage: bool = False,
        offload_to_disk_path: str | os.PathLike[str] | None = None,
        block_modules: list[str] | None = None,
        exclude_kwargs: list[str] | None = None,
    ) -> None:
        """Keep weights elsewhere and bring them in group by group.

        Args:
            onload_device: as `ModelMixin.enable_group_offload` takes it, like all that follow.
            offload_device: likewise.
            offload_type: likewise.
            num_blocks_per_group: likewise.
            non_blocking: likewise.
            use_stream: likewise.
            record_stream: likewise.
            low_cpu_mem_usage: likewise.
            offload_to_disk_path: likewise; where another model's files are, these go into a new folder beside them.
            block_modules: likewise.
            exclude_kwargs: likewise.
        """
        if offload_to_disk_path is not None:
            offload_to_disk_path = unshared_folder(offload_to_disk_path, type(self).__name__)
        super().enable_group_offload(
            onload_device,
            offload_device=offload_device,
            offload_type=offload_type,
            num_blocks_per_group=num_blocks_per_group,
            non_blocking=non_blocking,
            use_stream=use_stream,
            record_stream=record_stream,
            low_cpu_mem_usage=low_cpu_mem_usage,
            offload_to_disk_path=offload_to_disk_path,
            block_modules=block_modules,
            exclude_kwargs=exclude_kwargs,
        )

    def enable_layerwise_casting(
        self,
        storage_dtype: torch.dtype = torch.float8_e4m3fn,
        compute_dtype: torch.dtype | None = None,
        skip_modules_pattern: tuple[str, ...] | None = None,
        skip_modules_classes: tuple[type[nn.Module], ...] | None = None,
        non_blocking: bool = False,
    ) -> None:
        """Store weights in fewer bits than they are computed with.

        Args:
            storage_dtype: as `ModelMixin.enable_layerwise_casting` takes it, like all that follow.
            compute_dtype: likewise; `None` for the model's own. Some layers are not cast, so it is the model's own.
            skip_modules_pattern: likewise.
            skip_modules_classes: likewise.
            non_blocking: likewise.

        Raises:
            ValueError: another `compute_dtype` than the model's.
        """
        compute_dtype = self.dtype if compute_dtype is None else compute_dtype
        found = {weight.dtype for weight in self.parameters() if weight.is_floating_point() and weight.itemsize > 1}
        if found - {compute_dtype}:
            raise ValueError(
                f"`compute_dtype` is {compute_dtype}, but this {type(self).__name__} is in "
                f"{', '.join(sorted(map(str, found)))}, as the layers that are not cast stay; call "
                f"`.to({compute_dtype})` first."
            )
        super().enable_layerwise_casting(
            storage_dtype, compute_dtype, skip_modules_pattern, skip_modules_classes, non_blocking
        )


def unshared_folder(folder: str | os.PathLike[str], name: str) -> str:
    """Return a folder for one model's groups: the given one if nothing has used it yet, or else a new one in it.

    Diffusers names the files after layers alone, and takes one that is there already for this model's.

    Args:
        folder: made if it does not exist.
        name: what a new folder's name begins with.
    """
    place = Path(folder)
    place.mkdir(parents=True, exist_ok=True)
    try:
        (place / _TAKEN).touch(exist_ok=False)
        free = not any(place.glob("*.safetensors"))
    except FileExistsError:
        free = False
    return os.fspath(place) if free else new_folder(place, name)


def new_folder(folder: str | os.PathLike[str], name: str) -> str:
    """Make a folder in another, which is made if it does not exist, and return its path.

    Args:
        folder: the other one.
        name: what its name begins with.
    """
    Path(folder).mkdir(parents=True, exist_ok=True)
    return tempfile.mkdtemp(prefix=f"{name}-", dir=folder)


def untie_weights(model: nn.Module) -> None:
    """Give each layer that shares weights with another a copy of its own.

    Diffusers writes the groups of a model one after the other, and empties each: a shared weight of a later group would
    be written empty.

    Args:
        model: a text encoder, such as T5, whose word embeddings have two names.
    """
    seen: set[int] = set()
    for layer in model.modules():
        for name, weight in list(layer.named_parameters(recurse=False)):
            if id(weight) in seen:
                setattr(layer, name, nn.Parameter(weight.detach().clone(), requires_grad=weight.requires_grad))
            seen.add(id(weight))
