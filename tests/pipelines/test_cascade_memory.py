"""Diffusers' ways to less memory and time, and its callback classes, on a whole cascade: the same pictures."""

import copy
from typing import Any

import pytest
import torch
from diffusers.callbacks import MultiPipelineCallbacks, PipelineCallback, SDCFGCutoffCallback
from diffusers.hooks import apply_group_offloading
from peft import LoraConfig

from diffusers_imagen.pipelines.pipeline_imagen_cascade import ImagenCascadePipeline

UNETS = ("unet", "sr_unet_1")
BLOCKS = {"offload_type": "block_level", "num_blocks_per_group": 1}
LEAVES = {"offload_type": "leaf_level"}


@pytest.fixture
def own(make_cascade, cascade_parts) -> ImagenCascadePipeline:
    """Give a cascade whose models are its own, to be changed."""
    return make_cascade(2, **{name: copy.deepcopy(cascade_parts[name]) for name in ("text_encoder", *UNETS)})


@pytest.fixture
def expected(cascade) -> torch.Tensor:
    return draw(cascade)


def draw(pipe: Any, **arguments: Any) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return pipe("a red cat", generator=generator, output_type="latent", **arguments).images


@pytest.mark.parametrize("options", [BLOCKS, LEAVES], ids=["blocks", "leaves"])
def test_every_model_of_a_cascade_is_offloaded_in_groups(own, expected, tmp_path, options):
    # To files: without an accelerator, only there are weights really away.
    for name in UNETS:
        getattr(own, name).enable_group_offload("cpu", offload_to_disk_path=str(tmp_path / name), **options)
    apply_group_offloading(own.text_encoder, onload_device=torch.device("cpu"), **LEAVES)
    for _ in range(2):
        torch.testing.assert_close(draw(own), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("options", [BLOCKS, LEAVES], ids=["blocks", "leaves"])
def test_models_and_pipelines_may_share_a_folder_for_their_groups(make_cascade, own, cascade_parts, tmp_path, options):
    # Two enlargements of one shape, whose layers have the same names, and then a changed copy of everything.
    parts = {name: own.components[name] for name in ("text_encoder", *UNETS)}
    twin = copy.deepcopy(own.sr_unet_1)
    twin.register_to_config(sample_size=32)
    for weight in twin.parameters():
        weight.data *= 0.9
    pipes = [make_cascade(3, **copy.deepcopy(parts), sr_unet_2=twin)]
    pipes.append(make_cascade(3, **copy.deepcopy(parts), sr_unet_2=copy.deepcopy(twin)))
    for name in ("text_encoder", *UNETS):
        for weight in getattr(pipes[1], name).parameters():
            weight.data *= 0.8
    expected = [draw(pipe) for pipe in pipes]
    assert not torch.allclose(*expected, atol=1e-2)
    for pipe in pipes:
        pipe.enable_group_offload(torch.device("cpu"), offload_to_disk_path=tmp_path / "away", **options)
    for pipe, before in zip(pipes, expected, strict=True):
        torch.testing.assert_close(draw(pipe), before, rtol=0, atol=1e-5)


def test_the_pipeline_offloads_all_but_what_is_left_out(own, expected):
    own.enable_group_offload("cpu", offload_device="cpu", offload_type="leaf_level", exclude_modules="text_encoder")
    assert {name: hooked(getattr(own, name)) for name in ("text_encoder", *UNETS)} == {
        "text_encoder": False,
        "unet": True,
        "sr_unet_1": True,
    }
    torch.testing.assert_close(draw(own), expected, rtol=0, atol=1e-5)


def hooked(model: torch.nn.Module) -> bool:
    hooks = [layer._diffusers_hook for layer in model.modules() if hasattr(layer, "_diffusers_hook")]
    return any(hook.get_hook("group_offloading") is not None for hook in hooks)


def test_adapters_come_and_go_while_weights_are_offloaded_in_groups(own, expected, tmp_path):
    source = copy.deepcopy(own.unet)
    source.add_adapter(LoraConfig(r=2, lora_alpha=8, target_modules=["to_q", "to_v"], init_lora_weights=False))
    source.save_lora_adapter(tmp_path)
    own.unet.enable_group_offload("cpu", **LEAVES)
    own.load_lora_weights(tmp_path)
    styled = draw(own)
    assert not torch.allclose(styled, expected, atol=1e-3)
    own.unload_lora_weights()
    assert hooked(own.unet)
    torch.testing.assert_close(draw(own), expected, rtol=0, atol=1e-5)
    own.load_lora_weights(tmp_path)
    torch.testing.assert_close(draw(own), styled, rtol=0, atol=1e-5)


@pytest.mark.parametrize("method", ["enable_model_cpu_offload", "enable_sequential_cpu_offload"])
def test_offloading_to_the_cpu_is_refused_where_there_is_nothing_else(own, expected, monkeypatch, method):
    # What Diffusers finds where there is no accelerator, so that the test says the same where there is one.
    monkeypatch.setattr("diffusers.pipelines.pipeline_utils.get_device", lambda: "cpu")
    with pytest.raises(RuntimeError, match="requires accelerator, but not found"):
        getattr(own, method)()
    assert torch.equal(draw(own), expected)


def test_the_hooks_of_offloading_reach_every_model_and_draw_the_same(own, expected):
    # With the CPU for the accelerator: weights come and go, though not far.
    own.enable_model_cpu_offload(device="cpu")
    assert all(hasattr(getattr(own, name), "_hf_hook") for name in ("text_encoder", *UNETS))
    for _ in range(2):
        torch.testing.assert_close(draw(own), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("compute", [torch.float32, torch.bfloat16])
def test_u_nets_may_be_stored_in_eight_bits(own, expected, compute):
    own.to(dtype=compute)
    for name in UNETS:
        getattr(own, name).enable_layerwise_casting(storage_dtype=torch.float8_e4m3fn, compute_dtype=compute)
    for name in UNETS:
        stored = {weight.dtype for weight in getattr(own, name).parameters()}
        assert stored == {torch.float8_e4m3fn, compute}
    drawn = draw(own)
    assert drawn.dtype == expected.dtype
    # Eight bits are coarse: near, but not the same.
    assert 0 < (drawn - expected).abs().mean() < 0.2


def test_a_backend_for_attention_draws_the_same(own, expected):
    for name in UNETS:
        getattr(own, name).set_attention_backend("native")
    torch.testing.assert_close(draw(own), expected, rtol=0, atol=1e-4)


def test_slicing_attention_changes_nothing(own, expected):
    for size in (1, 2, "auto"):
        own.enable_attention_slicing(slice_size=size)
        assert torch.equal(draw(own), expected)
    own.disable_attention_slicing()


class Watch(PipelineCallback):
    """Notes what it is called with."""

    tensor_inputs = ("latents",)

    def __init__(self) -> None:
        super().__init__(cutoff_step_ratio=None, cutoff_step_index=1)
        self.seen: list[tuple[int, set[str]]] = []

    def callback_fn(self, pipeline: Any, step_index: int, timestep: Any, callback_kwargs: dict[str, Any]) -> Any:
        self.seen.append((step_index, set(callback_kwargs)))
        return callback_kwargs


def test_callbacks_of_diffusers_class_say_what_they_get_and_may_be_several(cascade, expected):
    first, second = Watch(), Watch()
    assert torch.equal(draw(cascade, callback_on_step_end=first), expected)
    assert first.seen == [(step, {"latents"}) for step in range(cascade.num_timesteps)]
    assert torch.equal(draw(cascade, callback_on_step_end=MultiPipelineCallbacks([first, second])), expected)
    assert second.seen == first.seen[: len(second.seen)] == second.seen


def test_a_callback_that_wants_other_tensors_than_there_are_is_refused(cascade):
    # Diffusers' own cutoff cuts the doubled batch of embeddings, which there is none of here.
    with pytest.raises(ValueError, match="prompt_embeds"):
        draw(cascade, callback_on_step_end=SDCFGCutoffCallback(cutoff_step_ratio=None, cutoff_step_index=1))


def test_a_variant_that_was_not_saved_is_refused(cascade, tmp_path):
    cascade.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="variant=fp16"):
        ImagenCascadePipeline.from_pretrained(tmp_path, variant="fp16")


def test_a_base_alone_keeps_the_guidance_that_a_callback_raised(make_cascade):
    def raise_guidance(pipe: Any, step: int, timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        pipe._guidance_scale += 1.0
        return tensors

    pipe = make_cascade(1)
    draw(pipe, guidance_scale=2.0, callback_on_step_end=raise_guidance)
    assert pipe.guidance_scale == 2.0 + pipe.num_timesteps
