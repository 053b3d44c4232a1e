"""Adapters that cannot be: refused by name, before any U-Net has half of one."""

import pytest
import torch
from peft.utils import get_peft_model_state_dict
from safetensors.torch import load_file

from diffusers_imagen.pipelines.pipeline_imagen_cascade import ImagenCascadePipeline

FILE = "pytorch_lora_weights.safetensors"
LAYERS = {"unet": "mid_blocks.0.attention.attn.to_q", "sr_unet_1": "down_levels.1.0.attention.attn.to_q"}


@pytest.mark.parametrize(("gone", "left"), [("lora_A", "lora_B"), ("lora_B", "lora_A")])
def test_half_of_an_adapters_layer_is_refused(adapted, fresh, tmp_path, gone, left):
    adapted.save_lora_adapter(tmp_path, adapter_name="style")
    weights = load_file(tmp_path / FILE)
    del weights[f"unet.{LAYERS['unet']}.{gone}.weight"]
    pipe = fresh()
    with pytest.raises(ValueError, match=rf"{left}\.weight' for `unet`, but not .*{gone}\.weight': it is incomplete"):
        pipe.load_lora_weights(weights)
    assert pipe.get_list_adapters() == {}


def test_weights_of_another_model_are_refused_before_any_are_attached(adapted, fresh, tmp_path):
    adapted.save_lora_adapter(tmp_path, adapter_name="style")
    weights = load_file(tmp_path / FILE)
    pipe = fresh()
    strange = f"sr_unet_1.{LAYERS['sr_unet_1']}.lora_A.weight"
    for changed, message in (
        (weights | {"transformer.x.lora_A.weight": torch.ones(2, 2)}, "belong to none of"),
        (weights | {"sr_unet_1.down.7.to_q.lora_A.weight": torch.ones(2, 16)}, "has no such layer"),
        (weights | {strange: torch.ones(2, 99)}, r"of shape \(2, 99\) for `sr_unet_1`"),
        ({"lora_foo": torch.ones(1)}, "'lora_foo' for `unet`"),
    ):
        with pytest.raises(ValueError, match=message):
            pipe.load_lora_weights(changed)
        assert pipe.get_list_adapters() == {}
    with pytest.raises(ValueError, match="`component` is 'base'"):
        pipe.load_lora_weights(weights, component="base")
    pipe.load_lora_weights(weights, adapter_name="mine")
    with pytest.raises(ValueError, match="'mine', which `unet` has already"):
        pipe.load_lora_weights(weights, adapter_name="mine")
    with pytest.raises(ValueError, match="'yours', but the U-Nets have"):
        pipe.save_lora_adapter(tmp_path, adapter_name="yours")


def test_pickles_are_neither_written_nor_read(adapted, tmp_path):
    layers = get_peft_model_state_dict(adapted.unet, adapter_name="style")
    with pytest.raises(ValueError, match="pickles may run code"):
        ImagenCascadePipeline.save_lora_weights(tmp_path, layers, safe_serialization=False)
    with pytest.raises(ValueError, match=r"'lora\.bin'"):
        adapted.save_lora_adapter(tmp_path, "style", weight_name="lora.bin")
    torch.save(layers, tmp_path / "pytorch_lora_weights.bin")
    with pytest.raises(OSError, match="safetensors"):
        adapted.load_lora_weights(tmp_path)


def test_nothing_to_save_is_refused(tmp_path):
    with pytest.raises(ValueError, match="no weights to save"):
        ImagenCascadePipeline.save_lora_weights(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="`save_directory` is the file"):
        ImagenCascadePipeline.save_lora_weights(tmp_path / "file", unet_lora_layers={"a": torch.ones(1)})


def test_weights_on_disk_are_no_place_for_an_adapter(adapted, fresh, tmp_path):
    adapted.save_lora_adapter(tmp_path / "style", adapter_name="style")
    pipe = fresh()
    pipe.enable_model_disk_offload()
    with pytest.raises(ValueError, match="are to be loaded before"):
        pipe.load_lora_weights(tmp_path / "style")
    pipe.remove_all_hooks()


def test_an_adapters_file_that_is_none_is_told_by_its_name(adapted, fresh, tmp_path):
    adapted.save_lora_adapter(tmp_path / "lora", "style")
    whole = (tmp_path / "lora" / FILE).read_bytes()
    (tmp_path / "lora" / FILE).write_bytes(whole[:-100])
    pipe = fresh()
    for load in (pipe.load_lora_weights, pipe.unet.load_lora_adapter):
        with pytest.raises(OSError, match=f"{FILE}' cannot be read as safetensors"):
            load(tmp_path / "lora")
        with pytest.raises(OSError, match="nowhere' does not exist; give the folder"):
            load(tmp_path / "nowhere")
        with pytest.raises(ValueError, match=r"'lora.bin' is no .safetensors file, and pickles may run code"):
            load(tmp_path / "lora", weight_name="lora.bin")
        with pytest.raises(ValueError, match=r"`adapter_name` is 'a\.b'; take one .* without a dot"):
            load(tmp_path / "lora", adapter_name="a.b")
    with pytest.raises(ValueError, match="holds no weights"):
        pipe.load_lora_weights({})
    assert pipe.get_list_adapters() == {}


def test_no_names_are_no_way_to_turn_adapters_off(adapted):
    with pytest.raises(ValueError, match=r"`adapter_names` is empty; .*disable_lora"):
        adapted.set_adapters([])


def test_weights_that_are_no_adapter_are_refused_by_name(adapted, fresh, tmp_path):
    adapted.save_lora_adapter(tmp_path, "style")
    weights = load_file(tmp_path / FILE)
    down = {name: weight for name, weight in weights.items() if "lora_A" in name}
    pipe = fresh()
    for wrong, message in (
        (down, r"lora_A.weight' for `unet`, but not '.*lora_B.weight'"),
        (weights | {name: weight[:1] for name, weight in down.items()}, r"of rank 1 .*lora_B.weight' of rank 2"),
        ({name: weight.long() for name, weight in weights.items()}, "of kind torch.int64; give tensors"),
        (dict.fromkeys(weights, 1), "of kind int; give tensors"),
        ({1: torch.zeros(2)}, "has 1 of kind torch.float32"),
        ({name: weight * float("nan") for name, weight in weights.items()}, "not finite; fetch or train it again"),
        (None, "The LoRA is None; give a folder"),
        (3, "The LoRA is 3; give a folder"),
    ):
        with pytest.raises(ValueError, match=message):
            pipe.load_lora_weights(wrong)
    with pytest.raises(ValueError, match="`adapter_name` is 5"):
        pipe.load_lora_weights(weights, adapter_name=5)
    assert pipe.get_list_adapters() == {}


@pytest.mark.parametrize("strength", [float("nan"), "x", True, [1.0, float("inf")], {"unet": {"down": "y"}}])
def test_strengths_that_are_no_numbers_are_refused(adapted, strength):
    with pytest.raises(ValueError, match=r"`adapter_weights` holds .*; give finite numbers"):
        adapted.set_adapters(["style"], strength)
    with pytest.raises(ValueError, match=r"`lora_scale` holds nan"):
        adapted.fuse_lora(lora_scale=float("nan"))
    with pytest.raises(ValueError, match=r"`adapter_names` holds 'none', but the U-Nets have \['line', 'style'\]"):
        adapted.delete_adapters("none")
    with pytest.raises(ValueError, match="`cross_attention_kwargs` is"):
        adapted("a cat", cross_attention_kwargs={"scale": float("nan")})
