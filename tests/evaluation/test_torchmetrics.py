"""Our closed forms against torchmetrics, and our extractors as its features."""

import pytest
import torch
from torch import Tensor, nn
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.kid import KernelInceptionDistance

from diffusers_imagen.evaluation.distances import frechet_distance, kernel_distance
from diffusers_imagen.evaluation.features import JudgeFeatures
from diffusers_imagen.evaluation.scene_judge import SceneJudge


class Statistics(nn.Module):
    """Six simple features of a picture."""

    def forward(self, pictures: Tensor) -> Tensor:
        scaled = pictures.double() / 255
        return torch.cat([scaled.mean((2, 3)), scaled.std((2, 3))], dim=1)


def pictures(seed: int, count: int = 40) -> Tensor:
    return torch.randint(0, 200 + 50 * seed, (count, 3, 8, 8), generator=torch.Generator().manual_seed(seed)).byte()


def test_the_frechet_distance_is_that_of_torchmetrics() -> None:
    metric = FrechetInceptionDistance(feature=Statistics(), input_img_size=(3, 8, 8)).set_dtype(torch.float64)
    metric.update(pictures(0), real=True)
    metric.update(pictures(1), real=False)
    ours = frechet_distance(Statistics()(pictures(1)), Statistics()(pictures(0)))
    assert ours == pytest.approx(metric.compute().item(), rel=1e-6)


def test_the_kernel_distance_is_that_of_torchmetrics() -> None:
    metric = KernelInceptionDistance(feature=Statistics(), subsets=1, subset_size=40)
    metric.update(pictures(0), real=True)
    metric.update(pictures(1), real=False)
    ours = kernel_distance(Statistics()(pictures(1)), Statistics()(pictures(0)))
    assert ours == pytest.approx(metric.compute()[0].item(), rel=1e-6)


def test_a_judge_gives_features_to_torchmetrics(judge: SceneJudge) -> None:
    metric = FrechetInceptionDistance(feature=JudgeFeatures(judge), input_img_size=(3, 8, 8))
    metric.update(pictures(0), real=True)
    metric.update(pictures(1), real=False)
    assert metric.compute().item() > 0
