# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""Weights as they come from files, laid out in memory as fresh ones are.

Called by the pipeline right before a model runs on a CPU: until then its weights stay in the file that is mapped.
"""

from itertools import chain

from torch import nn

ALIGNMENT = 64  # bytes: where PyTorch begins every tensor that it makes on a CPU


def align_weights(model: nn.Module) -> None:
    """Move weights that lie at odd addresses in memory, as those of a mapped file do.

    CPU kernels choose the order of their sums by address: without this, a loaded cascade draws pictures that differ
    in the last bits from those of the one that was saved.
    """
    for weight in chain(model.parameters(), model.buffers()):
        if weight.device.type == "cpu" and weight.data_ptr() % ALIGNMENT:
            weight.data = weight.data.clone()
