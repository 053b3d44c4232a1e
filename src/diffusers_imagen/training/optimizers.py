# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""Make the optimizer that a configuration names: of `torch.optim`, or one of bitsandbytes with 8-bit moments.

What an optimizer keeps between steps is saved by `state.py`. Called by the training loop.
"""

import importlib
import importlib.util
import inspect
from typing import Any

import torch
from torch import nn

from diffusers_imagen.training.config import OptimizerConfig

_ADAMW = {"betas": (0.9, 0.99), "eps": 1e-8, "weight_decay": 0.01}


def make_optimizer(model: nn.Module, config: OptimizerConfig) -> torch.optim.Optimizer:
    """Make an optimizer over all trained parameters of a model, AdamW fused where PyTorch can.

    Args:
        model: The model; parameters that ask for no gradient are left out.
        config: Name and arguments.

    Raises:
        ValueError: If there is no such optimizer, it cannot be used here, or it does not take an argument.
    """
    kind = optimizer_class(config.name)
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    arguments = _arguments(kind, config)
    if config.name == "AdamW":
        arguments = {"fused": parameters[0].device.type in ("cpu", "cuda"), **arguments}
    try:
        return kind(parameters, **arguments)
    except (ValueError, TypeError, RuntimeError) as error:
        told = str(error).rstrip(".")
        raise ValueError(f"`optimizer` is refused by {config.name}: {told}. Change it, or take AdamW.") from error


def optimizer_class(name: str) -> Any:
    """Find an optimizer's class by its name.

    Raises:
        ValueError: If there is none, its package is missing, or it wants to compute the loss itself.
    """
    found: Any = getattr(torch.optim, name, None)
    if found is None and name.endswith("8bit"):
        if importlib.util.find_spec("bitsandbytes") is None:
            raise ValueError(
                f"`optimizer.name` is {name!r}, which is bitsandbytes' and that is not installed; "
                "run `pip install bitsandbytes`, or take AdamW or Adafactor."
            )
        found = getattr(importlib.import_module("bitsandbytes.optim"), name, None)
    is_optimizer = inspect.isclass(found) and issubclass(found, torch.optim.Optimizer)
    if not is_optimizer or found is torch.optim.Optimizer:
        raise ValueError(
            f"`optimizer.name` is {name!r}; give a class of torch.optim, such as AdamW or Adafactor, or one of "
            "bitsandbytes, such as AdamW8bit."
        )
    if inspect.signature(found.step).parameters["closure"].default is inspect.Parameter.empty:
        raise ValueError(f"`optimizer.name` is {name!r}, which computes the loss itself; take another, such as AdamW.")
    return found


def _arguments(kind: Any, config: OptimizerConfig) -> dict[str, Any]:
    """Give the constructor's arguments, after comparing them with its signature."""
    known = {name for name in inspect.signature(kind).parameters if name not in ("self", "params")}
    named = {name: getattr(config, name) for name in ("betas", "eps", "weight_decay")}
    given = {name: value for name, value in named.items() if value is not None}
    for name in given:
        if name not in known:
            raise ValueError(f"`optimizer.{name}` is {given[name]}, which {config.name} does not take; leave it out.")
    unknown = sorted(set(config.options) - known)
    if unknown:
        raise ValueError(f"`optimizer.options` holds {unknown}, but {config.name} takes {', '.join(sorted(known))}.")
    twice = sorted(set(config.options) & {"lr", *given})
    if twice:
        raise ValueError(f"`optimizer.options` holds {twice}; set `optimizer.{twice[0]}` alone.")
    defaults = _ADAMW if config.name == "AdamW" else {}
    # Files write tuples as lists.
    options = {name: tuple(value) if isinstance(value, list) else value for name, value in config.options.items()}
    return {"lr": config.lr, **defaults, **given, **options}
