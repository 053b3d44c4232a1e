# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""Weights in the order that oneDNN's kernels read them, for drawing on CPUs.

A convolution or a product on a CPU first reorders its weights, every time; on small maps that takes as long as the
work itself. Packed layers have it behind them. Called by the shared U-Net's `pack_weights`.
"""

import copy
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

# The operators that `torch.compile` calls on CPUs, too.
_OPS = torch.ops.mkldnn

COMPILED = "Packed weights are for a U-Net that is not compiled: kernels cannot be generated for them"
"""What there is to say where a U-Net is to be both."""


class PackedLayer(nn.Module):
    """Stands in for a layer whose weight it holds in packed form, to be drawn with and not trained.

    State dicts, copies and pickles are those of the layer itself. Its parameters are the layer's, too, so that they keep
    their shapes and flags; the values of `weight` are NaN meanwhile, and take no memory.

    Args:
        layer: a layer with a weight; it is without one while this module stands for it.
    """

    def __init__(self, layer: Any) -> None:
        super().__init__()
        # In a tuple, so that the layer does not become a submodule.
        self._layer = (layer,)
        self.weight: nn.Parameter = layer.weight
        self.bias: nn.Parameter | None = layer.bias
        # Nothing but shape, strides and type.
        self._empty = torch.empty_like(layer.weight, device="meta", requires_grad=False)
        self._weight = layer.weight.detach()
        layer.weight.data = self._weight.new_full((), float("nan")).expand(self._weight.shape)

    def dense_weight(self) -> Tensor:
        """Return the weight as it was, to the bit."""
        # A tensor that is made in inference mode could never be trained.
        with torch.inference_mode(False), torch.no_grad():
            return torch.empty_like(self._empty, device="cpu").copy_(self._weight.to_dense().view(self._empty.shape))

    def unpacked(self) -> nn.Module:
        """Return the layer itself, with its weight again."""
        self.weight.data = self.dense_weight()
        return self._layer[0]

    def _ready(self, x: Tensor) -> Tensor:
        """Return an input as the kernels take it, also within autocast.

        Raises:
            ValueError: within a compiled graph, or where gradients are wanted.
        """
        if torch.compiler.is_compiling():
            raise ValueError(f"{COMPILED}; call `unpack_weights()` first, or do not compile it.")
        if torch.is_grad_enabled() and (x.requires_grad or self.weight.requires_grad):
            raise ValueError(
                "Packed weights pass no gradients; call the U-Net under `torch.no_grad()`, or `unpack_weights()` first."
            )
        return x.to(self._empty.dtype)

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        destination[prefix + "weight"] = self.dense_weight()

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        # Packed tensors can be neither copied nor stored.
        plain = copy.copy(self._layer[0])
        weight = nn.Parameter(self.dense_weight(), requires_grad=self.weight.requires_grad)
        plain._parameters = {"weight": weight, "bias": self.bias}
        return copy.copy, (plain,)


class PackedConv2d(PackedLayer):
    """A convolution of more than one pixel, packed for maps of the shape that it saw last.

    The best order depends on the shape, and with another one's a convolution can be a hundred times slower.
    """

    def __init__(self, layer: Any) -> None:
        super().__init__(layer)
        self._packed_for = torch.Size()

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, C_out, H_out, W_out) for `x` (B, C_in, H, W)."""
        x = self._ready(x)
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
        return _OPS._linear_pointwise(self._ready(x), self._weight, self.bias, "none", [], "")


class PackedPointwiseConv2d(PackedLinear):
    """A convolution of one pixel, which is a linear layer over channels_last maps."""

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, C_out, H, W) for `x` (B, C_in, H, W)."""
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def pack_layers(module: nn.Module) -> None:
    """Put packed layers into the places of the convolutions and linear layers within a module.

    Those that have an adapter, or anything else in front of what they compute, are left as they are.

    Args:
        module: on the CPU, in float32 or bfloat16, and not compiled.

    Raises:
        ValueError: weights elsewhere, in another precision, or in bfloat16 where the processor has no such kernels; or a
            compiled module. Nothing is packed then.
    """
    if any(part._compiled_call_impl is not None for part in module.modules()):
        raise ValueError(f"{COMPILED}, and this one is compiled; load it anew to pack it.")
    layers = list(_packable(module))
    for parent, name, _ in layers:
        _check(parent.get_parameter(f"{name}.weight"))
    for parent, name, packed_class in layers:
        setattr(parent, name, packed_class(parent.get_submodule(name)))


def unpack_layers(module: nn.Module) -> None:
    """Undo `pack_layers`; a module without packed layers is left as it is."""
    for name, child in list(module.named_children()):
        if isinstance(child, PackedLayer):
            setattr(module, name, child.unpacked())
        else:
            unpack_layers(child)


def refuse_packed(module: nn.Module) -> None:
    """Refuse to compile a module.

    Raises:
        ValueError: packed layers in it.
    """
    if any(isinstance(part, PackedLayer) for part in module.modules()):
        raise ValueError(f"{COMPILED}; call `unpack_weights()` first, or do not compile it.")


def _packable(module: nn.Module) -> Iterator[tuple[nn.Module, str, type[PackedLayer]]]:
    """Give the layers to pack, each by the module that it is in and its name there, and what stands in for it."""
    for name, child in module.named_children():
        packed_class = _packed_class(child)
        if packed_class is not None:
            yield module, name, packed_class
        elif not hasattr(child, "base_layer"):
            # PEFT's layers have the layer that they adapt by that name, and need its weight.
            yield from _packable(child)


def _packed_class(layer: Any) -> type[PackedLayer] | None:
    """Return what stands in for a layer; what computes something else, by its class or by a hook, is left alone."""
    forward = getattr(layer.forward, "__func__", None)
    if isinstance(layer, nn.Conv2d) and forward is nn.Conv2d.forward and layer.padding_mode == "zeros":
        is_pointwise = layer.kernel_size == layer.stride == (1, 1) and layer.groups == 1 and layer.padding == (0, 0)
        return PackedPointwiseConv2d if is_pointwise else PackedConv2d
    return PackedLinear if type(layer) is nn.Linear and forward is nn.Linear.forward else None


def _check(weight: Any) -> None:
    if weight.device.type != "cpu" or weight.dtype not in (torch.float32, torch.bfloat16):
        raise ValueError(
            f"the weights are {weight.dtype} on {weight.device}, but only float32 and bfloat16 weights on the CPU can "
            "be packed; other devices need no packing."
        )
    if weight.dtype is torch.bfloat16 and not _OPS._is_mkldnn_bf16_supported():
        raise ValueError("the weights are bfloat16, which this processor has no kernels for; use float32.")
