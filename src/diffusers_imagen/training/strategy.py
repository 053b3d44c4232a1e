# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""Start Accelerate, give it what is trained, and make sure that what was asked for is what is in force.

Launchers ask through environment variables, and Accelerate falls back without a word where it cannot do what they say:
two processes that do not know of each other would train the same stage into one folder, and FSDP on CPUs would be DDP.
How weights are spread is in `sharding.py`. Called by the training loop and the dry run.
"""

import importlib.util
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, TypeVar

import torch
from accelerate import Accelerator
from accelerate.utils import GradientAccumulationPlugin, disable_fsdp_ram_efficient_loading
from diffusers import ModelMixin
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.nn.parallel import DistributedDataParallel

from diffusers_imagen.training.config import TrainConfig
from diffusers_imagen.training.optimizers import make_optimizer
from diffusers_imagen.training.run_folder import TRACKERS
from diffusers_imagen.training.sharding import check_sharded, shard
from diffusers_imagen.training.trackers import tracker_names
from diffusers_imagen.training.updates import AccelerateUpdates, Updates
from diffusers_imagen.training.zero import start_zero

Strategy = Literal["ddp", "fsdp", "deepspeed"]
Model = TypeVar("Model", bound=ModelMixin)

# Environment variables by which `accelerate launch` asks for what.
_LAUNCHED: dict[Strategy, str] = {"fsdp": "ACCELERATE_USE_FSDP", "deepspeed": "ACCELERATE_USE_DEEPSPEED"}
_NAMES: dict[Strategy, str] = {"fsdp": "FSDP", "deepspeed": "DeepSpeed"}
_ZERO_STAGE = "ACCELERATE_DEEPSPEED_ZERO_STAGE"
# Options of DeepSpeed: the values that can be, and what to do about others.
_ZERO_OPTIONS = {
    _ZERO_STAGE: (("1", "2"), "give --zero_stage 1 or 2; what 3 does `strategy: fsdp` does"),
    "ACCELERATE_DEEPSPEED_OFFLOAD_OPTIMIZER_DEVICE": (("none",), "leave out offload_optimizer_device"),
    "ACCELERATE_DEEPSPEED_OFFLOAD_PARAM_DEVICE": (("none",), "leave out offload_param_device"),
    "ACCELERATE_DEEPSPEED_CONFIG_FILE": (
        ("none",),
        "leave out deepspeed_config_file; the run's configuration says it all",
    ),
}
# Options of FSDP: the values that are in force anyway, and what to do about another one.
_FSDP_OPTIONS = {
    "FSDP_VERSION": (("2",), "give --fsdp_version 2 (fsdp_version of fsdp_config); version 1 is not supported"),
    "FSDP_OFFLOAD_PARAMS": (("false",), "leave out fsdp_offload_params"),
    "FSDP_RESHARD_AFTER_FORWARD": (("true",), "set fsdp_reshard_after_forward to true"),
    "FSDP_ACTIVATION_CHECKPOINTING": (("false",), "set `model.gradient_checkpointing` of the run instead"),
}
# What they keep of a weight is no tensor of its shape, or is computed from more than one number of it.
_WHOLE_WEIGHTS = ("Adafactor", "Muon", "LBFGS")


def make_accelerator(config: TrainConfig) -> Accelerator:
    """Start Accelerate for a run.

    Args:
        config: Of the run.

    Raises:
        ValueError: If fewer or more processes train together than were asked for, the launcher asks for a precision or a
            strategy that this run does not have, or there is no such precision here.
    """
    _check_environment(config)
    strategy = strategy_of(config)
    if strategy != "ddp":
        _check_shared(config, strategy)
    if strategy == "fsdp" and _is_set(_LAUNCHED["fsdp"]):
        # Else Transformers would leave the text encoder of all processes but one empty.
        disable_fsdp_ram_efficient_loading()
    with _without(_LAUNCHED["deepspeed"]):
        accelerator = Accelerator(
            mixed_precision=config.precision,
            # Steps are counted by the run; an epoch's end must not cut one short.
            gradient_accumulation_plugin=GradientAccumulationPlugin(
                num_steps=config.gradient_accumulation_steps, sync_with_dataloader=False
            ),
            log_with=tracker_names(config) or None,
            project_dir=Path(config.output_dir) / TRACKERS,
        )
    _check_processes(config, accelerator.num_processes)
    if config.precision == "fp16" and accelerator.device.type == "cpu":
        raise ValueError("`precision` is 'fp16', but a CPU trains in bf16 or in full precision; give bf16 or no.")
    return accelerator


def strategy_of(config: TrainConfig) -> Strategy:
    """Tell how several processes share a run, as its configuration or its launcher asks.

    Args:
        config: Of the run.

    Raises:
        ValueError: If the two do not ask for the same.
    """
    launched = next((strategy for strategy, variable in _LAUNCHED.items() if _is_set(variable)), None)
    if config.strategy == "auto":
        return launched or "ddp"
    if launched is not None and config.strategy != launched:
        raise ValueError(
            f"`strategy` is {config.strategy!r}, but the launcher was told to use {_NAMES[launched]} "
            f"({_LAUNCHED[launched]}); say the same in both places."
        )
    return config.strategy


def place(unet: Model, config: TrainConfig, accelerator: Accelerator) -> Model:
    """Put a U-Net where its averages are made: on the GPU, unless it is only to have a part of it there.

    Args:
        unet: New, on the CPU.
        config: Of the run.
        accelerator: Of `make_accelerator`.
    """
    strategy = strategy_of(config)
    unet = unet.to("cpu" if strategy == "fsdp" else accelerator.device)
    # What is spread is made flat, so it would lie in one way and the averages in another.
    return unet.to(memory_format=torch.channels_last) if config.channels_last and strategy == "ddp" else unet


def prepare(unet: nn.Module, averages: Sequence[nn.Module], config: TrainConfig, accelerator: Accelerator) -> Updates:
    """Make the optimizer, and set up model, averages and optimizer for the run's processes.

    With FSDP the weights are spread here and not by Accelerate, in one way on GPUs and on CPUs, where Accelerate would
    train with DDP. What is computed is the same: the precision is that of autocast.

    Args:
        unet: The U-Net, of `place`; with FSDP changed in place.
        averages: Its averages as models, changed in place likewise.
        config: Of the run.
        accelerator: Of `make_accelerator`.

    Returns:
        What updates its trained parameters, with the U-Net wrapped for training.

    Raises:
        ValueError: If there is no such optimizer, or the strategy that was asked for is not the one in force.
    """
    processes, strategy = accelerator.num_processes, strategy_of(config)
    longest = config.optimizer.max_grad_norm
    if strategy == "ddp":
        wrapped, optimizer = accelerator.prepare(unet, make_optimizer(unet, config.optimizer))
        if processes > 1 and not isinstance(wrapped, DistributedDataParallel):
            raise ValueError(
                f"`strategy` is {config.strategy!r}, which is DDP here, but Accelerate made a {type(wrapped).__name__} "
                f"for {processes} processes; start them with torchrun."
            )
        return AccelerateUpdates(accelerator, wrapped, unet, optimizer, longest)
    if strategy == "deepspeed":
        optimizer, stage = make_optimizer(unet, config.optimizer), int(os.environ.get(_ZERO_STAGE, "2"))
        # Puts the run's precision around the forward pass; what is trained would be wrapped in DDP.
        wrapped = accelerator.prepare_model(unet, evaluation_mode=True)
        return start_zero(wrapped, optimizer, config, stage, accelerator.device)
    mesh = init_device_mesh(accelerator.device.type, (processes,))
    for model in (*averages, unet):
        shard(model, mesh)
        check_sharded(model, processes)
    optimizer = accelerator.prepare_optimizer(make_optimizer(unet, config.optimizer))
    wrapped = accelerator.prepare_model(unet, evaluation_mode=True)
    return AccelerateUpdates(accelerator, wrapped, unet, optimizer, longest)


@contextmanager
def _without(variable: str) -> Iterator[None]:
    """Hide an environment variable."""
    value = os.environ.pop(variable, None)
    try:
        yield
    finally:
        if value is not None:
            os.environ[variable] = value


def _check_environment(config: TrainConfig) -> None:
    if _is_set("ACCELERATE_USE_MEGATRON_LM"):
        raise ValueError(
            "Megatron-LM was asked for (by ACCELERATE_USE_MEGATRON_LM), but stages are trained by one process, DDP, FSDP2 "
            "or DeepSpeed; choose one of these in `accelerate config`, or start with torchrun."
        )
    asked = os.environ.get("ACCELERATE_MIXED_PRECISION", "no")
    if asked not in ("no", config.precision):
        raise ValueError(
            f"`precision` is {config.precision!r}, but the launcher was told {asked!r}; say the same in both places, or "
            "leave it out of the launcher."
        )
    passes = os.environ.get("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "1")
    if passes not in ("1", "auto", str(config.gradient_accumulation_steps)):
        raise ValueError(
            f"`gradient_accumulation_steps` is {config.gradient_accumulation_steps}, but the launcher was told "
            f"{passes}; leave it out of the launcher."
        )


def _is_set(variable: str) -> bool:
    return os.environ.get(variable, "false").lower() in ("true", "1")


def _check_shared(config: TrainConfig, strategy: Strategy) -> None:
    """Refuse what does not go with processes that share out what one process has as a whole."""
    kind = _NAMES[strategy]
    if _is_set(_LAUNCHED[strategy]):
        for variable, (possible, remedy) in (_FSDP_OPTIONS if strategy == "fsdp" else _ZERO_OPTIONS).items():
            asked = os.environ.get(variable, "1" if variable == "FSDP_VERSION" else possible[-1]).lower()
            if asked not in possible:
                raise ValueError(f"{kind} was asked for with {variable}={asked}, which is not done; {remedy}.")
    if os.environ.get("WORLD_SIZE", "1") == "1":
        raise ValueError(
            f"`strategy` is {strategy!r} or the launcher was told so, but there is one process, which has nobody to share "
            "with; start several, as with `torchrun --nproc_per_node 2`, or leave it out."
        )
    if strategy == "deepspeed":
        _check_deepspeed(config)
    name = config.optimizer.name
    refused = [
        ("precision", config.precision, config.precision == "fp16", "give bf16 or no, which need no scaled losses"),
        ("compile", config.compile, config.compile, "leave it out"),
        ("optimizer.name", name, name in _WHOLE_WEIGHTS or name.endswith("8bit"), "take AdamW or SGD"),
    ]
    for field, value, holds, remedy in refused:
        if holds:
            raise ValueError(f"`{field}` is {value!r}, which does not go with {kind}; {remedy}, or train with DDP.")


def _check_deepspeed(config: TrainConfig) -> None:
    if importlib.util.find_spec("deepspeed") is None:
        raise ValueError(
            "`strategy` is 'deepspeed' or the launcher was told so, but it is not installed; run `pip install deepspeed`, or "
            "take 'fsdp'."
        )
    clipping, own = os.environ.get("ACCELERATE_GRADIENT_CLIPPING", "none"), config.optimizer.max_grad_norm
    if clipping.lower() not in ("none", "auto") and float(clipping) != own:
        raise ValueError(
            f"`optimizer.max_grad_norm` is {own}, but the launcher was told {clipping}; leave it out of the launcher."
        )


def _check_processes(config: TrainConfig, found: int) -> None:
    started = int(os.environ.get("WORLD_SIZE", "1"))
    if started != found:
        raise ValueError(
            f"The launcher started {started} processes, but {found} would train together, each on its own; on CPUs set "
            "ACCELERATE_USE_CPU=true for torchrun, on GPUs see that each process has one."
        )
    if config.processes is not None and config.processes != found:
        raise ValueError(
            f"`processes` is {config.processes}, but there is {found}; start with `torchrun --nproc_per_node "
            f"{config.processes}` (`accelerate launch --cpu` starts a single one without saying so)."
        )
