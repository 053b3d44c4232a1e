"""What the tests of the pipeline watch: the calls that reach the models."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

Calls = list[tuple[str, dict[str, Any]]]


@pytest.fixture
def record_calls() -> Iterator[Callable[..., Calls]]:
    """Give a function that begins to record which models of a pipeline are called, and with what."""
    handles = []

    def record(pipe: Any) -> Calls:
        calls: Calls = []

        def hook(name: str, arguments: tuple[str, ...]) -> Callable[..., None]:
            def note(_: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
                calls.append((name, dict(zip(arguments, args, strict=False)) | kwargs))

            return note

        for name, model in pipe.components.items():
            if isinstance(model, torch.nn.Module):
                arguments = ("sample", "timestep", "encoder_hidden_states") if "unet" in name else ("input_ids",)
                handles.append(model.register_forward_pre_hook(hook(name, arguments), with_kwargs=True))
        return calls

    yield record
    for handle in handles:
        handle.remove()
