"""Conversion of whole cascades, against names, shapes and predictions that imagen-pytorch itself gave."""

import pytest
import torch

from diffusers_imagen.conversion.imagen_pytorch import convert_imagen_pytorch, export_imagen_pytorch
from diffusers_imagen.conversion.imagen_pytorch_checkpoint import find_unets
from diffusers_imagen.conversion.imagen_pytorch_keys import their_name
from diffusers_imagen.conversion.imagen_pytorch_options import ImagenOptions, UnetOptions
from diffusers_imagen.models.unet_imagen_pytorch import ImagenPytorchUNet2DConditionModel

SIZES = ImagenOptions(image_sizes=(8, 16))


def converted(state, options=SIZES):
    return convert_imagen_pytorch([find_unets(state)], options, usual=True)


def unet_of(stage):
    unet = ImagenPytorchUNet2DConditionModel(**stage.config)
    unet.load_state_dict(stage.state)
    return unet.eval()


@torch.no_grad()
def test_a_converted_u_net_predicts_what_its_own_release_does(cascade, make_state, make_inputs):
    unet = unet_of(converted(make_state(cascade["shapes"])).stages["sr_1"])
    given = make_inputs(8, unet.config.encoder_hid_dim)
    arguments = (given["x"], given["time"], given["text_embeds"])
    low_res = {"low_res": given["lowres_cond_img"], "low_res_timestep": given["lowres_noise_times"]}
    for name, mask in (("prediction", given["text_mask"]), ("without_text", given["text_mask"] & False)):
        expected = torch.tensor(cascade[name])
        found = unet(*arguments, mask, **low_res).sample.flatten()[::16]
        assert expected.std() > 1e-2
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_the_way_back_gives_the_same_names_and_tensors_to_the_bit(cascade, make_state):
    state = make_state(cascade["shapes"])
    stages = converted(state).stages
    back = export_imagen_pytorch({name: (stage.config, stage.state) for name, stage in stages.items()})
    assert set(back) == set(state)
    for name, tensor in state.items():
        assert back[name].shape == tensor.shape
        assert torch.equal(back[name], tensor), name


def test_tensors_are_not_copied(latest, make_state):
    state = make_state(latest["shapes"])
    places = {tensor.data_ptr() for tensor in state.values()}
    assert {t.data_ptr() for stage in converted(state).stages.values() for t in stage.state.values()} == places


@pytest.mark.parametrize("name", ["downs.0.1.surprise", "mid_attn.layers.0.2.weight", "colour"])
def test_an_extra_weight_is_refused_by_name(latest, make_state, name):
    state = make_state(latest["shapes"]) | {f"unets.1.{name}": torch.ones(4, 4)}
    with pytest.raises(RuntimeError, match=rf"Unexpected key.*{name.split('.')[-1]}"):
        unet_of(converted(state).stages["sr_1"])


def test_a_missing_weight_is_seen_by_the_strict_loading(latest, make_state):
    state = make_state(latest["shapes"])
    del state[
        "unets.1.mid_block2.film" if "unets.1.mid_block2.film" in state else "unets.1.mid_block2.time_mlp.1.bias"
    ]
    with pytest.raises(RuntimeError, match=r"Missing key.*mid_block2\.film\.bias"):
        unet_of(converted(state).stages["sr_1"])


def test_a_constant_that_is_none_is_refused(make_state, first):
    state = make_state(first["shapes"])
    name = next(name for name in state if name.endswith(".beta"))
    state[name] = state[name] + 1
    with pytest.raises(ValueError, match=r"is not zero, though nothing ever changes it"):
        converted(state)


def test_objectives_and_schedules_become_the_noise_process(latest, make_state):
    options = ImagenOptions(image_sizes=(8, 16), pred_objectives=("v", "x_start"), noise_schedules=("linear",))
    stages = converted(make_state(latest["shapes"]), options).stages
    assert [stage.config["prediction_type"] for stage in stages.values()] == ["v_prediction", "sample"]
    assert [stage.config["noise_schedule"] for stage in stages.values()] == ["linear", "cosine"]
    assert stages["base"].config["log_snr_max"] == pytest.approx(9.2103, abs=1e-4)
    assert stages["sr_1"].config["log_snr_max"] == pytest.approx(8.7693, abs=1e-4)


def test_an_elucidated_cascade_predicts_clean_pictures_between_its_sigmas(latest, make_state):
    options = ImagenOptions(image_sizes=(8, 16), elucidated=True, sigma_max=100.0)
    config = converted(make_state(latest["shapes"]), options).stages["base"].config
    assert config["prediction_type"] == "sample"
    assert config["sigma_data"] == 0.5
    assert config["log_snr_min"] == pytest.approx(-9.2103, abs=1e-4)
    assert config["log_snr_max"] == pytest.approx(12.4292, abs=1e-4)


def test_a_video_u_net_and_a_stranger_are_refused(latest, make_state):
    state = make_state(latest["shapes"])
    with pytest.raises(ValueError, match="for videos"):
        converted(state | {"unets.0.downs.0.5.temporal.weight": torch.ones(1)})
    with pytest.raises(ValueError, match="no `mid_block1`"):
        converted({"unets.0.conv.weight": torch.ones(1)})


def test_a_spare_input_of_three_channels_is_asked_about(latest, make_state):
    shapes = {key: shape for key, shape in latest["shapes"].items() if key.startswith("unets.0.")}
    shapes |= {
        key: [shape[0], 6, *shape[2:]] for key, shape in shapes.items() if "init_conv" in key and "weight" in key
    }
    found = find_unets(make_state(shapes))
    with pytest.raises(ValueError, match=r"unets\.0\.self_cond: usually true"):
        convert_imagen_pytorch([found], ImagenOptions(image_sizes=(8,)))
    for self_cond, spare in ((True, 0), (False, 3)):
        options = ImagenOptions(image_sizes=(8,), unets=(UnetOptions(self_cond=self_cond),))
        config = convert_imagen_pytorch([found], options, usual=True).stages["base"].config
        assert (config["self_condition"], config["condition_image_channels"]) == (self_cond, spare)


def test_the_plain_attention_to_text_goes_before_the_linear_one_in_old_releases(latest, first, make_state):
    unets = (UnetOptions(use_linear_cross_attn=True, layer_cross_attns=(True, False)),) * 2
    options = ImagenOptions(image_sizes=(8, 16), unets=unets)
    kinds = [
        converted(make_state(reference["shapes"]), options).stages["base"].config["cross_attention_types"]
        for reference in (first, latest)
    ]
    assert kinds == [("softmax", "linear"), ("linear", "linear")]


def test_the_report_says_what_was_assumed(latest, make_state):
    report = "\n".join(converted(make_state(latest["shapes"])).report)
    assert "layout of release 2.0" in report
    assert "usual values taken for: elucidated, noise_schedules" in report
    assert "unets.1.scale_skip_connection" in report


STRUCTURE = (
    "final_conv.weight",
    "null_text_hidden",
    "null_text_embed",
    "to_time_tokens.0.weight",
    "init_conv.convs.0.weight",
    "final_res_block.block1.project.weight",
)


@pytest.mark.parametrize("name", STRUCTURE)
def test_a_weight_that_tells_the_layers_is_asked_for_by_name(latest, make_state, name):
    state = {key: value for key, value in make_state(latest["shapes"]).items() if key.startswith("unets.0.")}
    options, place = ImagenOptions(image_sizes=(8,)), f"unets.0.{name}"
    assert place in state
    for wrong in (torch.zeros(()), torch.zeros(0), state[place][None], torch.zeros([0] * state[place].ndim)):
        with pytest.raises(ValueError, match=rf"`{name}` of the U-Net has shape"):
            converted(state | {place: wrong}, options)
    del state[place]
    if "final_res" not in name:  # without it there is no such block, which the strict loading sees
        with pytest.raises(ValueError, match=rf"the U-Net lacks `{name}`"):
            converted(state, options)


def test_all_arguments_of_a_u_net_may_be_given_also_those_that_say_nothing_to_its_release(latest, make_state):
    told = UnetOptions(resnet_groups=8, cosine_sim_attn=False, attn_heads=2, scale_skip_connection=True)
    options = ImagenOptions(image_sizes=(8, 16), unets=(told, told))
    config = converted(make_state(latest["shapes"]), options).stages["base"].config
    assert (config["norm_num_groups"], config["similarity"]) == (None, "rms")


@pytest.mark.parametrize(
    ("unet", "message"),
    [
        (UnetOptions(attn_heads=3), r"`unets\.0\.attn_heads` is 3, but the weights say \d"),
        (UnetOptions(self_cond=True), "3 input channels too few for `channels`, 3, and `self_cond`, true"),
        (UnetOptions(channels=4), "1 input channels too few for `channels`, 4"),
    ],
)
def test_options_that_contradict_the_weights_are_refused(latest, make_state, unet, message):
    with pytest.raises(ValueError, match=message):
        converted(make_state(latest["shapes"]), ImagenOptions(image_sizes=(8, 16), unets=(unet,)))


def test_a_feed_forwards_factor_fits_the_way_up_as_well_as_the_way_down():
    levels = (8, 16, 32, 64)
    unet = ImagenPytorchUNet2DConditionModel(
        sample_size=8,
        base_channels=8,
        init_channels=8,
        block_out_channels=levels,
        layers_per_block=(1,) * 4,
        attention_heads=2,
        attention_head_dim=8,
        cross_attention_heads=2,
        cross_attention_head_dim=8,
        cross_attention_dim=8,
        encoder_hid_dim=6,
        text_max_length=5,
        text_latents=2,
        feed_forward_mult=4 / 3,
    )
    state = {f"unets.0.{their_name(key)}": value for key, value in unet.state_dict().items()}
    # The way down is 8, 8, 16 and 32 wide and the way up 64 at most: only there are the widths of 1.3125 others.
    assert {int(dim * 4 / 3) == int(dim * 1.3125) for dim in levels[:3]} == {True}
    found = convert_imagen_pytorch([find_unets(state)], ImagenOptions(image_sizes=(8,)), usual=True).stages["base"]
    unet_of(found)
