"""Cascades whose U-Nets are in several files, of which each says what its own are like."""

import pytest
import torch

from diffusers_imagen.conversion.imagen_pytorch import convert_imagen_pytorch
from diffusers_imagen.conversion.imagen_pytorch_checkpoint import find_unets
from diffusers_imagen.conversion.imagen_pytorch_options import ImagenOptions

SIZES = ImagenOptions(image_sizes=(8, 16))
BASE = {
    "pred_objectives": "v",
    "noise_schedules": "linear",
    "unets": [{"scale_skip_connection": False}, {"is_null": True}],
}
ENLARGEMENT = {"pred_objectives": "noise", "noise_schedules": "cosine", "unets": [{"is_null": True}, {}]}


@pytest.fixture
def states(latest, make_state):
    """The weights of a base and an enlargement, each with a placeholder for the other."""
    state = make_state(latest["shapes"])
    return [
        {key: value for key, value in state.items() if key.startswith(f"unets.{number}.")}
        | {f"unets.{1 - number}.dummy_parameter": torch.zeros(1)}
        for number in (0, 1)
    ]


def trained(state, parameters, kind="original"):
    return find_unets({"model": state, "version": "2.1.0", "imagen_type": kind, "imagen_params": parameters})


def bare(state, number):
    return {key.removeprefix(f"unets.{number}."): v for key, v in state.items() if key.startswith(f"unets.{number}.")}


def test_stages_in_files_of_their_own_are_put_together(states):
    both = convert_imagen_pytorch([find_unets(state) for state in states], SIZES, usual=True)
    assert list(both.stages) == ["base", "sr_1"]
    with pytest.raises(ValueError, match=r"hold the U-Nets \[1\]; a cascade is U-Net 0"):
        convert_imagen_pytorch([find_unets(states[1])], SIZES, usual=True)
    with pytest.raises(ValueError, match="two files hold U-Net 0"):
        convert_imagen_pytorch([find_unets(states[0]), find_unets(states[0])], SIZES, usual=True)


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_each_stage_is_what_its_own_file_says(states, order):
    # The base was trained alone.
    files = [
        trained(states[0], BASE | {"image_sizes": [8]}),
        trained(states[1], ENLARGEMENT | {"image_sizes": [8, 16]}),
    ]
    stages = convert_imagen_pytorch([files[number] for number in order]).stages
    assert [stage.config["sample_size"] for stage in stages.values()] == [8, 16]
    found = {
        name: [stage.config[key] for key in ("prediction_type", "noise_schedule", "scale_skips")]
        for name, stage in stages.items()
    }
    assert found == {"base": ["v_prediction", "linear", False], "sr_1": ["epsilon", "cosine", True]}


def test_a_file_that_says_nothing_is_what_the_other_says_of_its_stage(states):
    told = BASE | {
        "image_sizes": [8, 16],
        "pred_objectives": ["v", "x_start"],
        "unets": [{}, {"scale_skip_connection": False}],
    }
    stages = convert_imagen_pytorch([trained(states[0], told), find_unets(states[1])]).stages
    assert [stage.config["prediction_type"] for stage in stages.values()] == ["v_prediction", "sample"]
    assert [stage.config["scale_skips"] for stage in stages.values()] == [True, False]


def test_files_that_contradict_one_another_are_asked_about_and_what_is_given_decides(states):
    sizes = {"image_sizes": [8, 16]}
    parameters = [sizes | {"dynamic_thresholding_percentile": percentile} for percentile in (0.9, 0.95)]
    files = [trained(state, own | {"unets": [{}, {}]}) for state, own in zip(states, parameters, strict=True)]
    with pytest.raises(
        ValueError, match=r"`dynamic_thresholding_percentile` is 0\.9 in one file and 0\.95 in another"
    ):
        convert_imagen_pytorch(files)
    given = ImagenOptions(dynamic_thresholding_percentile=0.8)
    settings = convert_imagen_pytorch(files, given).stages["sr_1"].settings
    assert settings["threshold_percentile"] == 0.8


def test_what_no_file_says_of_a_stage_is_asked_for(states):
    three = {"image_sizes": [8], "pred_objectives": ["v"]}
    files = [trained(states[0], three | {"unets": [{}]}), trained(states[1], {"image_sizes": [4], "unets": [{}, {}]})]
    with pytest.raises(ValueError, match="`image_sizes` of U-Net 1 is in none of the files"):
        convert_imagen_pytorch(files)
    assert list(convert_imagen_pytorch(files, SIZES).stages) == ["base", "sr_1"]


def test_what_is_of_enlargements_alone_is_not_asked_of_the_base(states):
    sizes = {"image_sizes": [8, 16], "unets": [{}, {}]}
    files = [trained(states[0], sizes), trained(states[1], sizes | {"resize_mode": "bilinear"})]
    assert convert_imagen_pytorch(files).stages["sr_1"].settings["resize"] == "bilinear"


def test_files_without_numbers_count_by_their_place(states):
    single = [
        {"config": {"scale_skip_connection": number == 1}, "state_dict": bare(states[number], number)}
        for number in (0, 1)
    ]
    stages = convert_imagen_pytorch([find_unets(data) for data in single], SIZES, usual=True).stages
    assert [stage.config["scale_skips"] for stage in stages.values()] == [False, True]
    stages = convert_imagen_pytorch([find_unets(data["state_dict"]) for data in single], SIZES, usual=True).stages
    assert list(stages) == ["base", "sr_1"]


@pytest.mark.parametrize(
    ("order", "message"), [((1,), "U-Net 0 enlarges a smaller"), ((0, 0), "U-Net 1 takes no smaller")]
)
def test_u_nets_in_the_wrong_place_are_refused(states, order, message):
    files = [find_unets(bare(states[number], number)) for number in order]
    with pytest.raises(ValueError, match=message):
        convert_imagen_pytorch(files, SIZES, usual=True)
