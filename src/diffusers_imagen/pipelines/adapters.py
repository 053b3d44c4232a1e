# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""Saving U-Nets that have LoRA adapters attached: the U-Net alone, under the names that it is loaded by.

PEFT puts its layers around those of the U-Net, which renames their weights: a file of them would load as a U-Net
with those layers at random. Called by the pipeline's `save_pretrained`.
"""

import logging
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import Tensor, nn

_logger = logging.getLogger(__name__)
_WRAPPED = "base_layer."


@contextmanager
def saved_without_adapters(models: Mapping[str, Any]) -> Iterator[None]:
    """Leave adapters out of the state dicts of models for a while, and say so.

    Args:
        models: by component name; those without adapters are left as they are.
    """
    with ExitStack() as stack:
        for name, model in models.items():
            if not getattr(model, "peft_config", None):
                continue
            _logger.warning(
                "`%s` has the adapters %s attached, which are no part of a saved pipeline: its weights are saved "
                "without them. Save them with `pipe.%s.save_lora_adapter(folder)`, or merge them first with "
                "`pipe.%s.fuse_lora()` and `pipe.%s.unload_lora()`.",
                name,
                sorted(model.peft_config),
                *(name,) * 3,
            )
            stack.callback(model.register_state_dict_post_hook(_leave_adapters_out).remove)
        yield


def _leave_adapters_out(
    model: nn.Module, state_dict: dict[str, Tensor], prefix: str, local_metadata: dict[str, Any]
) -> None:
    """Keep of each wrapped layer what it had before, under its own name."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    wrapped = tuple(f"{prefix}{name}." for name, layer in model.named_modules() if isinstance(layer, BaseTunerLayer))
    for key in list(state_dict):
        layer = next((name for name in wrapped if key.startswith(name)), None)
        if layer is None:
            continue
        value = state_dict.pop(key)
        if key.startswith(layer + _WRAPPED):
            state_dict[layer + key.removeprefix(layer + _WRAPPED)] = value
