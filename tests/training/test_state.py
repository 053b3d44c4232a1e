import math
from collections.abc import Callable
from typing import Any

import pytest
import torch

from diffusers_imagen.training.config import ModelConfig, OptimizerConfig, TrainConfig
from diffusers_imagen.training.ema import ExponentialAverage
from diffusers_imagen.training.optimizer_state import OwnOptimizerState
from diffusers_imagen.training.optimizers import make_optimizer
from diffusers_imagen.training.state import TrainingState, check_unet, learning_rate, make_unet

MakeConfig = Callable[..., TrainConfig]


def make_state(config: TrainConfig, seed: int) -> TrainingState:
    torch.manual_seed(seed)
    unet = make_unet(config.model).to(memory_format=torch.channels_last)
    return TrainingState(
        unet, ExponentialAverage(unet, 0.9), OwnOptimizerState(make_optimizer(unet, config.optimizer))
    )


def own_optimizer(state: TrainingState) -> torch.optim.Optimizer:
    assert isinstance(state.optimizer, OwnOptimizerState)
    return state.optimizer.optimizer


def take_step(state: TrainingState) -> None:
    """Update every weight with a made-up gradient that depends on the step."""
    for number, weight in enumerate(state.unet.parameters()):
        generator = torch.Generator().manual_seed(1000 * state.step + number)
        weight.grad = torch.empty_like(weight).copy_(torch.randn(weight.shape, generator=generator))
    own_optimizer(state).step()
    state.ema.update(state.unet, state.updates)
    state.step += 1


def test_restored_state_goes_on_to_the_bit(make_config: MakeConfig) -> None:
    config = make_config()
    state, other = make_state(config, seed=0), make_state(config, seed=1)
    for _ in range(3):
        take_step(state)
    other.restore(state.to_checkpoint({}))
    assert other.step == 3
    for one in (state, other):
        take_step(one)

    for kept, restored in zip(
        [*state.unet.parameters(), *state.ema.model.parameters()],
        [*other.unet.parameters(), *other.ema.model.parameters()],
        strict=True,
    ):
        assert torch.equal(kept, restored)


def test_restored_moments_lie_in_memory_as_their_weights_do(make_config: MakeConfig) -> None:
    state = make_state(make_config(), seed=0)
    take_step(state)
    state.restore(state.to_checkpoint({}))

    four_axes = [weight for weight in state.unet.parameters() if weight.ndim == 4 and min(weight.shape) > 1]
    assert four_axes
    for weight in four_axes:
        assert own_optimizer(state).state[weight]["exp_avg"].stride() == weight.stride()


def test_checkpoint_of_another_unet_is_refused(make_config: MakeConfig) -> None:
    checkpoint = make_state(make_config(), seed=0).to_checkpoint({})
    wider = make_config(model={"config": {**make_config().model.config, "conditioning_dim": 32}})

    with pytest.raises(RuntimeError, match="size mismatch"):
        make_state(wider, seed=0).restore(checkpoint)


def test_skipped_steps_are_not_updates(make_config: MakeConfig) -> None:
    state = make_state(make_config(), seed=0)
    state.step, state.skipped = 10, 3
    other = make_state(make_config(), seed=0)
    other.restore(state.to_checkpoint({}))

    assert (other.step, other.skipped, other.updates) == (10, 3, 7)


def test_unknown_argument_of_the_unet_is_refused() -> None:
    with pytest.raises(ValueError, match=r"`model\.config` is refused by ImagenUNet2DConditionModel.*widht"):
        make_unet(ModelConfig(model_class="base", config={"widht": 3}))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"model": {"config": {"low_res_channels": 3}}},
            "is one of an enlargement, but `model.model_class` is 'base'",
        ),
        (
            {"enlarges": True, "model": {"config": {"low_res_channels": 0}}},
            "is one of a base, but `model.model_class` is 'super_resolution'",
        ),
        (
            {"enlarges": True, "data": {"size": 9, "crop": 3, "low_res_factor": 3}},
            "`data.crop` is 3, but the U-Net takes multiples of 4",
        ),
        ({"data": {"size": 9}}, "`data.size` is 9, but the U-Net takes multiples of 2"),
        ({"text": {"max_length": 17}}, "`text.max_length` is 17"),
        ({"model": {"config": {"num_text_layers": 2}}}, "width 16, but the U-Net takes 32"),
    ],
)
def test_unet_that_does_not_fit_the_run_is_refused(
    make_config: MakeConfig, changes: dict[str, Any], message: str
) -> None:
    if "model" in changes:
        whole = make_config(enlarges=changes.get("enlarges", False)).model.config
        changes = {**changes, "model": {"config": whole | changes["model"]["config"]}}
    config = make_config(**changes)

    with pytest.raises(ValueError, match=message):
        check_unet(make_unet(config.model), config, text_width=16)


def test_unet_can_start_from_a_saved_one(make_config: MakeConfig, tmp_path: object) -> None:
    saved = make_unet(make_config().model)
    saved.save_pretrained(tmp_path)
    loaded = make_unet(ModelConfig(model_class="base", pretrained=str(tmp_path), gradient_checkpointing=True))

    assert all(torch.equal(a, b) for a, b in zip(saved.parameters(), loaded.parameters(), strict=True))
    assert loaded.training
    assert loaded.is_gradient_checkpointing


def test_learning_rate_rises_and_then_stays_or_falls_to_zero() -> None:
    constant = OptimizerConfig(lr=2.0, warmup_steps=3)
    assert [learning_rate(constant, step, 100) for step in (0, 1, 2, 3, 99)] == [0.5, 1.0, 1.5, 2.0, 2.0]

    cosine = OptimizerConfig(lr=2.0, warmup_steps=20, schedule="cosine")
    assert learning_rate(cosine, 20, 100) == 2.0
    assert math.isclose(learning_rate(cosine, 60, 100), 1.0)
    assert 0 < learning_rate(cosine, 99, 100) < 0.001
