import ours
import peer_if
import pytest
import torch
from candidates import PACKED, apply, candidate, check_numbers, fill_zero_weights
from peer_imagen_pytorch import ToPILImage
from results import OURS
from scale import SCALES
from torch import nn

PARAMETERS = {"base": 40e6, "sr": 38e6, "large": 26e6}


@pytest.mark.parametrize("stage", PARAMETERS)
@pytest.mark.parametrize("side", [*OURS, "IF"])
def test_all_sides_have_equally_many_parameters(side, stage):
    pixels = SCALES["full"].pixels(stage)
    with torch.device("meta"):
        unet = peer_if.build(stage, "full", pixels) if side == "IF" else ours.build(side, stage, "full", pixels)
    assert sum(weight.numel() for weight in unet.parameters()) == pytest.approx(PARAMETERS[stage], rel=0.03)


@pytest.mark.parametrize("stage", PARAMETERS)
def test_our_candidates_predict_ordinary_numbers_in_every_stage(stage):
    one = candidate("fast", PACKED, stage, SCALES["quick"])
    output = one()
    check_numbers(one.name, output)
    assert output.shape == one.inputs.x.shape
    assert output.dtype == torch.bfloat16
    assert one.gflop > 0


def test_layers_at_zero_are_filled_and_others_left():
    layers = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    nn.init.zeros_(layers[0].weight)
    kept = layers[1].weight.clone()
    fill_zero_weights(layers)
    assert layers[0].weight.all()
    assert torch.equal(layers[1].weight, kept)


@pytest.mark.parametrize("value", [0.0, float("nan"), 1e-40])
def test_numbers_that_would_distort_a_time_are_refused(value):
    with pytest.raises(ValueError, match="distort"):
        check_numbers("fast", torch.full((4,), value))


def test_the_stand_in_for_torchvision_makes_the_picture():
    picture = torch.tensor([[[0.0, 1.0]], [[0.5, 1.0]], [[1.0, 1.0]]])
    image = ToPILImage()(picture)
    assert image.size == (2, 1)
    assert [image.getpixel((x, 0)) for x in range(2)] == [(0, 127, 255), (255, 255, 255)]


def test_a_variant_reaches_every_weight():
    unet = ours.build("paper", "base", "quick", 32)
    apply(PACKED, unet.eval())
    assert {weight.dtype for weight in unet.parameters()} == {torch.bfloat16}
