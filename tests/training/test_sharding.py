"""What two processes have of a model between them, against what one has of it."""

import math
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.distributed import FileStore, destroy_process_group, init_process_group
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Replicate

from diffusers_imagen.models.repeated_blocks import repeated_blocks
from diffusers_imagen.training import sharding as module
from diffusers_imagen.training.config import TrainConfig
from diffusers_imagen.training.memory import estimate_memory
from diffusers_imagen.training.sharding import (
    check_sharded,
    gather,
    is_sharded,
    load_whole,
    own_part,
    shard,
    spread_like,
    whole,
)
from diffusers_imagen.training.state import describe_unet


class TwoLayers(nn.Module):
    """Weights whose first axes are even, odd and 1, of which one process has nothing."""

    _repeated_blocks = ("Linear",)

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Linear(3, 4)
        self.second = nn.Linear(4, 3)
        self.third = nn.Conv2d(2, 1, 3).to(memory_format=torch.channels_last)
        self.register_buffer("mean", torch.tensor([0.5]))


def in_two_processes(folder: Path, work: Callable[[int], None]) -> None:
    """Fork two processes that do some work together, and see that both get through it."""
    children = []
    for rank in range(2):
        child = os.fork()
        if child == 0:
            code = 1
            try:
                init_process_group("gloo", store=FileStore(str(folder / "store"), 2), rank=rank, world_size=2)
                work(rank)
                destroy_process_group()
                code = 0
            finally:
                os._exit(code)
        children.append(child)
    assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children] == [0, 0]


@pytest.mark.parametrize("message", [1, 2**26])
def test_spread_weights_come_together_as_they_were(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, message: int
) -> None:
    monkeypatch.setattr(module, "_MESSAGE", message)

    def work(rank: int) -> None:
        original, model, other = TwoLayers().state_dict(), TwoLayers(), TwoLayers()
        for weight in other.parameters():
            nn.init.zeros_(weight)
        mesh = init_device_mesh("cpu", (2,))
        for spread in (model, other):
            shard(spread, mesh)
            check_sharded(spread, 2)
        assert is_sharded(model)
        assert own_part(model.second.weight).shape == ((2, 4), (1, 4))[rank]
        assert own_part(model.third.bias).shape == ((1,), (0,))[rank]
        together = gather(model.state_dict(), keep=rank == 0)
        assert list(together) == (list(original) if rank == 0 else [])
        assert all(torch.equal(tensor, original[name]) for name, tensor in together.items())
        load_whole(other, original)
        assert all(torch.equal(whole(tensor), original[name]) for name, tensor in other.state_dict().items())
        part = spread_like(model.second.weight, original["second.weight"])
        assert torch.equal(part.to_local(), model.second.weight.to_local())
        with pytest.raises(ValueError, match=r"3 processes, but the weight first\.weight is spread over 2"):
            check_sharded(model, 3)
        # Cut in another way than by rows, it must not be taken for rows.
        copies = gather({"a": DTensor.from_local(torch.ones(3), mesh, [Replicate()])})
        assert torch.equal(copies["a"], torch.ones(3))

    in_two_processes(tmp_path, work)


def test_whole_model_is_not_taken_for_a_spread_one() -> None:
    model = TwoLayers()
    assert not is_sharded(model)
    assert repeated_blocks(model) == [model.first, model.second]
    assert gather({"mean": model.mean})["mean"] is model.mean
    with pytest.raises(ValueError, match=r"2 processes, but the weight first\.weight is spread over 1"):
        check_sharded(model, 2)


def test_memory_of_a_part_is_a_share_and_one_block(make_config: Callable[..., TrainConfig]) -> None:
    config = make_config()
    unet = describe_unet(config.model)
    alone = estimate_memory(unet, config, 16)
    spread = estimate_memory(unet, config, 16, processes=4, strategy="fsdp")
    assert spread.optimizer == alone.optimizer // 4
    assert math.isclose(spread.averages, alone.averages / 4, rel_tol=1e-3)
    assert alone.weights / 4 < spread.weights < alone.weights
    assert spread.activations == alone.activations
