# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""Write safetensors files tensor by tensor, so that a model need not be in memory to be written.

`safetensors.torch.save_file` wants all tensors of a file at once. Called by `deepfloyd_files.py`.
"""

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

DTYPES: Mapping[torch.dtype, str] = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
}
"""The types that weights may have, by the names that the format gives them."""

_STEM = "diffusion_pytorch_model"


@dataclass(frozen=True)
class WeightFile:
    """A weight that will be written: its name, shape and type."""

    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype

    @property
    def size(self) -> int:
        """Bytes that it takes."""
        return math.prod(self.shape) * self.dtype.itemsize


def write_weights(
    folder: Path, weights: list[WeightFile], tensors: Iterable[tuple[str, Tensor]], max_shard_size: int
) -> list[str]:
    """Write a model's weights as Diffusers has them, in one file or in several with an index.

    Args:
        folder: where to.
        weights: what will come, in its order.
        tensors: the weights by name; each is let go before the next is asked for.
        max_shard_size: bytes of a file; a larger weight has a file of its own.

    Returns:
        Names of the files of weights.

    Raises:
        ValueError: tensors that are not those of `weights`, in their order.
    """
    shards: list[list[WeightFile]] = [[]]
    for weight in weights:
        if shards[-1] and sum(item.size for item in shards[-1]) + weight.size > max_shard_size:
            shards.append([])
        shards[-1].append(weight)
    count = len(shards)
    names = [f"{_STEM}-{number:05d}-of-{count:05d}.safetensors" for number in range(1, count + 1)]
    names = [f"{_STEM}.safetensors"] if count == 1 else names
    coming = iter(tensors)
    for name, shard in zip(names, shards, strict=True):
        _write_shard(folder / name, shard, coming)
    if count > 1:
        index = {
            "metadata": {"total_size": sum(weight.size for weight in weights)},
            "weight_map": {weight.name: name for name, shard in zip(names, shards, strict=True) for weight in shard},
        }
        (folder / f"{_STEM}.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
    return names


def _write_shard(path: Path, weights: list[WeightFile], tensors: Iterable[tuple[str, Tensor]]) -> None:
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    start = 0
    for weight in weights:
        place = [start, start + weight.size]
        header[weight.name] = {"dtype": DTYPES[weight.dtype], "shape": list(weight.shape), "data_offsets": place}
        start = place[1]
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with path.open("xb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for weight, (name, tensor) in zip(weights, tensors, strict=False):
            if (weight.name, weight.shape, weight.dtype) != (name, tuple(tensor.shape), tensor.dtype):
                raise ValueError(
                    f"{name!r} comes as {tuple(tensor.shape)}, {tensor.dtype}, but {weight} was announced."
                )
            file.write(tensor.detach().contiguous().view(torch.uint8).numpy().data)
        if file.tell() != 8 + len(text) + start:
            raise ValueError(f"{path.name!r} got fewer weights than were announced.")
