"""What the tests of the pipeline watch: the calls that reach the models."""

import copy
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from peft import LoraConfig

from diffusers_imagen.pipelines.pipeline_imagen_cascade import ImagenCascadePipeline

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


@pytest.fixture
def lora_config() -> Callable[..., LoraConfig]:
    """Give a function that describes an adapter of rank 2, whose weights the seed decides."""

    def make(seed: int, alpha: int = 8) -> LoraConfig:
        torch.manual_seed(seed)
        targets = ["to_q", "to_k", "to_v", "to_out.0", "add_k_proj", "add_v_proj"]
        return LoraConfig(r=2, lora_alpha=alpha, target_modules=targets, init_lora_weights=False)

    return make


@pytest.fixture
def fresh(make_cascade, cascade_parts):
    """Give a function that makes a cascade whose U-Nets are its own."""

    def make(stages: int = 2) -> ImagenCascadePipeline:
        names = ["unet", *(f"sr_unet_{number}" for number in range(1, stages))]
        return make_cascade(stages, **{name: copy.deepcopy(cascade_parts[name]) for name in names})

    return make


@pytest.fixture
def adapted(fresh, lora_config) -> ImagenCascadePipeline:
    """Give a cascade with an adapter "style" on both U-Nets, of alpha 8 and rank 2, and "line" on the base."""
    pipe = fresh()
    pipe.unet.add_adapter(lora_config(1), "style")
    pipe.sr_unet_1.add_adapter(lora_config(2), "style")
    pipe.unet.add_adapter(lora_config(3, alpha=2), "line")
    pipe.set_adapters("style")
    return pipe
