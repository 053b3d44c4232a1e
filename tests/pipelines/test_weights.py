import pytest
import torch

from diffusers_imagen.pipelines.weights import align_weights


@pytest.fixture
def misaligned() -> torch.nn.Module:
    """Give a model whose weight and buffer begin 4 bytes after an aligned address."""
    model = torch.nn.BatchNorm1d(8)
    for weight in (*model.parameters(), model.running_mean):
        weight.data = torch.arange(9.0)[1:]
        assert weight.data_ptr() % 64
    return model


def test_weights_at_odd_addresses_are_moved_and_keep_their_values(misaligned):
    parameters = list(misaligned.parameters())
    align_weights(misaligned)
    assert all(weight.data_ptr() % 64 == 0 for weight in (*misaligned.parameters(), *misaligned.buffers()))
    assert all(torch.equal(weight, torch.arange(1.0, 9.0)) for weight in misaligned.parameters())
    # The parameters are the same objects, so that tied weights stay tied.
    assert all(a is b for a, b in zip(parameters, misaligned.parameters(), strict=True))


def test_aligned_weights_and_weights_without_memory_stay():
    model = torch.nn.Linear(4, 4)
    addresses = [weight.data_ptr() for weight in model.parameters()]
    align_weights(model)
    assert [weight.data_ptr() for weight in model.parameters()] == addresses
    align_weights(torch.nn.Linear(4, 4, device="meta"))


def test_channels_last_survives():
    model = torch.nn.Conv2d(4, 4, 3)
    storage = torch.randn(4 * 4 * 9 + 1)[1:]
    model.weight.data = storage.view(4, 3, 3, 4).permute(0, 3, 1, 2)
    align_weights(model)
    assert model.weight.data_ptr() % 64 == 0
    assert model.weight.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(model.weight.detach().permute(0, 2, 3, 1).flatten(), storage)
