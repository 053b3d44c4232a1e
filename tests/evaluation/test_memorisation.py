import pytest
import torch
from PIL import Image

from diffusers_imagen.evaluation.memorisation import Nearest, compare_nearness, nearest_in, small_pixels


def test_the_nearest_vector_is_found_by_looking_at_all() -> None:
    generator = torch.Generator().manual_seed(0)
    queries, training = torch.randn(20, 5, generator=generator), torch.randn(30, 5, generator=generator)
    found = nearest_in(queries, training)
    for query, distance, index in zip(queries, found.distance, found.index, strict=True):
        distances = [float((query - other).norm()) for other in training]
        assert int(index) == distances.index(min(distances))
        assert float(distance) == pytest.approx(min(distances), rel=1e-4)


def test_pixel_distances_are_root_mean_squares() -> None:
    black, white = (small_pixels([Image.new("RGB", (64, 64), color)]) for color in ("black", "white"))
    assert nearest_in(white, black).distance.item() == pytest.approx(2, rel=1e-5)
    assert nearest_in(white, white).distance.item() == 0


def test_copies_are_nearer_than_real_pictures_are() -> None:
    real = Nearest(torch.linspace(1, 2, 101), torch.zeros(101, dtype=torch.long))
    copies = Nearest(torch.tensor([0.0, 0.01, 1.5, 1.6]), torch.zeros(4, dtype=torch.long))
    found = compare_nearness(copies, real)
    assert found.closer_than_real == 0.5
    assert found.real == pytest.approx((1.05, 1.25, 1.5, 1.75, 1.95))
    assert compare_nearness(real, real).closer_than_real == pytest.approx(25 / 101)


def test_sets_that_cannot_be_compared_are_refused() -> None:
    with pytest.raises(ValueError, match=r"shapes \(2, 3\) and \(0, 3\)"):
        nearest_in(torch.zeros(2, 3), torch.zeros(0, 3))
