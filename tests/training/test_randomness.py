import statistics
import time

import torch

from diffusers_imagen.training.randomness import draw_sample, sample_generator, seed_step


def test_draws_depend_on_seed_and_sample_only() -> None:
    torch.manual_seed(5)
    first = draw_sample(sample_generator(0, 7))
    torch.manual_seed(6)

    assert draw_sample(sample_generator(0, 7)) == first
    assert draw_sample(sample_generator(0, 8)) != first
    assert draw_sample(sample_generator(1, 7)) != first


def test_draws_are_uniform_and_unrelated_to_each_other() -> None:
    draws = torch.tensor([draw_sample(sample_generator(0, sample)) for sample in range(4000)])

    # A uniform mean of 4000 has a standard deviation of 0.0046, a correlation one of 0.016.
    assert (draws.mean(0) - 0.5).abs().max() < 5 * 0.0046
    assert (draws.var(0) - 1 / 12).abs().max() < 0.006
    assert (torch.corrcoef(draws.T) - torch.eye(draws.shape[1])).abs().max() < 5 * 0.016
    neighbours = torch.corrcoef(torch.stack([draws[:-1, 0], draws[1:, 0]]))[0, 1]
    assert neighbours.abs() < 5 * 0.016


def test_noise_of_neighbouring_samples_is_unrelated() -> None:
    noises = torch.stack([torch.randn(4096, generator=sample_generator(0, sample)) for sample in range(8)])

    assert (torch.corrcoef(noises) - torch.eye(8)).abs().max() < 5 / 64


def test_dropout_differs_by_step_and_process_and_can_be_repeated() -> None:
    def dropped(seed: int, step: int, process: int) -> list[float]:
        seed_step(seed, step, process)
        return torch.nn.functional.dropout(torch.ones(64)).tolist()

    same = dropped(0, 1, 0)
    assert dropped(0, 1, 0) == same
    assert all(dropped(*other) != same for other in ((0, 2, 0), (0, 1, 1), (1, 1, 0)))


def test_drawing_for_64_samples_takes_less_than_three_milliseconds() -> None:
    durations = []
    for _ in range(20):
        start = time.perf_counter()
        for sample in range(64):
            draw_sample(sample_generator(0, sample))
        durations.append(time.perf_counter() - start)

    assert statistics.median(durations) < 3e-3
