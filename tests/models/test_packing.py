"""Packed weights: the same pictures, the same state, and no trace once they are unpacked."""

import pytest
import torch
from torch import nn

from diffusers_imagen.models.packing import PackedConv2d, PackedLinear, PackedPointwiseConv2d, pack_layers


def layers() -> nn.ModuleDict:
    torch.manual_seed(0)
    return nn.ModuleDict(
        {
            "conv": nn.Conv2d(16, 32, 3, padding=1),
            "strided": nn.Conv2d(16, 32, 3, stride=2, padding=1, bias=False),
            "pointwise": nn.Conv2d(16, 32, 1),
            "linear": nn.Linear(16, 32, bias=False),
        }
    )


def test_each_kind_of_layer_gets_its_packed_kind():
    packed = layers()
    pack_layers(packed)
    kinds = [type(packed[name]) for name in ("conv", "strided", "pointwise", "linear")]
    assert kinds == [PackedConv2d, PackedConv2d, PackedPointwiseConv2d, PackedLinear]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(1, 16, 8, 8), (3, 16, 12, 20)])
@torch.no_grad()
def test_packed_layers_compute_what_the_layers_compute_at_every_shape(dtype, shape):
    plain, packed = layers().to(dtype), layers().to(dtype)
    pack_layers(packed)
    x = torch.randn(shape, generator=torch.Generator().manual_seed(1)).to(dtype)
    for x_i in (x, x[:, :, :4], x):
        for name in ("conv", "strided", "pointwise"):
            expected = nn.functional.conv2d(
                x_i.double(),
                plain[name].weight.double(),
                None if plain[name].bias is None else plain[name].bias.double(),
                plain[name].stride,
                plain[name].padding,
            )
            eps = torch.finfo(dtype).eps
            torch.testing.assert_close(packed[name](x_i).double(), expected, rtol=2 * eps, atol=8 * eps)
        tokens = x_i.flatten(2).transpose(1, 2)
        torch.testing.assert_close(packed["linear"](tokens), plain["linear"](tokens))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@torch.no_grad()
def test_a_packed_unet_draws_the_same(unet, inputs_of, dtype):
    unet = unet.to(dtype).to(memory_format=torch.channels_last)
    inputs = inputs_of(unet, dtype=dtype)
    expected = unet(**inputs).sample
    unet.pack_weights()
    output = unet(**inputs).sample
    if dtype == torch.bfloat16:
        assert torch.equal(output, expected)
    else:
        assert (output - expected).abs().max() < 1e-5 * expected.abs().max()


def test_packing_changes_no_state_and_unpacking_restores_everything(unet):
    unet = unet.to(memory_format=torch.channels_last)
    expected = {name: weight.clone() for name, weight in unet.state_dict().items()}
    strides = [weight.stride() for weight in unet.parameters()]
    names = [name for name, _ in unet.named_parameters()]
    unet.pack_weights()
    unet.pack_weights()
    packed = unet.state_dict()
    assert list(packed) == list(expected)
    assert all(torch.equal(packed[name], weight) for name, weight in expected.items())
    unet.unpack_weights()
    assert [name for name, _ in unet.named_parameters()] == names
    assert [weight.stride() for weight in unet.parameters()] == strides
    assert all(weight.requires_grad for weight in unet.parameters())
    assert all(torch.equal(weight, expected[name]) for name, weight in unet.named_parameters())


@pytest.mark.parametrize("undo", [lambda unet: unet.train(), lambda unet: unet.to(torch.float64)])
def test_training_and_another_precision_unpack(unet, undo):
    unet.pack_weights()
    assert type(unet.conv_in) is PackedConv2d
    undo(unet)
    assert type(unet.conv_in) is nn.Conv2d


def test_a_packed_unet_saves_and_loads(unet, tmp_path):
    expected = {name: weight.clone() for name, weight in unet.state_dict().items()}
    unet.pack_weights()
    unet.save_pretrained(tmp_path)
    loaded = type(unet).from_pretrained(tmp_path).state_dict()
    assert loaded.keys() == expected.keys()
    assert all(torch.equal(loaded[name], weight) for name, weight in expected.items())


def test_weights_that_cannot_be_packed_are_refused():
    with pytest.raises(ValueError, match="float64 on cpu"):
        pack_layers(layers().double())


@torch.no_grad()
def test_a_compiled_function_computes_the_same_with_packed_layers_or_says_why_it_cannot():
    layer = nn.Sequential(nn.Linear(16, 32, bias=False))
    pack_layers(layer)
    x = torch.ones(2, 16)
    expected = layer(x)
    torch.compiler.reset()
    assert torch.equal(torch.compile(layer, backend="eager")(x), expected)
    torch.compiler.reset()
    with pytest.raises(RuntimeError, match="call `unpack_weights"):
        torch.compile(layer, backend="eager", fullgraph=True)(x)
    torch.compiler.reset()


def test_a_layer_that_computes_something_else_is_left_alone():
    packed = layers()
    packed["linear"].forward = lambda x: x + 1
    packed["reflecting"] = nn.Conv2d(4, 4, 3, padding=1, padding_mode="reflect")
    pack_layers(packed)
    assert [type(packed[name]) for name in ("linear", "reflecting", "conv")] == [nn.Linear, nn.Conv2d, PackedConv2d]
