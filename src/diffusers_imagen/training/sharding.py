# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""Spread a model's weights over processes (FSDP2), and put tensors together and apart again for files.

Only PyTorch's `fully_shard` and its DTensors are known here; whether a run is sharded is decided in `strategy.py`. Called
by the training loop and its state.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor


def shard(model: nn.Module, mesh: DeviceMesh) -> None:
    """Spread a model's weights over the processes of a mesh, block by block, in place.

    Each process keeps a part of the first axis of every weight. A block's weights are put together for its forward and
    its backward pass, and given back after each. What asks for no gradient is spread as well.

    Args:
        model: A U-Net, the same in all processes; its class says in `_repeated_blocks` what its blocks are.
        mesh: Of one axis.
    """
    # Only these can be cut: other memory layouts are given up.
    model.to(memory_format=torch.contiguous_format)
    names = getattr(model, "_repeated_blocks", None) or ()
    for module in list(model.modules()):
        if type(module).__name__ in names:
            fully_shard(module, mesh=mesh, reshard_after_forward=True)
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


def whole(tensor: Tensor) -> Tensor:
    """Put one tensor together where it is spread; all processes must call this then."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def gather(tensors: Mapping[str, Tensor], keep: bool = True) -> dict[str, Tensor]:
    """Put spread tensors together, one after the other; whole ones are passed on.

    Args:
        tensors: The same names in all processes, each of which must call this.
        keep: Whether this process wants them; the others only send their parts.

    Returns:
        Whole tensors, those that were spread on the CPU; nothing without `keep`.
    """
    found: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        together = whole(tensor)
        if keep:
            found[name] = together.cpu() if isinstance(tensor, DTensor) else together
    return found


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
