"""imagen-pytorch's U-Net as a model of ours; its numbers are compared with the peer's in tests/conversion."""

import pytest
import torch
from peft import LoraConfig
from peft.tuners.tuners_utils import BaseTunerLayer

from diffusers_imagen.models.stage_model import stage_model_for
from diffusers_imagen.models.unet_imagen_pytorch import ImagenPytorchUNet2DConditionModel
from diffusers_imagen.models.unet_imagen_pytorch_noise import low_res_condition, noise_condition

SMALL = {
    "sample_size": 8,
    "base_channels": 8,
    "init_channels": 8,
    "block_out_channels": (8, 16),
    "layers_per_block": (1, 1),
    "attention_types": ("none", "self"),
    "transformer_layers_per_block": (1, 1),
    "cross_attention_types": ("none", "softmax"),
    "attention_heads": 2,
    "attention_head_dim": 8,
    "cross_attention_heads": 2,
    "cross_attention_head_dim": 8,
    "cross_attention_dim": 8,
    "encoder_hid_dim": 6,
    "text_max_length": 5,
    "text_latents": 2,
}


def make(**changed):
    torch.manual_seed(0)
    return ImagenPytorchUNet2DConditionModel(**(SMALL | changed)).eval()


def inputs(unet, rows=2):
    torch.manual_seed(1)
    return torch.randn(rows, 3, 8, 8), torch.tensor([1.0, -2.0])[:rows], torch.randn(rows, 4, 6)


@torch.no_grad()
def test_padding_never_changes_a_prediction():
    unet = make()
    x, time, text = inputs(unet)
    mask = torch.tensor([[True, True, False, False]] * 2)
    short = unet(x, time, text[:, :2]).sample
    assert torch.equal(unet(x, time, text, mask).sample, short)
    assert not torch.equal(unet(x, time, text).sample, short)


@torch.no_grad()
def test_a_row_without_a_token_gets_the_null_text_and_only_that_row():
    unet = make()
    x, time, text = inputs(unet)
    mask = torch.tensor([[True] * 4, [False] * 4])
    mixed = unet(x, time, text, mask).sample
    torch.testing.assert_close(mixed[:1], unet(x[:1], time[:1], text[:1]).sample)
    torch.testing.assert_close(mixed[1:], unet(x[1:], time[1:], 9 * text[1:], mask[1:]).sample)


@torch.no_grad()
def test_a_text_that_was_encoded_before_gives_the_same():
    unet = make()
    x, time, text = inputs(unet)
    encoded = unet.encode_text(text)
    assert torch.equal(unet(x, time, encoded_text=encoded).sample, unet(x, time, text).sample)


@torch.no_grad()
def test_bfloat16_and_channels_last_run_and_stay_near():
    unet = make(memory_efficient=True, low_res_channels=3)
    x, time, text = inputs(unet)
    low_res = {"low_res": x.flip(0), "low_res_timestep": time.flip(0)}
    expected = unet(x, time, text, **low_res).sample
    last = unet.to(memory_format=torch.channels_last)
    torch.testing.assert_close(
        last(x.to(memory_format=torch.channels_last), time, text, **low_res).sample, expected, rtol=1e-4, atol=1e-5
    )
    half = unet.to(torch.bfloat16)
    found = half(x.bfloat16(), time, text.bfloat16(), **low_res).sample
    assert found.dtype is torch.bfloat16
    assert float((found.float() - expected).abs().mean() / expected.abs().mean()) < 0.05


def test_a_picture_need_not_be_square():
    unet = make(combine_up_maps=True)
    assert unet(torch.randn(1, 3, 4, 12), 1.0, torch.randn(1, 2, 6)).sample.shape == (1, 3, 4, 12)


def test_every_weight_has_a_gradient():
    unet = make(low_res_channels=3, self_condition=True, condition_image_channels=2).train()
    x, time, text = inputs(unet)
    mask = torch.tensor([[True, False, False, False], [False] * 4])
    more = {"self_condition": x, "condition_image": torch.randn(2, 2, 4, 4)}
    unet(x, time, text, mask, low_res=x, low_res_timestep=time, **more).sample.square().sum().backward()
    idle = [name for name, weight in unet.named_parameters() if weight.grad is None]
    assert idle == []


def test_it_is_saved_and_loaded_to_the_bit(tmp_path):
    unet = make()
    unet.save_pretrained(tmp_path)
    again = ImagenPytorchUNet2DConditionModel.from_pretrained(tmp_path)
    assert dict(again.config)["block_out_channels"] == [8, 16]
    for name, weight in unet.state_dict().items():
        assert torch.equal(again.state_dict()[name], weight)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"format_version": 2}, "`format_version` is 2"),
        ({"similarity": "l2"}, "`similarity` is 'l2'"),
        ({"layers_per_block": (1,)}, r"`layers_per_block` is \(1,\)"),
        ({"attention_types": ("none", "all")}, "`attention_types` holds 'all'"),
        ({"low_res_channels": 1}, "`low_res_channels` is 1"),
        ({"sigma_data": 0.5}, "`prediction_type` is 'epsilon', but with `sigma_data`"),
        ({"noise_condition": "step"}, "needs `num_train_timesteps`"),
        ({"prediction_type": "eps"}, "`prediction_type` is 'eps'"),
    ],
)
def test_a_configuration_that_cannot_be_is_refused(changed, message):
    with pytest.raises(ValueError, match=message):
        make(**changed)


def test_inputs_that_are_missing_or_unknown_are_refused():
    unet, x = make(), torch.randn(1, 3, 8, 8)
    for arguments, message in (
        ({"sample": x[..., :7]}, "`sample` is 8 x 7 pixels, but this U-Net takes multiples of 2"),
        ({"sample": x, "low_res": x}, "`low_res` is given"),
        ({"sample": x, "self_condition": x}, "`self_condition` is given"),
        ({"sample": x, "condition_image": x}, "`condition_image` is given"),
    ):
        with pytest.raises(ValueError, match=message):
            unet(timestep=1.0, **arguments)
    with pytest.raises(ValueError, match="`low_res` is missing"):
        make(low_res_channels=3)(x, 1.0)


@torch.no_grad()
def test_edm_preconditioning_gives_the_clean_picture_at_the_clean_end():
    unet = make(prediction_type="sample", sigma_data=0.5, log_snr_min=-8.0, log_snr_max=14.0)
    model = stage_model_for(unet)
    x_0 = torch.randn(1, 3, 8, 8).clamp(-1, 1)
    text, mask = torch.randn(1, 2, 6), torch.ones(1, 2, dtype=torch.bool)
    found = model.predict(x_0, torch.tensor([14.0]), text, mask).value
    torch.testing.assert_close(found, x_0, atol=2e-2, rtol=0)
    # In double precision, from the definitions of table 1 in arXiv:2206.00364.
    log_snr = torch.tensor([1.2])
    sigma = float(torch.exp(-log_snr / 2))
    x_ve = x_0.double() * (1 + sigma**2) ** 0.5
    c_skip, c_out = 0.25 / (sigma**2 + 0.25), sigma * 0.5 / (sigma**2 + 0.25) ** 0.5
    raw = unet((x_ve / (sigma**2 + 0.25) ** 0.5).float(), torch.tensor([0.25]) * torch.tensor(sigma).log(), text, mask)
    expected = c_skip * x_ve + c_out * raw.sample.double()
    torch.testing.assert_close(model.predict(x_0, log_snr, text, mask).value.double(), expected, atol=1e-5, rtol=1e-5)


def test_noise_is_told_as_the_model_learned_it():
    log_snr = torch.tensor([1.0, -2.0])
    assert torch.equal(noise_condition(make().config, log_snr), log_snr)
    edm = make(prediction_type="sample", sigma_data=0.5).config
    torch.testing.assert_close(noise_condition(edm, log_snr), torch.exp(-log_snr / 2).log() / 4)
    told = low_res_condition(make().config, torch.tensor([0.0, 0.5, 1.0]))
    torch.testing.assert_close(told, torch.tensor([9.21029, 0.0, -10.0001]), atol=1e-3, rtol=0)


def test_a_u_net_that_wants_a_conditioning_picture_drives_no_cascade():
    with pytest.raises(ValueError, match="`condition_image_channels` of the U-Net is 3"):
        stage_model_for(make(condition_image_channels=3))


@torch.no_grad()
def test_weights_offloaded_in_groups_come_back_for_every_block(tmp_path):
    unet = make()
    expected = unet(*inputs(unet)).sample
    # To files: without an accelerator, only there are weights really away.
    unet.enable_group_offload(
        "cpu", offload_type="block_level", num_blocks_per_group=1, offload_to_disk_path=str(tmp_path)
    )
    torch.testing.assert_close(unet(*inputs(unet)).sample, expected, rtol=0, atol=1e-6)


def test_a_weight_for_the_middle_reaches_all_of_it():
    unet = make()
    linear = [name for name, layer in unet.named_modules() if isinstance(layer, torch.nn.Linear)]
    targets = [name for name in linear if name.startswith(("mid_", "up_levels"))]
    unet.add_adapter(LoraConfig(r=2, lora_alpha=2, target_modules=targets))
    unet.set_adapters("default", {"mid": 3})
    scalings = {n: layer.scaling["default"] for n, layer in unet.named_modules() if isinstance(layer, BaseTunerLayer)}
    assert {name.partition(".")[0] for name in scalings} >= {"mid_block1", "mid_block2", "up_levels"}
    assert all(scaling == (3 if name.startswith("mid_") else 1) for name, scaling in scalings.items())
