# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""A model whose weights can be packed for drawing on CPUs, and what undoes that. Base class of this package's U-Nets.

The packed layers themselves are in `packing.py`.
"""

from collections.abc import Callable, Mapping
from typing import Any

from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor

from diffusers_imagen.models.packing import pack_layers, refuse_packed, unpack_layers


class PackableModel(ModelMixin):
    """A model of Diffusers with `pack_weights`; whatever needs the plain weights unpacks them first."""

    def pack_weights(self) -> None:
        """Reorder the weights once for drawing on the CPU, instead of in every call.

        Pictures stay the same but for rounding (bfloat16 in channels_last: to the bit). Weights take as much memory as
        before; the peak is higher (159 MiB instead of 122 in the benchmark `memory`).

        Moving the U-Net, changing its precision, training it, loading weights and attaching an adapter undo the packing;
        so does `unpack_weights`. Layers that have an adapter stay as they are; copies and pickles are unpacked. Packed
        weights pass no gradients. Call it again to pack what has come since.

        Raises:
            ValueError: weights that are not float32 or bfloat16 on the CPU, or a U-Net that is compiled.
        """
        pack_layers(self)

    def unpack_weights(self) -> None:
        """Undo `pack_weights`."""
        unpack_layers(self)

    def train(self, mode: bool = True) -> Any:
        """Set training or evaluation mode; training needs unpacked weights."""
        if mode:
            self.unpack_weights()
        return super().train(mode)

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """Load weights, which unpacks them.

        Args:
            state_dict: as `torch.nn.Module.load_state_dict` takes it, like all that follow.
            strict: likewise.
            assign: likewise.
        """
        self.unpack_weights()
        return super().load_state_dict(state_dict, strict, assign)

    def enable_layerwise_casting(self, *args: Any, **kwargs: Any) -> None:
        """Store weights in another precision than that of the computation, which unpacks them.

        Args:
            *args: as `ModelMixin.enable_layerwise_casting` takes them.
            **kwargs: likewise.
        """
        self.unpack_weights()
        super().enable_layerwise_casting(*args, **kwargs)

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """Compile the model in its place.

        Args:
            *args: as `torch.compile` takes them.
            **kwargs: likewise.

        Raises:
            ValueError: a model whose weights are packed.
        """
        refuse_packed(self)
        super().compile(*args, **kwargs)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        # What `to`, `cuda`, `float` and their like go through.
        self.unpack_weights()
        return super()._apply(fn, recurse)
