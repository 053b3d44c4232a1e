"""LoRA adapters of whole cascades: loaded, weighted, merged, saved, always with the strength they were made with."""

import copy
import json
import logging
from typing import Any

import pytest
import torch
from peft import LoraConfig
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils import get_peft_model_state_dict
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from diffusers_imagen.pipelines.pipeline_imagen_cascade import ImagenCascadePipeline

TARGETS = ["to_q", "to_k", "to_v", "to_out.0", "add_k_proj", "add_v_proj"]
FILE = "pytorch_lora_weights.safetensors"
LAYERS = {"unet": "mid_blocks.0.attention.attn.to_q", "sr_unet_1": "down_levels.1.0.attention.attn.to_q"}
STEPS = {"base": 2, "sr_1": 2}


def draw(pipe: Any, **arguments: Any) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    steps = {stage: STEPS[stage] for stage in pipe.stage_names}
    return pipe("a cat", num_inference_steps=steps, generator=generator, output_type="latent", **arguments).images


def same(first: torch.Tensor, second: torch.Tensor) -> bool:
    return torch.allclose(first, second, rtol=0, atol=1e-4)


def layer(pipe: Any, name: str = "unet", part: str = "to_q") -> Any:
    return getattr(pipe, name).get_submodule(LAYERS[name].replace("to_q", part))


def closed_form(pipe: Any, name: str, weights: dict[str, float]) -> torch.Tensor:
    """Compute W + sum of weight * alpha / r * B A in float64."""
    wrapped = layer(pipe, name)
    total = wrapped.base_layer.weight.double()
    for adapter, weight in weights.items():
        settings = getattr(pipe, name).peft_config[adapter]
        product = wrapped.lora_B[adapter].weight.double() @ wrapped.lora_A[adapter].weight.double()
        total = total + weight * settings.lora_alpha / settings.r * product
    return total


def weight_of(pipe: Any, name: str = "unet") -> torch.Tensor:
    return layer(pipe, name).base_layer.weight.detach().double()


def test_a_merged_adapter_is_alpha_over_r_times_b_a_in_every_u_net(adapted):
    expected = {name: closed_form(adapted, name, {"style": 1.0}) for name in LAYERS}
    before = weight_of(adapted)
    picture = draw(adapted)
    adapted.fuse_lora()
    for name, weight in expected.items():
        torch.testing.assert_close(weight_of(adapted, name), weight, rtol=0, atol=1e-6)
    assert same(draw(adapted), picture)
    assert adapted.num_fused_loras == 1
    adapted.unfuse_lora()
    torch.testing.assert_close(weight_of(adapted), before, rtol=0, atol=1e-6)
    assert adapted.num_fused_loras == 0


@pytest.mark.parametrize("merged", ["pipeline", "u-net"])
def test_an_adapter_that_was_merged_weaker_is_as_strong_as_before(adapted, merged):
    before, weight = draw(adapted), weight_of(adapted)
    parts = [adapted] if merged == "pipeline" else [adapted.unet, adapted.sr_unet_1]
    for part in parts:
        part.fuse_lora(lora_scale=0.5)
    assert not same(draw(adapted), before)
    for part in parts:
        part.unfuse_lora()
    torch.testing.assert_close(weight_of(adapted), weight, rtol=0, atol=1e-6)
    assert same(draw(adapted), before)


def test_what_was_merged_is_taken_out_whatever_is_set_or_merged_meanwhile(adapted):
    weight = weight_of(adapted)
    adapted.fuse_lora(lora_scale=0.5, adapter_names=["style"])
    adapted.set_adapters("style", 3.0)
    expected = draw_unmerged(adapted, 3.0)
    adapted.set_adapters(["style", "line"], [3.0, 1.0])
    adapted.unet.fuse_lora(lora_scale=0.5, adapter_names=["line"])
    adapted.set_adapters("style", 3.0)
    adapted.unfuse_lora()
    torch.testing.assert_close(weight_of(adapted), weight, rtol=0, atol=1e-5)
    assert same(draw(adapted), expected)


def draw_unmerged(pipe, strength):
    """Draw with "style" at a strength, with a copy of the pipeline that nothing is merged into."""
    copied = copy.deepcopy(pipe)
    copied.unfuse_lora()
    copied.set_adapters("style", strength)
    return draw(copied)


def test_merging_may_be_weaker_and_for_one_u_net_alone(adapted):
    base = weight_of(adapted, "sr_unet_1")
    expected = closed_form(adapted, "unet", {"style": 0.25})
    adapted.fuse_lora(components=["unet"], lora_scale=0.25, adapter_names=["style"])
    torch.testing.assert_close(weight_of(adapted), expected, rtol=0, atol=1e-6)
    assert torch.equal(weight_of(adapted, "sr_unet_1"), base)


def test_several_adapters_are_added_with_their_weights(adapted):
    # The enlargement has "style" alone.
    expected = {
        "unet": closed_form(adapted, "unet", {"style": 0.5, "line": 2.0}),
        "sr_unet_1": closed_form(adapted, "sr_unet_1", {"style": 0.5}),
    }
    adapted.set_adapters(["style", "line"], adapter_weights=[0.5, 2.0])
    picture = draw(adapted)
    adapted.fuse_lora()
    for name, weight in expected.items():
        torch.testing.assert_close(weight_of(adapted, name), weight, rtol=0, atol=1e-6)
    assert same(draw(adapted), picture)


def test_a_weight_may_differ_by_u_net(adapted):
    adapted.set_adapters("style", adapter_weights={"unet": 0.5, "sr_unet_1": 0.0})
    # Alpha is 8 and the rank 2.
    assert layer(adapted).scaling["style"] == 2.0
    assert layer(adapted, "sr_unet_1").scaling["style"] == 0.0


def scalings(model: Any) -> dict[str, float]:
    """Give the strength of "style" in every layer that has it, by the layer's name."""
    return {name: one.scaling["style"] for name, one in model.named_modules() if isinstance(one, BaseTunerLayer)}


def test_a_weight_may_differ_by_part_of_a_u_net(adapted):
    weights = {"unet": {"down": 0.5, "mid": 0.0, "up": {"block_0": 2}}}
    adapted.set_adapters("style", adapter_weights=weights)
    # Alpha is 8 and the rank 2; what is not named keeps 1.
    by_part = {"down_levels": 2.0, "mid_blocks": 0.0, "up_levels.0": 8.0}
    found = scalings(adapted.unet)
    assert all(any(name.startswith(part) for name in found) for part in [*by_part, "text_adapter"])
    for name, scaling in found.items():
        assert scaling == next((value for part, value in by_part.items() if name.startswith(part)), 4.0), name
    assert set(scalings(adapted.sr_unet_1).values()) == {4.0}
    adapted.set_adapters(["style", "line"], adapter_weights=[{"unet": {"mid": 3}}, 0.5])
    assert (layer(adapted).scaling["style"], layer(adapted).scaling["line"]) == (12.0, 0.5)
    adapted.set_adapters("style")
    assert set(scalings(adapted.unet).values()) == {4.0}


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"middle": 1}, r"'middle'; parts of a U-Net .* 'down', 'mid' and 'up'"),
        ({"up": {"block_7": 1}}, r"'block_7' of 'up', which has \['block_0', 'block_1'\]"),
        ({"down": [1, 2]}, r"\[1, 2\] for 'down'; a part or a block has one number"),
    ],
)
def test_parts_that_a_u_net_does_not_have_are_refused(adapted, weights, message):
    before = scalings(adapted.unet)
    with pytest.raises(ValueError, match=message):
        adapted.set_adapters("style", adapter_weights={"unet": weights})
    assert scalings(adapted.unet) == before


def test_an_adapter_comes_back_from_its_folder_with_its_alpha(adapted, fresh, tmp_path):
    expected = draw(adapted)
    adapted.save_lora_adapter(tmp_path, adapter_name="style")
    for place in (tmp_path, str(tmp_path), tmp_path / FILE):
        pipe = fresh()
        assert not same(draw(pipe), expected)
        pipe.load_lora_weights(place, adapter_name="style")
        for name in LAYERS:
            settings = getattr(pipe, name).peft_config["style"]
            assert (settings.r, settings.lora_alpha) == (2, 8)
            loaded = closed_form(pipe, name, {"style": 1.0})
            torch.testing.assert_close(loaded, closed_form(adapted, name, {"style": 1.0}), rtol=0, atol=0)
        assert same(draw(pipe), expected)


def test_a_file_is_in_diffusers_format(adapted, tmp_path):
    adapted.save_lora_adapter(tmp_path / "a" / "b", adapter_name="style", weight_name="style.safetensors")
    assert [file.name for file in (tmp_path / "a/b").iterdir()] == ["style.safetensors"]
    with safe_open(tmp_path / "a/b/style.safetensors", "pt") as file:
        names, header = set(file.keys()), file.metadata()
    assert {name.partition(".")[0] for name in names} == {"unet", "sr_unet_1"}
    assert {f"{name}.{place}.lora_A.weight" for name, place in LAYERS.items()} <= names
    settings = json.loads(header["lora_adapter_metadata"])
    assert header["format"] == "pt"
    assert (settings["unet.r"], settings["sr_unet_1.lora_alpha"]) == (2, 8)
    assert settings["unet.target_modules"] == sorted(TARGETS)


def test_ranks_and_strengths_by_layer_come_back(fresh, tmp_path):
    pipe, other = fresh(), fresh()
    mixed = LoraConfig(
        r=2,
        lora_alpha=4,
        target_modules=["to_q", "to_v"],
        rank_pattern={"to_v": 3},
        alpha_pattern={"to_v": 12},
        init_lora_weights=False,
    )
    pipe.unet.add_adapter(mixed, "default")
    pipe.save_lora_adapter(tmp_path)
    other.load_lora_weights(tmp_path)
    assert layer(other).scaling == {"default_0": 2.0}
    assert layer(other, part="to_v").scaling == {"default_0": 4.0}
    assert layer(other, part="to_v").r == {"default_0": 3}
    assert same(draw(other), draw(pipe))


@pytest.mark.parametrize("option", ["use_dora", "lora_bias"])
def test_dora_and_biases_come_back(fresh, tmp_path, option):
    pipe, other = fresh(), fresh()
    plain = draw(pipe)
    for name, seed in (("unet", 1), ("sr_unet_1", 2)):
        torch.manual_seed(seed)
        # Layers without a bias of their own would be told of.
        special = LoraConfig(r=2, lora_alpha=6, target_modules=["to_out.0"], init_lora_weights=False, **{option: True})
        getattr(pipe, name).add_adapter(special)
    special = draw(pipe)
    pipe.save_lora_adapter(tmp_path)
    other.load_lora_weights(tmp_path)
    assert getattr(other.unet.peft_config["default_0"], option)
    assert same(draw(other), special)
    assert not same(special, plain)


def eight_bits(pipe: Any) -> None:
    for name in LAYERS:
        getattr(pipe, name).enable_layerwise_casting(torch.float8_e4m3fn, torch.float32)


def test_u_nets_stored_in_eight_bits_keep_their_adapters(adapted, fresh, tmp_path):
    adapted.save_lora_adapter(tmp_path, adapter_name="style")
    pipe = fresh()
    pipe.load_lora_weights(tmp_path, adapter_name="style")
    eight_bits(pipe)
    for name in LAYERS:
        wrapped, given = layer(pipe, name), layer(adapted, name)
        assert wrapped.base_layer.weight.dtype == torch.float8_e4m3fn
        assert torch.equal(wrapped.lora_A["style"].weight, given.lora_A["style"].weight)
    styled = draw(pipe)
    pipe.disable_lora()
    assert not same(styled, draw(pipe))
    # Eight bits are 3 of mantissa: the picture is near, far nearer than without the adapter.
    expected = draw(adapted)
    assert (styled - expected).square().mean() < 0.25 * (draw(pipe) - expected).square().mean()


def test_u_nets_that_are_stored_in_eight_bits_already_take_no_adapter(adapted, fresh, tmp_path, lora_config):
    adapted.save_lora_adapter(tmp_path, adapter_name="style")
    pipe = fresh()
    eight_bits(pipe)
    plain = draw(pipe)
    for attach in (lambda: pipe.load_lora_weights(tmp_path), lambda: pipe.unet.add_adapter(lora_config(1))):
        with pytest.raises(
            ValueError, match="ImagenUNet2DConditionModel are stored in eight bits; load or add adapters"
        ):
            attach()
        assert pipe.get_list_adapters() == {}
    assert torch.equal(draw(pipe), plain)


def test_a_u_nets_own_file_loads_into_the_u_net_that_is_named(adapted, fresh, tmp_path):
    for name in LAYERS:
        getattr(adapted, name).save_lora_adapter(tmp_path / name, adapter_name="style")
        pipe = fresh()
        pipe.load_lora_weights(tmp_path / name, adapter_name="style", component=name)
        assert pipe.get_list_adapters() == {name: ["style"]}
        loaded = closed_form(pipe, name, {"style": 1.0})
        torch.testing.assert_close(loaded, closed_form(adapted, name, {"style": 1.0}), rtol=0, atol=0)


def test_weights_in_memory_take_alpha_from_metadata_or_are_taken_as_they_are(adapted, fresh, tmp_path):
    adapted.save_lora_adapter(tmp_path, adapter_name="style")
    weights, metadata = adapted.lora_state_dict(tmp_path, return_lora_metadata=True)
    given = dict(weights)
    pipe = fresh()
    pipe.load_lora_weights(weights, metadata=metadata)
    pipe.load_lora_weights(weights)
    assert layer(pipe).scaling == {"default_0": 4.0, "default_1": 1.0}
    assert weights.keys() == given.keys()


def test_metadata_of_one_u_net_says_nothing_of_another(adapted, fresh, tmp_path):
    ImagenCascadePipeline.save_lora_weights(
        tmp_path,
        unet_lora_layers=get_peft_model_state_dict(adapted.unet, adapter_name="style"),
        unet_lora_adapter_metadata=adapted.unet.peft_config["style"].to_dict(),
        sr_unet_1_lora_layers=get_peft_model_state_dict(adapted.sr_unet_1, adapter_name="style"),
    )
    pipe = fresh()
    pipe.load_lora_weights(tmp_path)
    assert layer(pipe).scaling == {"default_0": 4.0}
    # Not PEFT's own default of rank 8 and alpha 8.
    assert layer(pipe, "sr_unet_1").scaling == {"default_0": 1.0}
    assert layer(pipe, "sr_unet_1").r == {"default_0": 2}


def test_weights_without_their_settings_are_saved_with_a_warning(adapted, tmp_path, caplog):
    layers = get_peft_model_state_dict(adapted.unet, adapter_name="style")
    with caplog.at_level(logging.WARNING):
        ImagenCascadePipeline.save_lora_weights(tmp_path, unet_lora_layers=layers)
    assert "`unet_lora_adapter_metadata` is missing" in caplog.text
    ImagenCascadePipeline.save_lora_weights(tmp_path / "other", unet_lora_layers=layers, is_main_process=False)
    assert not (tmp_path / "other").exists()


def test_adapters_are_listed_turned_off_and_on_and_deleted(adapted, cascade):
    plain, styled = draw(cascade), draw(adapted)
    assert adapted.get_list_adapters() == {"unet": ["style", "line"], "sr_unet_1": ["style"]}
    assert adapted.get_active_adapters() == ["style"]
    adapted.disable_lora()
    assert same(draw(adapted), plain)
    adapted.enable_lora()
    assert same(draw(adapted), styled)
    assert not same(styled, plain)
    adapted.set_adapters(["line", "style"])
    assert adapted.get_active_adapters() == ["line", "style"]
    adapted.delete_adapters("line")
    assert adapted.get_list_adapters() == {"unet": ["style"], "sr_unet_1": ["style"]}
    assert same(draw(adapted), styled)
    adapted.delete_adapters(["style"])
    assert adapted.get_active_adapters() == []
    assert same(draw(adapted), plain)


def test_after_unloading_nothing_is_left_and_adapters_may_be_added_again(adapted, cascade, lora_config):
    plain, styled = draw(cascade), draw(adapted)
    adapted.unload_lora_weights()
    assert adapted.get_list_adapters() == {}
    assert adapted.unet.state_dict().keys() == cascade.unet.state_dict().keys()
    assert torch.equal(draw(adapted), plain)
    adapted.unet.add_adapter(lora_config(1), "style")
    adapted.sr_unet_1.add_adapter(lora_config(2), "style")
    assert same(draw(adapted), styled)


def test_merged_and_unloaded_an_adapter_stays_in_the_weights(adapted, tmp_path):
    styled = draw(adapted)
    adapted.fuse_lora()
    adapted.unload_lora_weights()
    adapted.save_pretrained(tmp_path)
    assert same(draw(ImagenCascadePipeline.from_pretrained(tmp_path)), styled)


def test_a_scale_holds_for_one_call(adapted, cascade):
    styled = draw(adapted)
    adapted.set_adapters("style", 0.5)
    half = draw(adapted)
    adapted.set_adapters("style")
    assert same(draw(adapted, cross_attention_kwargs={"scale": 0.5}), half)
    assert same(draw(adapted, cross_attention_kwargs={"scale": 0.0}), draw(cascade))
    assert layer(adapted).scaling["style"] == 4.0
    assert torch.equal(draw(adapted), styled)
    # Without adapters it means nothing, as with other pipelines.
    assert torch.equal(draw(cascade, cross_attention_kwargs={"scale": 0.5}), draw(cascade))


def test_a_scale_is_gone_after_a_call_that_broke_off(adapted):
    def break_off(*_: Any) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        draw(adapted, cross_attention_kwargs={"scale": 0.5}, callback_on_step_end=break_off)
    assert layer(adapted).scaling["style"] == 4.0


@pytest.mark.parametrize("given", [{"ip_adapter": 1}, {"scale": "strong"}, 0.5])
def test_other_attention_arguments_are_refused(cascade, given):
    with pytest.raises(ValueError, match="`cross_attention_kwargs` is"):
        draw(cascade, cross_attention_kwargs=given)


def test_an_adapter_is_exchanged_in_its_place(adapted, fresh, tmp_path, lora_config):
    adapted.save_lora_adapter(tmp_path / "style", adapter_name="style")
    adapted.unload_lora_weights()
    for name, seed in (("unet", 5), ("sr_unet_1", 6)):
        getattr(adapted, name).add_adapter(lora_config(seed), "other")
    adapted.save_lora_adapter(tmp_path / "other", adapter_name="other")
    pipe = fresh()
    pipe.load_lora_weights(tmp_path / "style", adapter_name="mine")
    pipe.load_lora_weights(tmp_path / "other", adapter_name="mine", hotswap=True)
    assert same(draw(pipe), draw(adapted))
    with pytest.raises(ValueError, match="has no adapter named 'new' to exchange"):
        pipe.load_lora_weights(tmp_path / "other", adapter_name="new", hotswap=True)


def test_a_packed_u_net_takes_an_adapter(adapted, fresh, tmp_path):
    adapted.save_lora_adapter(tmp_path, adapter_name="style")
    pipe = fresh()
    pipe.unet.pack_weights()
    pipe.load_lora_weights(tmp_path)
    assert same(draw(pipe), draw(adapted))
    pipe.unet.pack_weights()
    pipe.fuse_lora()
    assert same(draw(pipe), draw(adapted))


def test_stages_that_are_missing_are_left_out_with_a_warning(adapted, fresh, tmp_path, caplog):
    adapted.save_lora_adapter(tmp_path, adapter_name="style")
    base = fresh(1)
    with caplog.at_level(logging.WARNING):
        base.load_lora_weights(tmp_path)
    assert "weights for ['sr_unet_1'] are left out" in caplog.text
    assert base.get_list_adapters() == {"unet": ["default_0"]}
    only_sr = {name: value for name, value in load_file(tmp_path / FILE).items() if name.startswith("sr_unet_1.")}
    with pytest.raises(ValueError, match="this pipeline was loaded without"):
        base.load_lora_weights(only_sr)


def test_broken_settings_leave_no_u_net_with_half_an_adapter(adapted, fresh, tmp_path):
    adapted.save_lora_adapter(tmp_path, adapter_name="style")
    weights, metadata = adapted.lora_state_dict(tmp_path, return_lora_metadata=True)
    pipe = fresh()
    plain = draw(pipe)
    with pytest.raises(TypeError, match="LoraConfig"):
        pipe.load_lora_weights(weights, metadata=metadata | {"sr_unet_1.surprise": 1})
    assert not any(pipe.get_list_adapters().values())
    assert torch.equal(draw(pipe), plain)


def test_a_cascade_in_half_precision_takes_an_adapter_in_full(adapted, fresh, tmp_path):
    adapted.save_lora_adapter(tmp_path, adapter_name="style")
    pipe = fresh().to(dtype=torch.bfloat16)
    plain = draw(pipe)
    pipe.load_lora_weights(tmp_path)
    styled = draw(pipe)
    assert styled.isfinite().all()
    assert not same(styled, plain)


def test_deepfloyd_u_nets_take_adapters_too(deepfloyd, tmp_path):
    pipe = ImagenCascadePipeline.from_deepfloyd_if(*(copy.deepcopy(one) for one in deepfloyd(2)))
    pipe.set_progress_bar_config(disable=True)
    plain = draw(pipe)
    for name, seed in (("unet", 1), ("sr_unet_1", 2)):
        torch.manual_seed(seed)
        getattr(pipe, name).add_adapter(
            LoraConfig(r=2, lora_alpha=8, target_modules=["to_q", "add_k_proj"], init_lora_weights=False)
        )
    styled = draw(pipe)
    pipe.save_lora_adapter(tmp_path)
    pipe.unload_lora_weights()
    pipe.load_lora_weights(tmp_path)
    assert pipe.unet.peft_config["default_0"].lora_alpha == 8
    assert not same(styled, plain)
    assert same(draw(pipe), styled)
    pipe.set_adapters("default_0", adapter_weights={"unet": {"mid": 0, "up": {"block_0": 2}}})
    for name, one in pipe.unet.named_modules():
        if isinstance(one, BaseTunerLayer):
            assert one.scaling["default_0"] == 4 * {"mid_block": 0, "up_blocks": 2}.get(name.partition(".")[0], 1), (
                name
            )


def test_weights_without_a_header_are_taken_as_they_are(adapted, fresh, tmp_path):
    save_file(get_peft_model_state_dict(adapted.unet, adapter_name="style"), tmp_path / FILE)
    pipe = fresh()
    pipe.load_lora_weights(tmp_path)
    assert layer(pipe).scaling == {"default_0": 1.0}


def test_a_cascades_file_is_no_u_nets_without_its_name(adapted, fresh, tmp_path):
    adapted.save_lora_adapter(tmp_path, "style")
    pipe = fresh()
    with pytest.raises(ValueError, match=r"by component, \['sr_unet_1', 'unet'\]: .* prefix='sr_unet_1'"):
        pipe.unet.load_lora_adapter(tmp_path)
    pipe.unet.load_lora_adapter(tmp_path, prefix="unet")
    adapted.delete_adapters("line")
    assert torch.equal(*(layer(one).lora_A["default_0" if one is pipe else "style"].weight for one in (pipe, adapted)))
