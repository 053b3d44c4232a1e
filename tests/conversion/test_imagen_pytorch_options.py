"""What the weights cannot tell: given, stored, usual, or asked for."""

from dataclasses import fields

import pytest

from diffusers_imagen.conversion.imagen_pytorch_options import (
    ImagenOptions,
    UnetOptions,
    by_stage,
    settle,
    stored_options,
    with_values,
)

OPEN = [["resnet_groups"], ["self_cond"]]


def test_everything_that_is_missing_is_asked_for_at_once_with_usual_values():
    with pytest.raises(ValueError, match="the weights cannot tell everything") as question:
        settle(ImagenOptions(timesteps=10), ImagenOptions(), OPEN, usual=False)
    lines = str(question.value).splitlines()[1:]
    assert "  image_sizes: no usual value" in lines
    assert "  lowres_sample_noise_level: usually 0.2" in lines
    assert "  unets.0.resnet_groups: usually 8" in lines
    assert "  unets.1.self_cond: usually true" in lines
    assert not any("timesteps" in line or "sigma" in line for line in lines)


def test_usual_values_are_taken_and_told_but_sizes_have_none():
    settled = settle(ImagenOptions(image_sizes=(8, 16)), ImagenOptions(), OPEN, usual=True)
    assert settled.shared["dynamic_thresholding_percentile"] == 0.95
    assert settled.unets[0]["resnet_groups"] == 8
    assert "unets.0.resnet_groups" in settled.assumed
    assert "image_sizes" not in settled.assumed
    with pytest.raises(ValueError, match="image_sizes: no usual value"):
        settle(ImagenOptions(), ImagenOptions(), OPEN, usual=True)


def test_what_is_given_goes_before_what_is_stored_and_that_before_the_usual():
    given = ImagenOptions(timesteps=10, unets=(UnetOptions(resnet_groups=4),))
    stored = stored_options("original", {"image_sizes": [8, 16], "timesteps": 20, "unets": [{"resnet_groups": 2}, {}]})
    settled = settle(given, stored, OPEN, usual=True)
    assert settled.shared["timesteps"] == 10
    assert settled.shared["image_sizes"] == [8, 16]
    assert settled.unets[0]["resnet_groups"] == 4
    assert settled.unets[1]["self_cond"] is False
    assert settled.shared["elucidated"] is False


def test_elucidated_cascades_are_asked_about_sigmas_instead_of_schedules():
    with pytest.raises(ValueError, match=r"sigma_max: usually 80\.0") as question:
        settle(ImagenOptions(elucidated=True), ImagenOptions(), [[]], usual=False)
    assert "noise_schedules" not in str(question.value)
    assert "lowres" not in str(question.value)


def test_schedules_are_filled_up_as_imagen_pytorch_does():
    assert by_stage("noise_schedules", "linear", 3) == ["linear", "cosine", "linear"]
    assert by_stage("noise_schedules", "cosine", 1) == ["cosine"]
    assert by_stage("noise_schedules", ["linear", "linear"], 2) == ["linear", "linear"]
    assert by_stage("timesteps", 7, 2) == [7, 7]
    with pytest.raises(ValueError, match=r"`timesteps` has 3 values, but there are 2 U-Nets"):
        by_stage("timesteps", [1, 2, 3], 2)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"image_sizes": (16, 8)}, "`image_sizes` is"),
        ({"image_sizes": (8,)}, "`image_sizes` has 1 values"),
        (
            {"elucidated": True, "sigma_min": 80.0},
            r"`sigma_min` is 80\.0; give less than `sigma_max`, \[80\.0, 80\.0\]",
        ),
        ({"elucidated": True, "timesteps": 5}, "`timesteps` is given, but this is an ElucidatedImagen"),
        ({"sigma_data": 0.5}, "`sigma_data` is given, but this is no ElucidatedImagen"),
        ({"unets": (UnetOptions(),) * 2 + (UnetOptions(self_cond=True),)}, r"`unets\.2` has options, but there are 2"),
    ],
)
def test_values_that_do_not_go_together_are_refused(changed, message):
    given = ImagenOptions(**({"image_sizes": (8, 16)} | changed))
    with pytest.raises(ValueError, match=message):
        settle(given, ImagenOptions(), OPEN, usual=True)


@pytest.mark.parametrize("value", ["False", "no", "maybe", 0, 1, [True, False]])
def test_what_is_neither_true_nor_false_is_refused_by_name(value):
    for name in ("elucidated", "unets.0.self_cond", "unets.1.scale_skip_connection", "unets.0.cosine_sim_attn"):
        with pytest.raises(ValueError, match=rf"`{name.split('.')[-1]}` is .*; give true or false"):
            with_values(ImagenOptions(), {name: value})


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("use_linear_cross_attn", ["abc", [True, "abc"], 1]),
        ("dynamic_thresholding", ["False", [True, None]]),
        ("image_sizes", ["abc", [True, 32], [0, 8], [8.0], -8]),
        ("noise_schedules", ["sigmoid", 1, {}, [["cosine"]]]),
        ("pred_objectives", ["eps"]),
        ("resize_mode", ["area", ["nearest"]]),
        ("timesteps", ["abc", 0, -5, 1e99, 10**9, 2.5]),
        ("num_sample_steps", [0]),
        ("sigma_data", [0, -1, "abc", float("nan")]),
        ("sigma_max", [float("nan"), float("inf")]),
        ("lowres_noise_schedule", [["linear", "linear"]]),
        ("lowres_sample_noise_level", [7, -1, float("nan"), True]),
        ("dynamic_thresholding_percentile", [0, 5, float("nan"), "abc"]),
        ("channels", ["abc", 0, -1]),
        ("attn_heads", [0, [8, 8]]),
        ("resnet_groups", [0, [8, "8"]]),
    ],
)
def test_a_value_of_another_kind_or_out_of_range_is_refused_by_name(name, values):
    place = f"unets.0.{name}" if name in {item.name for item in fields(UnetOptions)} else name
    for value in values:
        with pytest.raises(ValueError, match=rf"`{name}` is .*; give "):
            with_values(ImagenOptions(), {place: value})


def test_a_value_that_is_nested_without_end_is_refused_in_a_line():
    endless = []
    endless.append(endless)
    deep = []
    for _ in range(100_000):
        deep = [deep]
    for value in (endless, deep, ["x" * 10**6]):
        with pytest.raises(ValueError, match="`image_sizes` is") as refusal:
            stored_options("original", {"image_sizes": value})
        assert len(str(refusal.value)) < 300


@pytest.mark.parametrize(
    ("kind", "parameters", "message"),
    [
        ("original", [1, 2], "imagen_params in the checkpoint is a list, but maps names to values"),
        ("original", {"unets": 5}, "`unets` in `imagen_params` of the checkpoint is a int"),
        ("original", {"unets": [5]}, "the configuration of a U-Net in the checkpoint is a int"),
        ("original", {"timesteps": "x"}, "`timesteps` is 'x'"),
        ("video", {}, "`imagen_type` of the checkpoint"),
    ],
)
def test_a_stored_configuration_that_is_none_is_refused_by_name(kind, parameters, message):
    with pytest.raises(ValueError, match=message):
        stored_options(kind, parameters)


def test_a_stored_configuration_leaves_nothing_to_ask_for():
    stored = stored_options("original", {"image_sizes": [8, 16], "timesteps": 20, "unets": [{}, {}]})
    settled = settle(ImagenOptions(), stored, OPEN, usual=False)
    assert settled.shared["dynamic_thresholding_percentile"] == 0.95
    assert settled.shared["resize_mode"] == "nearest"
    assert settled.assumed == []
    elucidated = settle(ImagenOptions(), stored_options("elucidated", {"image_sizes": [8]}), [[]], usual=False)
    assert elucidated.shared["sigma_max"] == 80.0


def test_options_are_set_by_name():
    options = with_values(ImagenOptions(), {"timesteps": 5, "unets.1.resnet_groups": [4, 8]})
    assert options.timesteps == 5
    assert options.unets == (UnetOptions(), UnetOptions(resnet_groups=[4, 8]))
    for name in ("steps", "unets.0.dim", "unets.9.attn_heads", "unets.attn_heads"):
        with pytest.raises(ValueError, match=f"there is no option '{name}'"):
            with_values(ImagenOptions(), {name: 1})
