"""A packed U-Net in use: what it refuses, what undoes the packing, and what comes through it unharmed."""

import copy
import io

import pytest
import torch
from peft import LoraConfig

from diffusers_imagen.models.packing import PackedLayer


@torch.no_grad()
def draw(unet, inputs):
    return unet(**inputs).sample


def is_packed(unet):
    return any(isinstance(layer, PackedLayer) for layer in unet.modules())


def lora():
    return LoraConfig(r=4, target_modules=["to_q", "add_v_proj"], init_lora_weights=False)


def assert_same_weights(unet, expected):
    weights = unet.state_dict()
    assert list(weights) == list(expected)
    assert all(torch.equal(weights[name], weight) for name, weight in expected.items())


def test_gradients_through_packed_weights_are_refused(unet, inputs_of):
    inputs = inputs_of(unet)
    unet.pack_weights()
    with pytest.raises(ValueError, match=r"pass no gradients.*no_grad.*unpack_weights"):
        unet(**inputs)
    unet.requires_grad_(False)
    unet(**inputs)
    inputs["sample"].requires_grad_(True)
    with pytest.raises(ValueError, match="pass no gradients"):
        unet(**inputs)


def test_flags_and_parameters_are_those_of_the_unpacked_unet(unet):
    parameters = list(unet.parameters())
    counts = unet.num_parameters(), unet.get_memory_footprint()
    unet.conv_in.requires_grad_(False)
    trainable = unet.num_parameters(only_trainable=True)
    unet.pack_weights()
    assert (unet.num_parameters(), unet.get_memory_footprint()) == counts
    assert unet.num_parameters(only_trainable=True) == trainable < counts[0]
    unet.requires_grad_(False)
    unet.text_adapter.requires_grad_(True)
    unet.unpack_weights()
    assert all(now is before for now, before in zip(unet.parameters(), parameters, strict=True))
    assert {name.split(".")[0] for name, weight in unet.named_parameters() if weight.requires_grad} == {"text_adapter"}


def test_weights_take_no_memory_twice(unet):
    unet.pack_weights()
    assert all(
        layer.weight.untyped_storage().nbytes() <= 4 for layer in unet.modules() if isinstance(layer, PackedLayer)
    )


def test_a_unet_that_is_packed_and_unpacked_in_inference_mode_can_be_trained(unet, inputs_of):
    inputs = inputs_of(unet)
    with torch.inference_mode():
        unet.pack_weights()
        unet(**inputs)
        unet.unpack_weights()
    unet.train()(**inputs).sample.square().mean().backward()
    assert unet.conv_in.weight.grad.abs().sum() > 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_autocast_draws_with_packed_weights(unet, inputs_of, dtype):
    inputs = inputs_of(unet)
    expected = draw(unet, inputs)
    unet.to(dtype).pack_weights()
    with torch.autocast("cpu", torch.bfloat16):
        output = draw(unet, inputs)
    assert (output - expected).abs().max() < 0.05 * expected.abs().max()


def torch_saved(unet):
    stream = io.BytesIO()
    torch.save(unet, stream)
    stream.seek(0)
    return torch.load(stream, weights_only=False)


@pytest.mark.parametrize("duplicate", [copy.deepcopy, torch_saved])
def test_copies_are_unpacked_and_leave_the_original_packed(unet, inputs_of, duplicate):
    inputs = inputs_of(unet)
    expected = draw(unet, inputs)
    unet.conv_in.requires_grad_(False)
    unet.pack_weights()
    packed = draw(unet, inputs)
    other = duplicate(unet)
    assert is_packed(unet)
    assert not is_packed(other)
    assert torch.equal(draw(unet, inputs), packed)
    assert torch.equal(draw(other, inputs), expected)
    assert not other.conv_in.weight.requires_grad
    assert other.conv_out.weight.requires_grad
    torch.nn.init.zeros_(other.conv_in.bias)
    assert torch.equal(draw(unet, inputs), packed)


def test_a_packed_unet_loads_a_state_dict(unet):
    unet.pack_weights()
    expected = {name: weight + 1 for name, weight in unet.state_dict().items()}
    unet.load_state_dict(expected)
    assert_same_weights(unet, expected)


def test_a_unet_that_cannot_be_packed_as_a_whole_is_left_as_it_is(unet):
    unet.text_adapter.to(torch.float16)
    expected = {name: weight.clone() for name, weight in unet.state_dict().items()}
    with pytest.raises(ValueError, match="float16 on cpu"):
        unet.pack_weights()
    assert not is_packed(unet)
    assert_same_weights(unet, expected)


def test_layers_with_an_adapter_are_not_packed_and_all_that_adapters_do_works(unet, inputs_of):
    inputs = inputs_of(unet)
    plain = draw(unet, inputs)
    unet.add_adapter(lora())
    adapted = draw(unet, inputs)
    assert (adapted - plain).abs().max() > 1e-2
    unet.pack_weights()
    assert is_packed(unet)
    torch.testing.assert_close(draw(unet, inputs), adapted, rtol=0, atol=1e-4)
    unet.fuse_lora()
    torch.testing.assert_close(draw(unet, inputs), adapted, rtol=0, atol=1e-4)
    unet.unfuse_lora()
    unet.unload_lora()
    torch.testing.assert_close(draw(unet, inputs), plain, rtol=0, atol=1e-4)


def test_an_adapter_for_a_packed_unet_unpacks_it(unet, inputs_of):
    other = copy.deepcopy(unet)
    unet.pack_weights()
    for model in (unet, other):
        torch.manual_seed(0)
        model.add_adapter(lora())
    assert not is_packed(unet)
    assert torch.equal(draw(unet, inputs_of(unet)), draw(other, inputs_of(unet)))


def test_layerwise_casting_unpacks_and_layers_that_are_cast_are_not_packed(unet, inputs_of):
    inputs = inputs_of(unet)
    unet.pack_weights()
    unet.enable_layerwise_casting(storage_dtype=torch.bfloat16, compute_dtype=torch.float32)
    assert unet.conv_in.weight.dtype == torch.bfloat16
    cast = draw(unet, inputs)
    unet.pack_weights()
    assert not isinstance(unet.conv_in, PackedLayer)
    torch.testing.assert_close(draw(unet, inputs), cast, rtol=0, atol=1e-4)


@pytest.mark.parametrize("compiling", ["compile", "compile_repeated_blocks"])
def test_a_unet_is_packed_or_compiled_and_not_both(unet, compiling):
    unet.pack_weights()
    with pytest.raises(ValueError, match="unpack_weights"):
        getattr(unet, compiling)(backend="eager")
    unet.unpack_weights()
    getattr(unet, compiling)(backend="eager")
    with pytest.raises(ValueError, match="this one is compiled"):
        unet.pack_weights()
    assert not is_packed(unet)
