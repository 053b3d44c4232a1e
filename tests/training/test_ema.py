import torch
from torch import nn

from diffusers_imagen.training.ema import ExponentialAverage


def test_average_follows_the_recursion_with_warm_up() -> None:
    model = nn.Linear(1, 1, bias=False).double()
    average = ExponentialAverage(model, decay=0.5)
    expected = model.weight.item()
    for updates in range(20):
        with torch.no_grad():
            model.weight.fill_(updates**2)
        average.update(model, updates)
        decay = min(0.5, (1 + updates) / (10 + updates))
        expected = decay * expected + (1 - decay) * updates**2

    assert abs(average.model.weight.item() - expected) < 1e-9
    assert average.decay_at(0) == 0.1
    assert average.decay_at(1000) == 0.5


def test_average_is_apart_from_the_model_and_needs_no_gradient() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.5))
    average = ExponentialAverage(model, decay=0.9)

    assert not average.model.training
    assert model.training
    assert not any(weight.requires_grad for weight in average.model.parameters())
    before = average.model[0].weight.clone()
    with torch.no_grad():
        model[0].weight.add_(1)
    assert torch.equal(average.model[0].weight, before)


def test_buffers_are_copied() -> None:
    model = nn.BatchNorm1d(2)
    average = ExponentialAverage(model, decay=0.9)
    model(torch.randn(8, 2) + 3)
    average.update(model, 5)

    assert torch.equal(average.model.running_mean, model.running_mean)
    assert average.model.num_batches_tracked == 1
