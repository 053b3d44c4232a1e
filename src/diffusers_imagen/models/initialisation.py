# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""How layers start. Called where layers are made."""

from typing import TypeVar

from torch import nn

Module = TypeVar("Module", bound=nn.Module)


def zeroed(module: Module) -> Module:
    """Set a module's weights to zero and return it: a branch that ends in it starts as nothing."""
    for parameter in module.parameters():
        nn.init.zeros_(parameter)
    return module
