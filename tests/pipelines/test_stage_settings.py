import pytest

from diffusers_imagen.pipelines.stage_settings import (
    StageSettings,
    default_settings,
    override_settings,
    per_stage,
    saved_settings,
)


def test_a_checkpoint_that_says_nothing_gives_the_defaults():
    for saved in (None, {}):
        settings = saved_settings(saved)
        assert list(settings) == ["base", "sr_1", "sr_2"]
        assert all(settings[stage] == default_settings(stage) for stage in settings)
    assert settings["base"].guidance_scale > 1
    assert settings["sr_1"].guidance_scale == 1
    assert settings["base"].threshold_percentile == 0.995


def test_saved_values_replace_defaults_one_by_one():
    settings = saved_settings({"base": {"num_inference_steps": 7}, "sr_2": None})
    assert settings["base"] == StageSettings(num_inference_steps=7)
    assert settings["sr_2"] == default_settings("sr_2")


def test_arguments_replace_saved_values_of_their_stages_only():
    saved = saved_settings({"base": {"guidance_scale": 2.0}, "sr_1": {"guidance_scale": 3.0}})
    arguments = {"guidance_scale": 4.0, "num_inference_steps": {"sr_1": 9}, "thresholding": None}
    changed = override_settings(saved, arguments, ["base", "sr_1"])
    assert (changed["base"].guidance_scale, changed["sr_1"].guidance_scale) == (4.0, 3.0)
    assert (changed["base"].num_inference_steps, changed["sr_1"].num_inference_steps) == (50, 9)
    assert changed["sr_2"] == saved["sr_2"]
    assert saved["base"].guidance_scale == 2.0


def test_no_noise_is_a_level_that_the_base_may_have():
    saved = saved_settings(None)
    assert override_settings(saved, {"noise_level": 0.0}, ["base"])["base"].noise_level == 0.0


@pytest.mark.parametrize(
    ("argument", "expected"), [(None, {}), (3, {"base": 3}), ([1, 2], {"base": [1, 2]}), ({"sr_1": 3}, {"sr_1": 3})]
)
def test_an_argument_by_stage(argument, expected):
    assert per_stage("steps", argument, ["base", "sr_1"]) == expected


@pytest.mark.parametrize(
    "values",
    [
        {"num_inference_steps": True},
        {"num_inference_steps": 2.0},
        {"guidance_scale": None},
        {"guidance_scale": float("inf")},
        {"guidance_rescale": -0.1},
        {"noise_level": 1.1},
        {"keep_color": 1},
        {"threshold_percentile": 1.2},
        {"threshold_max": 0.9},
        {"thresholding": None},
        {"resize": "lanczos"},
        {"guidance_interval": (0.0, 0.5, 1.0)},
        {"guidance_interval": (-0.1, 0.5)},
    ],
)
def test_a_value_out_of_range_is_named(values):
    (name,) = values
    with pytest.raises(ValueError, match=rf"`{name}` is "):
        StageSettings(**values)
