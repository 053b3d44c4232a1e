import pytest
import torch
from diffusers.models.attention_dispatch import AttentionBackendName
from diffusers.models.attention_processor import AttnProcessor2_0
from peft import LoraConfig

from diffusers_imagen.models.attention import ImagenAttnProcessor
from diffusers_imagen.models.unet_imagen import ImagenUNet2DConditionModel


def largest_difference(a: torch.Tensor, b: torch.Tensor) -> float:
    return (a.double() - b.double()).abs().max().item()


def test_a_new_unet_predicts_zero():
    model = ImagenUNet2DConditionModel(
        sample_size=16, block_out_channels=(32, 64), layers_per_block=(1, 1), attention_types=("none", "self")
    )
    output = model(torch.randn(1, 3, 16, 16), 500, torch.randn(1, 4, 768)).sample
    assert output.abs().max() == 0


@torch.no_grad()
def test_padding_never_changes_the_result(unet, inputs_of):
    inputs = inputs_of(unet)
    expected = unet(**inputs).sample
    padding = torch.full((3, 7, 24), 1e3)
    inputs["encoder_hidden_states"] = torch.cat([inputs["encoder_hidden_states"], padding], dim=1)
    mask = inputs["encoder_attention_mask"]
    inputs["encoder_attention_mask"] = torch.cat([mask, mask.new_zeros(3, 7)], dim=1)
    assert largest_difference(unet(**inputs).sample, expected) < 1e-5 * expected.abs().max()


@torch.no_grad()
def test_states_under_the_mask_are_never_read(unet, inputs_of):
    inputs = inputs_of(unet)
    expected = unet(**inputs).sample
    states = inputs["encoder_hidden_states"].clone()
    states[~inputs["encoder_attention_mask"]] = 50.0
    assert largest_difference(unet(**inputs | {"encoder_hidden_states": states}).sample, expected) == 0


@torch.no_grad()
def test_batch_size_never_changes_the_result(unet, inputs_of):
    inputs = inputs_of(unet)
    together = unet(**inputs).sample
    for i in range(3):
        alone = unet(**{name: value[i : i + 1] for name, value in inputs.items()}).sample
        assert largest_difference(alone[0], together[i]) < 1e-5 * together.abs().max()


@torch.no_grad()
def test_every_condition_reaches_the_output(unet, inputs_of):
    inputs = inputs_of(unet)
    expected = unet(**inputs).sample
    for name, value in inputs.items():
        output = unet(**inputs | {name: value.flip(-1)}).sample
        assert largest_difference(output, expected) > 1e-4, name


@torch.no_grad()
def test_text_decides_and_null_text_is_not_a_zero_text(base, inputs_of):
    inputs = inputs_of(base, batch=1)
    null = base(**inputs | {"encoder_attention_mask": torch.zeros(1, 5, dtype=torch.bool)}).sample
    zeros = base(**inputs | {"encoder_hidden_states": torch.zeros(1, 5, 24)}).sample
    assert largest_difference(null, zeros) > 1e-3
    assert largest_difference(null, base(**inputs).sample) > 1e-3


@torch.no_grad()
def test_without_a_mask_all_tokens_are_real(unet, inputs_of):
    inputs = inputs_of(unet)
    everywhere = torch.ones(3, 5, dtype=torch.bool)
    assert torch.equal(
        unet(**inputs | {"encoder_attention_mask": None}).sample,
        unet(**inputs | {"encoder_attention_mask": everywhere}).sample,
    )


@torch.no_grad()
def test_time_is_continuous(base, inputs_of):
    inputs = inputs_of(base, batch=1)
    a, b, c = (base(**inputs | {"timestep": torch.tensor([t])}).sample for t in (500.0, 500.01, 510.0))
    assert 0 < largest_difference(a, b) < 0.05 * largest_difference(a, c)


@torch.no_grad()
def test_a_scalar_timestep_is_everybodys(base, inputs_of):
    inputs = inputs_of(base)
    same = base(**inputs | {"timestep": torch.full((3,), 250.0)}).sample
    assert torch.equal(base(**inputs | {"timestep": 250.0}).sample, same)


@torch.no_grad()
def test_bf16_weights_stay_near_fp32(unet, inputs_of):
    expected = unet(**inputs_of(unet)).sample
    output = unet.to(torch.bfloat16)(**inputs_of(unet, dtype=torch.bfloat16)).sample
    assert output.dtype == torch.bfloat16
    # Rounding alone, with PyTorch's own attention too, gives 2 to 4 % here.
    assert (output - expected).square().mean().sqrt() < 0.06 * expected.square().mean().sqrt()


@torch.no_grad()
def test_weights_stored_in_eight_bits_stay_near_fp32(unet, inputs_of):
    expected = unet(**inputs_of(unet)).sample
    unet.enable_layerwise_casting(storage_dtype=torch.float8_e4m3fn, compute_dtype=torch.float32)
    assert unet.conv_in.weight.dtype == torch.float8_e4m3fn
    output = unet(**inputs_of(unet)).sample
    assert output.dtype == torch.float32
    assert 0 < largest_difference(output, expected) < 0.3 * expected.abs().max()


@torch.no_grad()
def test_channels_last_gives_the_same(unet, inputs_of):
    inputs = inputs_of(unet)
    expected = unet(**inputs).sample
    output = unet.to(memory_format=torch.channels_last)(**inputs).sample
    assert largest_difference(output, expected) < 1e-5 * expected.abs().max()


@torch.no_grad()
def test_other_sizes_than_the_trained_one_run(unet, inputs_of):
    inputs = inputs_of(unet)
    for name in ("sample", "low_res"):
        if name in inputs:
            inputs[name] = torch.cat([inputs[name]] * 2, dim=-1)
    assert unet(**inputs).sample.shape == inputs["sample"].shape


def test_gradient_checkpointing_gives_the_same_gradients(unet, inputs_of):
    inputs = inputs_of(unet)
    gradients = []
    for enable in (False, True):
        if enable:
            unet.enable_gradient_checkpointing()
        unet.zero_grad()
        unet(**inputs).sample.square().mean().backward()
        gradients.append([p.grad.clone() for p in unet.parameters() if p.grad is not None])
    assert unet.is_gradient_checkpointing
    assert len(gradients[0]) == len(gradients[1]) > 50
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))


def test_every_weight_learns(unet, inputs_of):
    unet(**inputs_of(unet)).sample.square().mean().backward()
    silent = [name for name, p in unet.named_parameters() if p.grad is None or not p.grad.abs().max() > 0]
    assert silent == []


@torch.no_grad()
def test_set_attention_backend_reaches_every_attention(unet, inputs_of):
    inputs = inputs_of(unet)
    expected = unet(**inputs).sample
    unet.set_attention_backend("_native_math")
    try:
        assert {p._attention_backend for p in unet.attn_processors.values()} == {AttentionBackendName._NATIVE_MATH}
        assert largest_difference(unet(**inputs).sample, expected) < 1e-4 * expected.abs().max()
    finally:
        unet.set_attention_backend("native")


@torch.no_grad()
def test_saved_weights_draw_the_same(unet, inputs_of, tmp_path):
    unet.save_pretrained(tmp_path)
    loaded = type(unet).from_pretrained(tmp_path)
    for name, value in unet.config.items():
        if name.startswith("_"):
            continue
        assert loaded.config[name] == (list(value) if isinstance(value, tuple) else value), name
    assert torch.equal(loaded(**inputs_of(unet)).sample, unet(**inputs_of(unet)).sample)


def test_lora_starts_as_the_same_model_and_then_learns(base, inputs_of):
    expected = base(**inputs_of(base)).sample
    base.add_adapter(LoraConfig(r=2, lora_alpha=2, target_modules=["to_q", "to_k", "to_v", "add_k_proj"]))
    assert largest_difference(base(**inputs_of(base)).sample, expected) < 1e-5
    base(**inputs_of(base)).sample.square().mean().backward()
    assert any(p.grad is not None and p.grad.abs().max() > 0 for n, p in base.named_parameters() if "lora_B" in n)


@torch.no_grad()
def test_flow_map_target_starts_without_effect(inputs_of, randomised, tiny_config):
    model = randomised(ImagenUNet2DConditionModel(sample_size=16, patch_size=1, flow_map=True, **tiny_config))
    torch.nn.init.zeros_(model.target_embedding.mlp.linear_2.weight)
    inputs = inputs_of(model)
    assert torch.equal(model(**inputs, target_timestep=0.0).sample, model(**inputs).sample)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sample": torch.zeros(3, 3, 15, 16)}, "multiples of 2"),
        ({"encoder_hidden_states": torch.zeros(3, 5, 23)}, "of width 24"),
        ({"encoder_hidden_states": torch.zeros(3, 17, 24)}, "at most 16 tokens"),
        ({"low_res": torch.zeros(3, 3, 16, 16)}, "takes no one|takes no"),
        ({"target_timestep": 0.0}, "flow_map=False"),
    ],
)
def test_wrong_inputs_are_refused_with_a_remedy(base, inputs_of, change, message):
    with pytest.raises(ValueError, match=message):
        base(**inputs_of(base) | change)


def test_a_missing_low_res_is_refused(enlargement, inputs_of):
    inputs = inputs_of(enlargement)
    del inputs["low_res"]
    with pytest.raises(ValueError, match="`low_res` is missing"):
        enlargement(**inputs)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"block_order": "sideways"}, "`block_order`"),
        ({"layers_per_block": (1,)}, "`layers_per_block`"),
        ({"layers_per_block": (1, 0)}, "one block at least"),
        ({"attention_types": ("none", "some")}, "`attention_types`"),
        ({"norm_num_groups": 7}, "`norm_num_groups`=7"),
        ({"attention_head_dim": 24}, "`attention_head_dim`=24"),
        ({"sample_size": 15}, "`sample_size` is 15"),
        ({"format_version": 99}, "upgrade"),
    ],
)
def test_impossible_configurations_are_refused(change, message, tiny_config):
    with pytest.raises(ValueError, match=message):
        ImagenUNet2DConditionModel(**{"sample_size": 16, "patch_size": 1} | tiny_config | change)


def test_attention_takes_processors_of_its_own_kind_alone(unet, inputs_of):
    class Louder(ImagenAttnProcessor):
        def __call__(self, *args, **kwargs):
            return 2 * super().__call__(*args, **kwargs)

    inputs = inputs_of(unet)
    with torch.no_grad():
        expected = unet(**inputs).sample
        unet.set_attn_processor(AttnProcessor2_0())
        with pytest.raises(ValueError, match="`processor` is a AttnProcessor2_0, which does not fit"):
            unet(**inputs)
        unet.set_attn_processor(dict.fromkeys(unet.attn_processors, Louder()))
        assert not torch.allclose(unet(**inputs).sample, expected, atol=1e-4)
        unet.set_attn_processor(ImagenAttnProcessor())
        assert torch.equal(unet(**inputs).sample, expected)


@pytest.mark.parametrize(("dtype", "compute"), [(torch.float32, torch.bfloat16), (torch.bfloat16, torch.float32)])
def test_eight_bits_are_computed_in_the_precision_that_the_model_has(unet, inputs_of, dtype, compute):
    unet.to(dtype)
    with pytest.raises(ValueError, match=rf"`compute_dtype` is {compute}.*`\.to\({compute}\)` first"):
        unet.enable_layerwise_casting(torch.float8_e4m3fn, compute)
    unet.to(compute).enable_layerwise_casting(torch.float8_e4m3fn)
    assert unet.conv_in.weight.dtype == torch.float8_e4m3fn
    with torch.no_grad():
        assert unet(**inputs_of(unet, dtype=compute)).sample.isfinite().all()
