# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""The strength of LoRA adapters over a merge: what is taken out again is what was put in, and it then counts as before.

Diffusers merges at a scale by changing an adapter's strength, and leaves it changed. Called by the U-Nets' `fuse_lora`
and `unfuse_lora`, and by the pipeline's.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

_BEFORE = "_strengths_before_merging"


@contextmanager
def noting_strengths(model: nn.Module) -> Iterator[None]:
    """Remember how strong adapters were that are merged meanwhile, and leave those alone that are merged already.

    Args:
        model: with adapters or without.
    """
    layers = list(_adapted(model))
    before = [(dict(layer.scaling), set(layer.merged_adapters)) for layer in layers]
    yield
    for layer, (scaling, merged) in zip(layers, before, strict=True):
        layer.scaling.update({name: scaling[name] for name in merged})
        noted = vars(layer).setdefault(_BEFORE, {})
        for name in set(layer.merged_adapters) - merged:
            noted[name] = (scaling[name], layer.scaling[name])


@contextmanager
def restoring_strengths(model: nn.Module) -> Iterator[None]:
    """Give adapters that are taken out meanwhile the strength that they had, or that they were given since.

    Args:
        model: with adapters or without.
    """
    restored: list[tuple[Any, dict[str, float]]] = []
    for layer in _adapted(model):
        noted = {name: noted for name, noted in vars(layer).pop(_BEFORE, {}).items() if name in layer.scaling}
        given = {name: layer.scaling[name] for name in noted}
        # PEFT takes out as much as the strength says now.
        layer.scaling.update({name: merged for name, (_, merged) in noted.items()})
        after = {name: noted[name][0] if value == noted[name][1] else value for name, value in given.items()}
        restored.append((layer, after))
    yield
    for layer, strengths in restored:
        layer.scaling.update(strengths)


def _adapted(model: nn.Module) -> Iterator[Any]:
    from peft.tuners.tuners_utils import BaseTunerLayer

    return (layer for layer in model.modules() if isinstance(layer, BaseTunerLayer) and hasattr(layer, "scaling"))
