"""What Diffusers offers for any model, on each U-Net family: offloading in groups, compilation, adapters, shards."""

import copy
import json
from typing import Any

import pytest
import torch
from diffusers.hooks import apply_group_offloading
from diffusers.models.attention import AttentionModuleMixin
from diffusers.models.attention_dispatch import attention_backend
from diffusers.training_utils import EMAModel
from peft import LoraConfig

from diffusers_imagen.models.attention import ImagenAttention
from diffusers_imagen.models.unet_imagen import ImagenUNet2DConditionModel

BLOCKS = {"offload_type": "block_level", "num_blocks_per_group": 1}
LEAVES = {"offload_type": "leaf_level"}


@torch.no_grad()
def run(model: torch.nn.Module, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    return model(**inputs).sample


def lora(**settings: Any) -> LoraConfig:
    return LoraConfig(
        **{"r": 4, "lora_alpha": 8, "target_modules": ["to_q", "to_v"], "init_lora_weights": False} | settings
    )


@pytest.mark.parametrize("options", [BLOCKS, LEAVES], ids=["blocks", "leaves"])
def test_weights_offloaded_in_groups_come_back_for_every_block(unet, inputs_of, tmp_path, options):
    inputs = inputs_of(unet)
    expected = run(unet, inputs)
    # To files: without an accelerator, only there are weights really away.
    unet.enable_group_offload("cpu", offload_to_disk_path=str(tmp_path), **options)
    assert len(list(tmp_path.glob("*.safetensors"))) > 5
    assert torch.equal(run(unet, inputs), expected)
    assert torch.equal(run(unet, inputs), expected)


def test_a_folder_with_another_model_s_groups_is_not_read(unet, inputs_of, tmp_path):
    inputs = inputs_of(unet)
    other = copy.deepcopy(unet)
    for weight in other.parameters():
        weight.data *= 0.9
    expected = run(other, inputs)
    unet.enable_group_offload("cpu", offload_to_disk_path=tmp_path, **BLOCKS)
    first = set(tmp_path.iterdir())
    other.enable_group_offload("cpu", offload_to_disk_path=tmp_path, **BLOCKS)
    (beside,) = set(tmp_path.iterdir()) - first
    assert beside.name.startswith(type(unet).__name__)
    assert torch.equal(run(other, inputs), expected)


def test_groups_may_be_stored_in_half_precision_as_well(unet, inputs_of):
    inputs = inputs_of(unet)
    expected = run(unet, inputs)
    apply_group_offloading(unet, onload_device=torch.device("cpu"), **LEAVES)
    unet.enable_layerwise_casting(storage_dtype=torch.float16, compute_dtype=torch.float32)
    assert unet.conv_in.weight.dtype == torch.float16
    torch.testing.assert_close(run(unet, inputs), expected, rtol=0, atol=0.05)


def test_half_of_a_model_may_stay_on_disk(unet, inputs_of, tmp_path):
    inputs = inputs_of(unet)
    expected = run(unet, inputs)
    unet.save_pretrained(tmp_path)
    half = {"cpu": unet.get_memory_footprint() // 2}
    loaded = type(unet).from_pretrained(tmp_path, device_map="auto", max_memory=half, offload_folder=str(tmp_path))
    assert set(loaded.hf_device_map.values()) == {"cpu", "disk"}
    torch.testing.assert_close(run(loaded, inputs), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("storage", [torch.float8_e4m3fn, torch.float8_e5m2])
def test_weights_stored_in_eight_bits_take_less_memory_and_pass_gradients(unet, inputs_of, storage):
    inputs = inputs_of(unet)
    before = unet.get_memory_footprint()
    unet.enable_layerwise_casting(storage_dtype=storage, compute_dtype=torch.float32)
    assert unet.get_memory_footprint() < 0.7 * before
    with torch.amp.autocast("cpu", dtype=torch.bfloat16):
        loss = unet.train()(**inputs).sample.float().square().mean()
    loss.backward()
    assert unet.norm_out.weight.grad.isfinite().all()


@pytest.fixture
def smallest(tiny_config, randomised) -> ImagenUNet2DConditionModel:
    """Give a base of one level, which is quick to compile."""
    changed = {"block_out_channels": (8,), "layers_per_block": (1,), "attention_types": ("self",)}
    changed |= {"text_adapter_layers": 0, "log_snr_shift": 0.5}
    return randomised(ImagenUNet2DConditionModel(sample_size=8, patch_size=1, **tiny_config | changed))


def test_compiled_repeated_blocks_compute_the_same_and_are_not_compiled_again(smallest, inputs_of):
    inputs = inputs_of(smallest)
    expected = run(smallest, inputs)
    graphs = []

    def count(graph: torch.fx.GraphModule, _: list[torch.Tensor]) -> Any:
        graphs.append(graph)
        return graph.forward

    smallest.compile_repeated_blocks(fullgraph=True, backend=count)
    torch.testing.assert_close(run(smallest, inputs), expected, rtol=0, atol=1e-5)
    first = len(graphs)
    assert first > 0
    run(smallest, inputs)
    assert len(graphs) == first
    torch.compiler.reset()


def test_compiled_blocks_may_have_more_shapes_than_pytorch_has_variants_by_default(smallest, inputs_of):
    inputs = inputs_of(smallest)
    expected = run(smallest, inputs)
    smallest.compile_repeated_blocks(fullgraph=True, backend="eager")
    # Blocks of two widths: together they need more than one.
    with torch._dynamo.config.patch(recompile_limit=1):
        torch.testing.assert_close(run(smallest, inputs), expected, rtol=0, atol=1e-5)
    torch.compiler.reset()


def test_a_backend_set_on_the_model_or_around_it_is_the_same(unet, inputs_of):
    inputs = inputs_of(unet)
    expected = run(unet, inputs)
    with attention_backend("_native_math"):
        around = run(unet, inputs)
    unet.set_attention_backend("_native_math")
    assert torch.equal(run(unet, inputs), around)
    torch.testing.assert_close(around, expected, rtol=0, atol=1e-5)
    # Setting one also makes it everybody's default, which resetting leaves as it is.
    unet.set_attention_backend("native")
    unet.reset_attention_backend()
    assert torch.equal(run(unet, inputs), expected)


def test_attention_processors_are_read_and_set_as_those_of_other_models(unet):
    processors = unet.attn_processors
    layers = [layer for layer in unet.modules() if isinstance(layer, AttentionModuleMixin)]
    assert len(processors) == len(layers) > 0
    replaced = {name: copy.deepcopy(processor) for name, processor in processors.items()}
    unet.set_attn_processor(dict(replaced))
    assert [layer.get_processor() for layer in layers] == list(replaced.values())
    with pytest.raises(ValueError, match="number of processors"):
        unet.set_attn_processor({next(iter(processors)): next(iter(processors.values()))})


def test_fusing_projections_changes_nothing_where_keys_are_joined(unet, inputs_of):
    expected = run(unet, inputs_of(unet))
    unet.fuse_qkv_projections()
    torch.testing.assert_close(run(unet, inputs_of(unet)), expected, rtol=0, atol=1e-5)
    assert not any(hasattr(layer, "to_qkv") for layer in unet.modules() if isinstance(layer, ImagenAttention))
    unet.unfuse_qkv_projections()
    torch.testing.assert_close(run(unet, inputs_of(unet)), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("parallel", [False, True])
def test_shards_are_loaded_one_after_another_or_at_once(unet, inputs_of, tmp_path, monkeypatch, parallel):
    unet.save_pretrained(tmp_path, max_shard_size="60KB", variant="small")
    index = json.loads((tmp_path / "diffusion_pytorch_model.safetensors.index.small.json").read_text())
    assert len(set(index["weight_map"].values())) > 1
    monkeypatch.setattr("diffusers.utils.constants.HF_ENABLE_PARALLEL_LOADING", parallel)
    loaded = type(unet).from_pretrained(tmp_path, variant="small")
    assert torch.equal(run(loaded, inputs_of(unet)), run(unet, inputs_of(unet)))
    with pytest.raises(OSError, match="no file named"):
        type(unet).from_pretrained(tmp_path)


@pytest.mark.parametrize("low_memory", [False, True])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_saved_precision_is_the_loaded_one(base, tmp_path, dtype, low_memory):
    base.to(dtype).save_pretrained(tmp_path)
    loaded = type(base).from_pretrained(tmp_path, dtype=dtype, low_cpu_mem_usage=low_memory)
    assert {weight.dtype for weight in loaded.parameters()} == {dtype}


def test_a_tuple_is_what_the_object_holds_and_settings_are_in_the_config(base, inputs_of):
    inputs = inputs_of(base)
    with torch.no_grad():
        (first,) = base(**inputs, return_dict=False)
    assert torch.equal(first, run(base, inputs))
    with pytest.warns(FutureWarning, match="config attribute"):
        assert base.patch_size == 1
    with pytest.raises(AttributeError, match="'ImagenUNet2DConditionModel' object has no attribute 'nothing'"):
        _ = base.nothing


def test_training_goes_with_an_average_and_mixed_precision(unet, inputs_of):
    average = EMAModel(unet.parameters(), decay=0.5)
    before = unet.conv_in.weight.detach().clone()
    with torch.amp.autocast("cpu", dtype=torch.bfloat16):
        loss = unet.train()(**inputs_of(unet)).sample.float().square().mean()
    loss.backward()
    torch.optim.SGD(unet.parameters(), lr=0.1).step()
    for _ in range(2):  # The first step copies.
        average.step(unet.parameters())
    stored = dict(zip([name for name, _ in unet.named_parameters()], average.shadow_params, strict=True))
    assert not torch.equal(unet.conv_in.weight, before)
    assert stored["conv_in.weight"].isfinite().all()
    assert not torch.equal(stored["conv_in.weight"], before)


def test_checkpointing_is_switched_on_and_off(unet):
    assert not unet.is_gradient_checkpointing
    unet.enable_gradient_checkpointing()
    assert unet.is_gradient_checkpointing
    unet.disable_gradient_checkpointing()
    assert not unet.is_gradient_checkpointing


@pytest.mark.parametrize("with_magnitude", [False, True], ids=["LoRA", "DoRA"])
def test_an_adapter_comes_back_from_a_folder_a_path_or_a_file(unet, inputs_of, tmp_path, with_magnitude):
    inputs = inputs_of(unet)
    plain = run(unet, inputs)
    unet.add_adapter(lora(use_dora=with_magnitude))
    expected = run(unet, inputs)
    assert not torch.allclose(expected, plain, atol=1e-3)
    unet.save_lora_adapter(tmp_path)
    for place in (tmp_path, str(tmp_path), tmp_path / "pytorch_lora_weights.safetensors"):
        unet.unload_lora()
        assert torch.equal(run(unet, inputs), plain)
        unet.load_lora_adapter(place)
        assert unet.peft_config["default_0"].lora_alpha == 8
        torch.testing.assert_close(run(unet, inputs), expected, rtol=0, atol=1e-5)
    with pytest.raises(ValueError, match="Adapter name style not found"):
        unet.save_lora_adapter(tmp_path, adapter_name="style")


def test_adapters_of_another_rank_are_exchanged_in_place(base, inputs_of, tmp_path):
    inputs, other = inputs_of(base), copy.deepcopy(base)
    expected = {}
    for rank in (3, 5):
        trained = copy.deepcopy(base)
        torch.manual_seed(rank)
        trained.add_adapter(lora(r=rank))
        expected[rank] = run(trained, inputs)
        trained.save_lora_adapter(tmp_path / str(rank))
    other.enable_lora_hotswap(target_rank=5)
    other.load_lora_adapter(tmp_path / "3", adapter_name="style")
    torch.testing.assert_close(run(other, inputs), expected[3], rtol=0, atol=1e-4)
    weights = [parameter.data_ptr() for parameter in other.parameters()]
    other.load_lora_adapter(tmp_path / "5", adapter_name="style", hotswap=True)
    torch.testing.assert_close(run(other, inputs), expected[5], rtol=0, atol=1e-4)
    # The same memory, so that a compiled U-Net need not be compiled again.
    assert [parameter.data_ptr() for parameter in other.parameters()] == weights
