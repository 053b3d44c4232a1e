import numpy as np
import torch

from diffusers_imagen.data.degradation import Degradation


def noise(side: int = 32) -> torch.Tensor:
    return torch.randint(0, 256, (3, side, side), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def roughness(image: torch.Tensor) -> float:
    return image.double().diff(dim=-1).abs().mean().item()


def test_nothing_asked_for_is_nothing_done() -> None:
    assert not Degradation()
    assert torch.equal(Degradation()(noise(), 0, 0), noise())
    assert Degradation(blur=1.0)
    assert Degradation(jpeg_quality=50)


def test_amount_depends_on_seed_and_sample_alone() -> None:
    degrade = Degradation(blur=2.0, jpeg_quality=30)
    results = {(seed, sample): degrade(noise(), seed, sample) for seed in (0, 1) for sample in (0, 1, 5)}

    for (seed, sample), result in results.items():
        assert result.shape == (3, 32, 32)
        assert result.dtype == torch.uint8
        assert torch.equal(Degradation(2.0, 30)(noise(), seed, sample), result)
    assert len({result.numpy().tobytes() for result in results.values()}) == len(results)


def test_blur_goes_from_none_to_the_given_deviation() -> None:
    dot = torch.zeros(3, 65, 65, dtype=torch.uint8)
    dot[:, 28:37, 28:37] = 255
    widths = []
    for sample in range(200):
        weights = Degradation(blur=3.0)(dot, 0, sample)[0, 32].double()
        place = torch.arange(65).double() - 32
        # Variances of the square's side and of the blur add up.
        widths.append(((weights * place**2).sum() / weights.sum() - (81 - 1) / 12).clamp(min=0).sqrt().item())

    # Uniform on [0, 3], to the accuracy of 8-bit pixels.
    assert abs(np.mean(widths) - 1.5) < 0.25
    assert min(widths) < 0.2
    assert 2.6 < max(widths) < 3.2


def test_jpeg_of_lower_quality_is_further_from_the_picture() -> None:
    smooth = (torch.linspace(0, 255, 32).expand(3, 32, 32) * 0.5 + noise() * 0.5).to(torch.uint8)
    errors = [
        np.mean([(Degradation(jpeg_quality=q)(smooth, 0, n).double() - smooth).abs().mean() for n in range(10)])
        for q in (95, 60, 20, 1)
    ]

    assert 0 < errors[0] < errors[1] < errors[2] < errors[3]


def test_blurred_pictures_are_smoother_and_keep_their_mean() -> None:
    blurred = Degradation(blur=4.0)(noise(), 0, 0)

    assert roughness(blurred) < roughness(noise()) / 2
    assert abs(blurred.double().mean() - noise().double().mean()) < 2
