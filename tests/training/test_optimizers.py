from collections.abc import Callable

import pytest
import torch

from diffusers_imagen.training.config import OptimizerConfig, TrainConfig
from diffusers_imagen.training.ema import ExponentialAverage
from diffusers_imagen.training.optimizer_state import OwnOptimizerState
from diffusers_imagen.training.optimizers import make_optimizer, optimizer_class
from diffusers_imagen.training.state import TrainingState, make_unet

# What trains our U-Nets as it is; SparseAdam wants sparse gradients, Muon matrices only.
GENERAL = [
    "AdamW",
    "Adam",
    "Adafactor",
    "SGD",
    "RMSprop",
    "NAdam",
    "RAdam",
    "Adamax",
    "Adagrad",
    "Adadelta",
    "ASGD",
    "Rprop",
]


def make_state(config: TrainConfig, optimizer: OptimizerConfig, seed: int) -> TrainingState:
    torch.manual_seed(seed)
    unet = make_unet(config.model).to(memory_format=torch.channels_last)
    return TrainingState(unet, ExponentialAverage(unet, 0.9), OwnOptimizerState(make_optimizer(unet, optimizer)))


def own_optimizer(state: TrainingState) -> torch.optim.Optimizer:
    assert isinstance(state.optimizer, OwnOptimizerState)
    return state.optimizer.optimizer


def take_steps(state: TrainingState, count: int) -> None:
    for _ in range(count):
        for number, weight in enumerate(state.unet.parameters()):
            generator = torch.Generator().manual_seed(1000 * state.step + number)
            weight.grad = torch.empty_like(weight).copy_(torch.randn(weight.shape, generator=generator))
        own_optimizer(state).step()
        state.step += 1


@pytest.mark.parametrize("name", GENERAL)
def test_every_general_optimizer_is_saved_and_goes_on_to_the_bit(
    make_config: Callable[..., TrainConfig], name: str
) -> None:
    config, optimizer = make_config(), OptimizerConfig(name=name, lr=1e-3)
    state, other = make_state(config, optimizer, seed=0), make_state(config, optimizer, seed=1)
    before = [weight.clone() for weight in state.unet.parameters()]
    take_steps(state, 2)
    assert all(not torch.equal(old, new) for old, new in zip(before, state.unet.parameters(), strict=True))
    other.restore(state.to_checkpoint({}))
    for one in (state, other):
        take_steps(one, 2)

    assert all(torch.equal(a, b) for a, b in zip(state.unet.parameters(), other.unet.parameters(), strict=True))


def test_checkpoint_of_another_optimizer_is_refused(make_config: Callable[..., TrainConfig]) -> None:
    checkpoint = make_state(make_config(), OptimizerConfig(name="SGD"), seed=0).to_checkpoint({})
    with pytest.raises(ValueError, match=r"`optimizer\.name` is 'AdamW', but the run had 'SGD'"):
        make_state(make_config(), OptimizerConfig(), seed=0).restore(checkpoint)


def test_adamw_has_the_defaults_that_diffusion_wants_and_others_their_own() -> None:
    model = torch.nn.Linear(2, 2)
    adamw = make_optimizer(model, OptimizerConfig(lr=3e-4)).defaults
    assert (adamw["lr"], adamw["betas"], adamw["eps"], adamw["weight_decay"]) == (3e-4, (0.9, 0.99), 1e-8, 0.01)
    assert adamw["fused"]
    own = make_optimizer(model, OptimizerConfig(betas=(0.8, 0.9), weight_decay=0.0)).defaults
    assert (own["betas"], own["weight_decay"]) == ((0.8, 0.9), 0.0)
    assert make_optimizer(model, OptimizerConfig(name="Adam")).defaults["betas"] == (0.9, 0.999)
    chosen = OptimizerConfig(name="SGD", options={"momentum": 0.9, "nesterov": True})
    assert make_optimizer(model, chosen).defaults["nesterov"]


def test_lists_of_a_file_become_the_tuples_that_optimizers_take() -> None:
    config = OptimizerConfig(name="Rprop", options={"etas": [0.4, 1.3]})
    assert make_optimizer(torch.nn.Linear(2, 2), config).defaults["etas"] == (0.4, 1.3)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (OptimizerConfig(name="Adamw"), "`optimizer.name` is 'Adamw'; give a class of torch.optim"),
        (OptimizerConfig(name="lr_scheduler"), "`optimizer.name` is 'lr_scheduler'"),
        (OptimizerConfig(name="Optimizer"), "`optimizer.name` is 'Optimizer'"),
        (OptimizerConfig(name="LBFGS"), "computes the loss itself"),
        (OptimizerConfig(name="SGD", betas=(0.9, 0.9)), r"`optimizer.betas` is \(0.9, 0.9\), which SGD does not take"),
        (OptimizerConfig(options={"momentun": 1}), r"`optimizer.options` holds \['momentun'\], but AdamW takes"),
        (OptimizerConfig(options={"lr": 1}), r"`optimizer.options` holds \['lr'\]; set `optimizer.lr` alone"),
        (OptimizerConfig(name="SGD", options={"momentum": -1}), "`optimizer` is refused by SGD: Invalid momentum"),
        (OptimizerConfig(name="AdamW8bit"), "bitsandbytes' and that is not installed; run `pip install"),
    ],
)
def test_what_no_optimizer_takes_is_refused(config: OptimizerConfig, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_optimizer(torch.nn.Linear(2, 2), config)


def test_muon_is_refused_for_what_is_no_matrix() -> None:
    with pytest.raises(ValueError, match="`optimizer` is refused by Muon"):
        make_optimizer(torch.nn.Conv2d(2, 2, 3), OptimizerConfig(name="Muon"))
    assert optimizer_class("Muon") is torch.optim.Muon
