# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""Spread a model's weights over processes (FSDP2), and put tensors together and apart again for files.

Only PyTorch's `fully_shard` and its DTensors are known here; whether a run is sharded is decided in `strategy.py`. Called
by the training loop and its state.
"""

import warnings
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.distributed import all_gather
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, Shard, distribute_tensor

from diffusers_imagen.models.repeated_blocks import repeated_blocks

# Elements that are sent at once.
_MESSAGE = 2**26


def shard(model: nn.Module, mesh: DeviceMesh) -> None:
    """Spread a model's weights over the processes of a mesh, block by block, in place.

    Each process keeps a part of the first axis of every weight. A block's weights are put together for its forward and
    its backward pass, and given back after each. What asks for no gradient is spread as well.

    Args:
        model: A U-Net, the same in all processes; it may be on the CPU still, and ends up on the mesh's device.
        mesh: Of one axis.
    """
    # Only these can be cut: other memory layouts are given up.
    for weight in model.parameters():
        weight.data = weight.data.contiguous()
    # Views are returned by some blocks, and nothing is changed in place after them.
    warnings.filterwarnings("ignore", message="FSDP2-wrapped module .* returned a view tensor")
    for block in repeated_blocks(model):
        fully_shard(block, mesh=mesh, reshard_after_forward=True)
    # By default the outermost part would keep its weights whole after a pass without a backward one, unseen by averages.
    fully_shard(model, mesh=mesh, reshard_after_forward=True)


def is_sharded(model: nn.Module) -> bool:
    """Tell whether any weight of a model is spread over processes."""
    return any(isinstance(weight, DTensor) for weight in model.parameters())


def check_sharded(model: nn.Module, processes: int) -> None:
    """Refuse a model that is not spread over exactly so many processes.

    Args:
        model: The model.
        processes: Number of processes that train together.

    Raises:
        ValueError: If a weight is whole, or is spread over another number of processes; the message names it.
    """
    for name, weight in model.named_parameters():
        found = weight.device_mesh.size() if isinstance(weight, DTensor) else 1
        if found != processes:
            raise ValueError(
                f"`strategy` is 'fsdp' with {processes} processes, but the weight {name} is spread over {found}; choose "
                "'ddp', or start all processes with one launcher."
            )


def own_part(tensor: Tensor) -> Tensor:
    """Give what this process has of a tensor, all of it if it is not spread; both share their memory."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def whole(tensor: Tensor) -> Tensor:
    """Put one tensor together where it is spread; all processes must call this then."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def gather(tensors: Mapping[str, Tensor], keep: bool = True) -> dict[str, Tensor]:
    """Put spread tensors together; whole ones are passed on.

    Args:
        tensors: The same names in all processes, each of which must call this.
        keep: Whether this process wants them; the others only send their parts.

    Returns:
        Whole tensors, those that were spread on the CPU; nothing without `keep`.
    """
    found: dict[str, Tensor] = {}
    some: dict[str, DTensor] = {}
    size = 0
    for name, tensor in tensors.items():
        if not isinstance(tensor, DTensor) or tensor.placements != (Shard(0),):
            found[name] = whole(tensor)
        else:
            some[name] = tensor
            size += tensor.numel()
            # Many small tensors in one message, but never a whole model on one GPU.
            if size >= _MESSAGE:
                found |= _gather_at_once(some, keep)
                some, size = {}, 0
    found |= _gather_at_once(some, keep)
    return {name: found[name] for name in tensors} if keep else {}


def _gather_at_once(tensors: Mapping[str, DTensor], keep: bool) -> dict[str, Tensor]:
    """Put tensors together that are of one type and spread along their first axis."""
    if not tensors:
        return {}
    mesh = next(iter(tensors.values())).device_mesh
    processes = mesh.size()
    # As `torch.chunk` cuts: all parts but the last ones have this many rows.
    rows = {name: -(-tensor.shape[0] // processes) for name, tensor in tensors.items()}
    parts = []
    for name, tensor in tensors.items():
        part = tensor.to_local()
        parts.append(torch.cat([part, part.new_zeros(rows[name] - part.shape[0], *part.shape[1:])]).flatten())
    mine = torch.cat(parts)
    received = [torch.empty_like(mine) for _ in range(processes)]
    all_gather(received, mine, group=mesh.get_group())
    if not keep:
        return {}
    columns = torch.stack([theirs.cpu() for theirs in received]).split([len(part) for part in parts], dim=1)
    return {
        name: column.reshape(-1, *tensor.shape[1:])[: tensor.shape[0]].contiguous()
        for (name, tensor), column in zip(tensors.items(), columns, strict=True)
    }


def spread_like(own: Tensor, tensor: Tensor) -> Tensor:
    """Give this process's part of a whole tensor, on the device and in the way in which another one is spread.

    Args:
        own: A tensor of the same shape, spread or not; if it is whole, so is the result.
        tensor: Whole, and the same in all processes, none of which sends anything.
    """
    if not isinstance(own, DTensor):
        return tensor
    return distribute_tensor(tensor.to(own.device), own.device_mesh, own.placements, src_data_rank=None)


def load_whole(model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Load whole tensors into a model that may be spread.

    Args:
        model: The model.
        tensors: A state dict of whole or already spread tensors, the same in all processes.

    Raises:
        RuntimeError: As `load_state_dict`.
    """
    own = model.state_dict()
    model.load_state_dict(
        {
            name: spread_like(own[name], tensor)
            if name in own and tensor.shape == own[name].shape and not isinstance(tensor, DTensor)
            else tensor
            for name, tensor in tensors.items()
        }
    )
