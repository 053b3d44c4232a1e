# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""Start Accelerate, and make sure that what was asked for is what is in force.

Launchers ask through environment variables, and Accelerate falls back without a word where it cannot do what they say:
two processes that do not know of each other would train the same stage into one folder. Called by the training loop.
"""

import os
from pathlib import Path

from accelerate import Accelerator
from accelerate.utils import GradientAccumulationPlugin

from diffusers_imagen.training.config import TrainConfig
from diffusers_imagen.training.run_folder import TRACKERS
from diffusers_imagen.training.trackers import tracker_names

# Environment variable of `accelerate launch` -> what it asks for. Checkpoints hold whole tensors, which these cut up.
_UNSUPPORTED = {
    "ACCELERATE_USE_FSDP": "FSDP",
    "ACCELERATE_USE_DEEPSPEED": "DeepSpeed",
    "ACCELERATE_USE_MEGATRON_LM": "Megatron-LM",
}


def make_accelerator(config: TrainConfig) -> Accelerator:
    """Start Accelerate for a run.

    Args:
        config: Of the run.

    Raises:
        ValueError: If fewer or more processes train together than were asked for, or the launcher asks for a precision
            or a strategy that this run does not have.
    """
    _check_environment(config)
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
    return accelerator


def _check_environment(config: TrainConfig) -> None:
    for variable, name in _UNSUPPORTED.items():
        if os.environ.get(variable, "false").lower() in ("true", "1"):
            raise ValueError(
                f"{name} was asked for (by {variable}), but stages are trained by one process or DDP; "
                "choose MULTI_GPU in `accelerate config`, or start with torchrun."
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
