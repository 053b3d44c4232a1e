"""What the weights cannot tell: given, stored, usual, or asked for."""

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
    assert "  unets.1.self_cond: usually True" in lines
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
        ({"noise_schedules": "sigmoid"}, "`noise_schedules` is 'sigmoid'"),
        ({"pred_objectives": "eps"}, "`pred_objectives` is 'eps'"),
        ({"resize_mode": "area"}, "`resize_mode` is 'area'; this package knows nearest, bilinear"),
    ],
)
def test_a_value_that_cannot_be_is_refused(changed, message):
    given = ImagenOptions(**({"image_sizes": (8, 16)} | changed))
    with pytest.raises(ValueError, match=message):
        settle(given, ImagenOptions(), OPEN, usual=True)


def test_options_are_set_by_name():
    options = with_values(ImagenOptions(), {"timesteps": 5, "unets.1.resnet_groups": [4, 8]})
    assert options.timesteps == 5
    assert options.unets == (UnetOptions(), UnetOptions(resnet_groups=[4, 8]))
    for name in ("steps", "unets.0.dim", "unets.9.attn_heads", "unets.attn_heads"):
        with pytest.raises(ValueError, match=f"there is no option '{name}'"):
            with_values(ImagenOptions(), {name: 1})
