# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""Weights in the order that oneDNN's kernels read them, for drawing on CPUs.

A convolution or a product on a CPU first reorders its weights, every time; on small maps that takes as long as the
work itself. Packed layers have it behind them. Called by the shared U-Net's `pack_weights`.
"""

from typing import Any

import torch
from torch import Tensor, nn

# The operators that `torch.compile` calls on CPUs, too.
_OPS = torch.ops.mkldnn


class PackedLayer(nn.Module):
    """Stands in for a layer whose weight it holds in packed form, to be drawn with and not trained.

    State dicts are those of the layer itself.

    Args:
        layer: a layer with a weight; it is without one while this module stands for it.
    """

    def __init__(self, layer: Any) -> None:
        super().__init__()
        # In a tuple, so that the layer does not become a submodule.
        self._layer = (layer,)
        # Nothing but shape, strides and type.
        self._empty = torch.empty_like(layer.weight, device="meta", requires_grad=layer.weight.requires_grad)
        self._weight: Tensor = layer.weight.detach()
        self.bias = layer.bias
        del layer.weight

    def dense_weight(self) -> Tensor:
        """Return the weight as it was, to the bit."""
        return torch.empty_like(self._empty, device="cpu").copy_(self._weight.to_dense().view(self._empty.shape))

    def unpacked(self) -> nn.Module:
        """Return the layer itself, with its weight again."""
        (layer,) = self._layer
        # Once more after the weight: the order of parameters is part of an optimizer's state.
        del layer.bias
        layer.weight = nn.Parameter(self.dense_weight(), requires_grad=self._empty.requires_grad)
        layer.bias = self.bias
        return layer

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        destination[prefix + "weight"] = self.dense_weight()
        super()._save_to_state_dict(destination, prefix, keep_vars)


class PackedConv2d(PackedLayer):
    """A convolution of more than one pixel, packed for maps of the shape that it saw last.

    The best order depends on the shape, and with another one's a convolution can be a hundred times slower.
    """

    def __init__(self, layer: Any) -> None:
        super().__init__(layer)
        self._packed_for = torch.Size()

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, C_out, H_out, W_out) for `x` (B, C_in, H, W)."""
        (conv,) = self._layer
        places = (conv.padding, conv.stride, conv.dilation, conv.groups)
        if x.shape != self._packed_for:
            # The type stub of the function lacks the shape.
            reorder: Any = torch._C._nn.mkldnn_reorder_conv2d_weight
            self._weight = reorder(self.dense_weight().to_mkldnn(), *places, x.shape)
            self._packed_for = x.shape
        return _OPS._convolution_pointwise(x, self._weight, self.bias, *places, "none", [], "")


class PackedLinear(PackedLayer):
    """A linear layer."""

    def __init__(self, layer: Any) -> None:
        super().__init__(layer)
        self._weight = _OPS._reorder_linear_weight(self._weight.flatten(1))

    def forward(self, x: Tensor) -> Tensor:
        """Return (..., C_out) for `x` (..., C_in)."""
        return _OPS._linear_pointwise(x, self._weight, self.bias, "none", [], "")


class PackedPointwiseConv2d(PackedLinear):
    """A convolution of one pixel, which is a linear layer over channels_last maps."""

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, C_out, H, W) for `x` (B, C_in, H, W)."""
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def pack_layers(module: nn.Module) -> None:
    """Put packed layers into the places of all convolutions and linear layers within a module.

    Args:
        module: on the CPU, in float32 or bfloat16.

    Raises:
        ValueError: weights elsewhere, in another precision, or in bfloat16 where the processor has no such kernels.
    """
    for name, child in list(module.named_children()):
        packed = _packed_class(child)
        if packed is None:
            pack_layers(child)
        else:
            _check(child.weight)
            setattr(module, name, packed(child))


def unpack_layers(module: nn.Module) -> None:
    """Undo `pack_layers`; a module without packed layers is left as it is."""
    for name, child in list(module.named_children()):
        if isinstance(child, PackedLayer):
            setattr(module, name, child.unpacked())
        else:
            unpack_layers(child)


def _packed_class(layer: Any) -> type[PackedLayer] | None:
    """Return what stands in for a layer; subclasses that compute something else are left alone."""
    if isinstance(layer, nn.Conv2d) and type(layer).forward is nn.Conv2d.forward and layer.padding_mode == "zeros":
        is_pointwise = layer.kernel_size == layer.stride == (1, 1) and layer.groups == 1 and layer.padding == (0, 0)
        return PackedPointwiseConv2d if is_pointwise else PackedConv2d
    return PackedLinear if type(layer) is nn.Linear else None


def _check(weight: Any) -> None:
    if weight.device.type != "cpu" or weight.dtype not in (torch.float32, torch.bfloat16):
        raise ValueError(
            f"the weights are {weight.dtype} on {weight.device}, but only float32 and bfloat16 weights on the CPU can "
            "be packed; other devices need no packing."
        )
    if weight.dtype is torch.bfloat16 and not _OPS._is_mkldnn_bf16_supported():
        raise ValueError("the weights are bfloat16, which this processor has no kernels for; use float32.")
