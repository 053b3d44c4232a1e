"""DeepFloyd IF's U-Net as a subclass: the parent's numbers and files, and what the parent cannot do."""

import diffusers
import pytest
import torch
from diffusers import UNet2DConditionModel
from peft import LoraConfig

from diffusers_imagen.models.unet_deepfloyd import DeepFloydAttnProcessor, DeepFloydUNet2DConditionModel

LAYOUTS = ("two levels", "text of the same width")


def inputs(unet, length=7):
    generator = torch.Generator().manual_seed(1)
    side = unet.config.sample_size
    x = torch.randn(2, unet.config.in_channels, side, side, generator=generator)
    text = torch.randn(2, length, 32, generator=generator)
    labels = torch.tensor([250, 0]) if unet.config.class_embed_type else None
    return x, torch.tensor([10, 900]), text, labels


def run(unet, x, t, text, labels, mask=None):
    with torch.no_grad():
        return unet(x, t, text, class_labels=labels, encoder_attention_mask=mask, return_dict=False)[0]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("stage", [1, 2])
def test_without_a_mask_it_computes_what_the_parent_does_to_the_bit(deepfloyd_unet, stage, layout):
    parent = deepfloyd_unet(stage, layout)
    child = DeepFloydUNet2DConditionModel.sharing(parent)
    # As many tokens as the image has at the attention's level, too: a mask of that size would be taken for the image's.
    for length in (7, 16, 64):
        given = inputs(parent, length)
        assert torch.equal(run(child, *given), run(parent, *given))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("stage", [1, 2])
@pytest.mark.parametrize("length", [7, 16])
def test_under_a_mask_padding_changes_nothing_and_no_padding_is_no_mask(deepfloyd_unet, stage, layout, length):
    unet = DeepFloydUNet2DConditionModel.sharing(deepfloyd_unet(stage, layout))
    x, t, text, labels = inputs(unet, length)
    plain = run(unet, x, t, text, labels)
    everything = torch.ones(2, length, dtype=torch.bool)
    torch.testing.assert_close(run(unet, x, t, text, labels, everything), plain, rtol=0, atol=1e-5)
    padded = torch.cat([text, 100 * torch.ones(2, 9, 32)], dim=1)
    mask = torch.cat([everything, torch.zeros(2, 9, dtype=torch.bool)], dim=1)
    torch.testing.assert_close(run(unet, x, t, padded, labels, mask), plain, rtol=0, atol=1e-5)
    assert (run(unet, x, t, padded, labels) - plain).abs().max() > 1e-2


def test_a_text_without_a_token_gives_numbers(deepfloyd_unet):
    unet = DeepFloydUNet2DConditionModel.sharing(deepfloyd_unet(2))
    x, t, text, labels = inputs(unet)
    assert run(unet, x, t, text, labels, torch.zeros(2, 7, dtype=torch.bool)).isfinite().all()


def test_either_class_loads_what_the_other_saved(deepfloyd_unet, tmp_path):
    parent = deepfloyd_unet(2)
    parent.save_pretrained(tmp_path / "parent")
    child = DeepFloydUNet2DConditionModel.from_pretrained(tmp_path / "parent")
    child.save_pretrained(tmp_path / "child")
    again = UNet2DConditionModel.from_pretrained(tmp_path / "child")
    given = inputs(parent)
    assert torch.equal(run(child, *given), run(parent, *given))
    assert torch.equal(run(again, *given), run(parent, *given))
    assert child.config.only_cross_attention is True
    auto = diffusers.AutoModel.from_pretrained(str(tmp_path / "child"))
    assert type(auto) is DeepFloydUNet2DConditionModel


def test_weights_are_shared_both_ways_and_keep_their_flags(deepfloyd_unet):
    parent = deepfloyd_unet(1)
    parent.conv_in.weight.requires_grad_(False)
    child = DeepFloydUNet2DConditionModel.sharing(parent)
    plain = child.as_plain()
    assert type(plain) is UNet2DConditionModel
    for other in (child, plain):
        places = {name: weight.data_ptr() for name, weight in other.named_parameters()}
        assert places == {name: weight.data_ptr() for name, weight in parent.named_parameters()}
        assert not other.conv_in.weight.requires_grad
        assert other.conv_out.weight.requires_grad
        assert not other.training


def test_an_attention_backend_can_be_chosen(deepfloyd_unet):
    unet = DeepFloydUNet2DConditionModel.sharing(deepfloyd_unet(1))
    given = inputs(unet)
    expected = run(unet, *given)
    try:
        unet.set_attention_backend("_native_math")
        backends = {processor._attention_backend for processor in unet.attn_processors.values()}
        assert [backend.value for backend in backends] == ["_native_math"]
        torch.testing.assert_close(run(unet, *given), expected, rtol=0, atol=1e-5)
    finally:
        unet.set_attention_backend("native")
    assert DeepFloydAttnProcessor._attention_backend is None


def test_repeated_blocks_are_found_for_compilation(deepfloyd_unet):
    unet = DeepFloydUNet2DConditionModel.sharing(deepfloyd_unet(1))
    unet.compile_repeated_blocks(backend="eager")
    compiled = {type(layer).__name__ for layer in unet.modules() if layer._compiled_call_impl is not None}
    assert compiled == {"Attention", "ResnetBlock2D"}


@pytest.mark.slow
def test_compiled_repeated_blocks_compute_the_same(deepfloyd_unet):
    unet = DeepFloydUNet2DConditionModel.sharing(deepfloyd_unet(1))
    given = inputs(unet)
    expected = run(unet, *given)
    unet.compile_repeated_blocks(backend="eager")
    torch.testing.assert_close(run(unet, *given), expected, rtol=0, atol=1e-5)


def test_adapters_and_checkpointed_gradients_work(deepfloyd_unet):
    unet = DeepFloydUNet2DConditionModel.sharing(deepfloyd_unet(1)).requires_grad_(False)
    unet.add_adapter(LoraConfig(r=2, target_modules=["to_q", "add_k_proj"]))
    unet.enable_gradient_checkpointing()
    unet.train()
    x, t, text, labels = inputs(unet)
    unet(x, t, text, class_labels=labels).sample.square().mean().backward()
    trained = [weight for name, weight in unet.named_parameters() if "lora_B" in name]
    assert trained
    assert any(weight.grad.abs().max() > 0 for weight in trained)
    with pytest.raises(ValueError, match="`unet` has adapters attached"):
        unet.as_plain()


def test_other_layouts_and_offloaded_weights_are_refused(deepfloyd_unet):
    small = {"block_out_channels": (32,), "layers_per_block": 1, "cross_attention_dim": 32}
    other = UNet2DConditionModel(
        **small, down_block_types=("CrossAttnDownBlock2D",), up_block_types=("CrossAttnUpBlock2D",)
    )
    with pytest.raises(ValueError, match="which is no U-Net of DeepFloyd IF"):
        DeepFloydUNet2DConditionModel.sharing(other)
    with pytest.raises(ValueError, match="`unet` has weights that are offloaded"):
        DeepFloydUNet2DConditionModel.sharing(deepfloyd_unet(1).to("meta"))
