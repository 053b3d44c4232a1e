"""The steps that the training benchmark times train: weights change, and what they compute is finite."""

import candidates
import pytest
import torch
import training
from results import OURS
from scale import SCALES


@pytest.mark.parametrize("side", [*OURS, "IF"])
def test_a_timed_step_changes_the_weights(side):
    scale = SCALES["quick"]
    unet = candidates.build(side, "base", scale)
    variant = training._VARIANTS[side][-1]
    candidates.apply(variant, unet)
    before = [weight.clone() for weight in unet.parameters()]
    training._step(side, variant, unet.train(), scale)()
    after = list(unet.parameters())
    assert all(bool(weight.isfinite().all()) for weight in after)
    assert any(not torch.equal(*pair) for pair in zip(before, after, strict=True))
