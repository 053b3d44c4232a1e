# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""Models whose weights stay in files until they run, so that a cascade takes the memory of one model at a time.

Accelerate's hook, as `enable_model_cpu_offload` uses it, with files instead of the CPU's memory. Away, weights are
mapped from their file: real tensors that take no memory until they are read, so a model that is away can still be
saved, inspected or moved. Called by the pipeline.
"""

from collections.abc import Iterator, Mapping
from itertools import count
from pathlib import Path
from typing import Any

import torch
from accelerate.hooks import ModelHook, add_hook_to_module
from accelerate.utils import send_to_device
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from diffusers_imagen.models.unet import ImagenUNet
from diffusers_imagen.pipelines.weights import ALIGNMENT


class DiskOffload:
    """The models of a pipeline that take turns in memory.

    Args:
        models: by component name, all their weights in memory or mapped.
        folder: for the weights that are in no file yet, as they are: those that were converted, trained or made anew.
        device: where models run.

    Raises:
        ValueError: a model whose weights are elsewhere already.
    """

    def __init__(self, models: Mapping[str, nn.Module], folder: Path, device: torch.device) -> None:
        for name, model in models.items():
            if isinstance(model, ImagenUNet):
                model.unpack_weights()
            if any(weight.device.type == "meta" for _, weight in _weights(model)):
                raise ValueError(
                    f"The weights of `{name}` are offloaded already; undo that first, with `pipe.reset_device_map()` or "
                    "by loading the pipeline without offloading."
                )
        self._hooks: list[DiskOffloadHook] = []
        for name, model in models.items():
            self._hooks.append(DiskOffloadHook(name, folder, device, self))
            add_hook_to_module(model, self._hooks[-1])

    def release(self, but: "DiskOffloadHook | None" = None) -> None:
        """Take every model out of memory, but for one."""
        for hook in self._hooks:
            if hook is not but:
                hook.leave()

    def forget(self, hook: "DiskOffloadHook") -> None:
        """Leave a model where it is from now on."""
        self._hooks.remove(hook)


class DiskOffloadHook(ModelHook):
    """Brings a model's weights into memory before its forward pass and takes them out when another model runs."""

    def __init__(self, name: str, folder: Path, device: torch.device, group: DiskOffload) -> None:
        self.execution_device = device  # read by Diffusers to place noise and text states
        self._folder = folder
        self._group = group
        self._new_files = (folder / f"{name}-{number}.safetensors" for number in count())
        self._files: dict[str, Path] = {}
        self._strides: dict[str, tuple[int, ...]] = {}
        self._model: nn.Module | None = None
        self._in_memory = True

    def init_hook(self, module: nn.Module) -> nn.Module:
        """Find the weights in the files that the model was loaded from, write the others, and map all of them."""
        self._model = module
        self._files = dict(_files_with(module))
        self.leave()
        return module

    def pre_forward(self, module: nn.Module, *args: Any, **kwargs: Any) -> tuple[Any, Any]:
        """Bring the weights in, after all others have left, and the inputs to the same device."""
        if not self._in_memory:
            self._group.release(but=self)
            self.bring_in()
        return send_to_device(args, self.execution_device), send_to_device(kwargs, self.execution_device)

    def detach_hook(self, module: nn.Module) -> nn.Module:
        """Bring the weights in for good, each in memory of its own."""
        self.bring_in()
        for _, weight in _weights(module):
            weight.data = weight.data.clone()
        self._group.forget(self)
        return module

    def bring_in(self) -> None:
        """Copy the weights from their files to the device, laid out as they were."""
        if self._in_memory:
            return
        # One block for all: a heap of small ones would not go back to the system when the model leaves.
        sizes = [-(-weight.nbytes // ALIGNMENT) * ALIGNMENT for _, weight in _weights(self._model)]
        block = torch.empty(sum(sizes), dtype=torch.uint8, device=self.execution_device)
        for (name, weight), place in zip(_weights(self._model), block.split(sizes), strict=True):
            copy = place[: weight.nbytes].view(weight.dtype)
            weight.data = copy.as_strided(weight.shape, self._strides[name]).copy_(weight.data)
        self._in_memory = True

    def leave(self) -> None:
        """Put the files' weights in place of those in memory, writing those that no file holds in this form."""
        if not self._in_memory:
            return
        new = {name: weight for name, weight in _weights(self._model) if not self._is_in_file(name, weight)}
        if new:
            path = next(self._new_files)
            self._folder.mkdir(parents=True, exist_ok=True)
            save_file({name: weight.detach().cpu().contiguous() for name, weight in new.items()}, path)
            self._files |= dict.fromkeys(new, path)
        for name, weight in _weights(self._model):
            self._strides[name] = weight.stride()
            weight.data = _mapped(self._files[name], name)
        self._in_memory = False

    def _is_in_file(self, name: str, weight: Tensor) -> bool:
        if name not in self._files:
            return False
        stored = _mapped(self._files[name], name)
        return stored.dtype == weight.dtype and stored.shape == weight.shape


def _weights(model: nn.Module | None) -> Iterator[tuple[str, Tensor]]:
    """Walk through parameters and buffers, each of them once however often it is tied."""
    if model is not None:
        yield from model.named_parameters()
        yield from model.named_buffers()


def _mapped(path: Path, name: str) -> Tensor:
    """Return one weight in a mapping of its own, which ends with it: reading one leaves nothing of the others behind."""
    with safe_open(path, framework="pt") as file:
        return file.get_tensor(name)


def _files_with(model: Any) -> Iterator[tuple[str, Path]]:
    """Yield the weights that the files hold from which a model was loaded, as they are now, and those files."""
    source = model.name_or_path if hasattr(model, "name_or_path") else model.config.get("_name_or_path", "")
    weights = dict(_weights(model))
    for path in sorted(Path(source).glob("*.safetensors")) if source else ():
        with safe_open(path, framework="pt") as file:
            names = weights.keys() & set(file.keys())
        for name in names:
            stored = _mapped(path, name)
            if stored.dtype == weights[name].dtype and torch.equal(stored, weights[name].cpu()):
                del weights[name]
                yield name, path
