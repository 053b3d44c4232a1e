"""Guiders against closed forms, written here in the space of each one's paper, in float64."""

import math
from typing import Any

import diffusers.guiders.frequency_decoupled_guidance as frequency_decoupled
import pytest
import torch
import torch.nn.functional as F
from diffusers.guiders.adaptive_projected_guidance import AdaptiveProjectedGuidance
from diffusers.guiders.adaptive_projected_guidance_mix import AdaptiveProjectedMixGuidance
from diffusers.guiders.classifier_free_guidance import ClassifierFreeGuidance
from diffusers.guiders.classifier_free_zero_star_guidance import ClassifierFreeZeroStarGuidance
from diffusers.guiders.guider_utils import BaseGuidance, GuiderOutput
from diffusers.guiders.magnitude_aware_guidance import MagnitudeAwareGuidance
from diffusers.guiders.skip_layer_guidance import SkipLayerGuidance
from diffusers.guiders.tangential_classifier_free_guidance import TangentialClassifierFreeGuidance
from torch import Tensor

from diffusers_imagen.diffusion.guidance import guide
from diffusers_imagen.pipelines.guider_run import GuiderRun, StageGuider, Wanted

LOG_SNR = torch.tensor([-2.0, 1.0])
ALPHA, SIGMA = torch.sigmoid(LOG_SNR).sqrt(), torch.sigmoid(-LOG_SNR).sqrt()
SKIP = {"indices": [0], "fqn": "mid_blocks"}
BOTH = [Wanted(), Wanted(negative=True)]


def example(seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return x_0 with the text, x_0 without it, and x_t, of two pictures at two noise levels."""
    generator = torch.Generator().manual_seed(seed)
    cond, change, eps = (torch.randn(2, 3, 8, 8, generator=generator) for _ in range(3))
    a, s = ALPHA.view(2, 1, 1, 1), SIGMA.view(2, 1, 1, 1)
    return cond / 2, cond / 2 + change / 5, a * cond / 2 + s * eps


def drive(guider: Any, steps: int = 4, worse: Any = None) -> list[Tensor]:
    """Return what a guider makes of an example at every step."""
    run, guided = GuiderRun(StageGuider(guider, worse)), []
    for index in range(steps):
        run.begin_step(index, steps, torch.tensor(1000 - index))
        cond, uncond, x_t = example(index)
        guided.append(run.guide([uncond if wanted.negative else cond for wanted in run.wanted], x_t, ALPHA, SIGMA))
    return guided


def columns(*pictures: Tensor) -> list[Tensor]:
    return [picture.double().flatten(1) for picture in pictures]


def close(actual: Tensor, expected: Tensor, atol: float = 1e-5) -> None:
    torch.testing.assert_close(actual, expected.view(actual.shape).to(actual.dtype), rtol=0, atol=atol)


@pytest.mark.parametrize("rescale", [0.0, 0.7])
def test_classifier_free_guidance_is_our_own(rescale):
    for index, guided in enumerate(drive(ClassifierFreeGuidance(4.0, rescale))):
        cond, uncond, _ = example(index)
        close(guided, guide(cond, uncond, 4.0, rescale), atol=1e-6)


@pytest.mark.parametrize("momentum", [None, -0.5])
@pytest.mark.parametrize("original", [False, True])
def test_adaptive_projected_guidance_splits_the_update_of_x_0(momentum, original):
    # arXiv:2410.02416, algorithm 1.
    guider = AdaptiveProjectedGuidance(
        6.0, momentum, 2.0, eta=0.25, use_original_formulation=original, adaptive_projected_guidance_norm_dim=None
    )
    average = torch.zeros(2, 192, dtype=torch.float64)
    for index, guided in enumerate(drive(guider)):
        cond, uncond, _ = columns(*example(index))
        average = cond - uncond + (0.0 if momentum is None else momentum) * average
        update = average * (2.0 / average.norm(dim=1, keepdim=True)).clamp(max=1)
        along = cond / cond.norm(dim=1, keepdim=True)
        parallel = (update * along).sum(1, keepdim=True) * along
        start = cond if original else uncond
        close(guided, start + 6.0 * (update - parallel + 0.25 * parallel))


def test_mixed_projection_begins_after_some_steps_and_gathers_momentum_before():
    guider = AdaptiveProjectedMixGuidance(
        3.0, adaptive_projected_guidance_scale=7.0, eta=0.0, adaptive_projected_guidance_start_step=1
    )
    average = torch.zeros(2, 192, dtype=torch.float64)
    for index, guided in enumerate(drive(guider)):
        cond, uncond, _ = columns(*example(index))
        average = cond - uncond - 0.5 * average
        along = cond / cond.norm(dim=1, keepdim=True)
        orthogonal = average - (average * along).sum(1, keepdim=True) * along
        close(guided, uncond + (3.0 * (cond - uncond) if index <= 1 else 7.0 * orthogonal))


def test_zero_star_fits_and_zeroes_the_velocity():
    # arXiv:2503.18886, section 4, with the velocity eps - x_0 of flow matching at the same signal-to-noise ratio.
    a, s = ALPHA.double()[:, None], SIGMA.double()[:, None]
    for index, guided in enumerate(drive(ClassifierFreeZeroStarGuidance(5.0, zero_init_steps=1))):
        cond, uncond, x_t = columns(*example(index))
        v_cond, v_uncond = (x_t - a * cond) / s - cond, (x_t - a * uncond) / s - uncond
        fit = (v_cond * v_uncond).sum(1, keepdim=True) / v_uncond.square().sum(1, keepdim=True)
        velocity = 0 * v_cond if index < 1 else fit * v_uncond + 5.0 * (v_cond - fit * v_uncond)
        # x_t = a * x_0 + s * eps with eps = x_0 + velocity.
        close(guided, (x_t - s * velocity) / (a + s))


def test_tangential_guidance_damps_in_the_space_of_scores():
    # arXiv:2503.18137, section 4; the score is -eps / sigma, and what is kept does not depend on its scale.
    a, s = ALPHA.double()[:, None], SIGMA.double()[:, None]
    for index, guided in enumerate(drive(TangentialClassifierFreeGuidance(5.0))):
        cond, uncond, x_t = columns(*example(index))
        e_cond, e_uncond = (x_t - a * cond) / s, (x_t - a * uncond) / s
        # The first right singular vector, from the eigenvectors of the 2 x 2 matrix of products.
        pair = torch.stack([e_cond, e_uncond], dim=1)
        _, vectors = torch.linalg.eigh(pair @ pair.transpose(1, 2))
        kept = F.normalize((vectors[:, :, -1:] * pair).sum(1), dim=1)
        e_uncond = (e_uncond * kept).sum(1, keepdim=True) * kept
        close(guided, (x_t - s * (e_uncond + 5.0 * (e_cond - e_uncond))) / a, atol=1e-4)


def test_magnitude_aware_guidance_measures_the_velocity():
    # arXiv:2508.03442: w(r) = 1 + (w - 1) exp(-alpha r), r = |v_cond - v_uncond| / |v_uncond|.
    a, s = ALPHA.double()[:, None], SIGMA.double()[:, None]
    for index, guided in enumerate(drive(MagnitudeAwareGuidance(9.0, alpha=4.0))):
        cond, uncond, x_t = columns(*example(index))
        v_cond, v_uncond = (x_t - a * cond) / s - cond, (x_t - a * uncond) / s - uncond
        ratio = (v_cond - v_uncond).norm(dim=1, keepdim=True) / v_uncond.norm(dim=1, keepdim=True)
        weight = 1 + 8.0 * torch.exp(-4.0 * ratio)
        assert ((weight > 1.05) & (weight < 7)).all()
        close(guided, uncond + weight * (cond - uncond))


def test_frequencies_are_those_of_x_0(monkeypatch):
    # Diffusers makes the class with kornia alone; here stands a pyramid of its own: halved, and what that loses.
    def up(picture: Tensor) -> Tensor:
        return F.interpolate(picture, scale_factor=2.0)

    def pyramid(picture: Tensor, levels: int) -> list[Tensor]:
        assert levels == 2
        low = F.avg_pool2d(picture, 2)
        return [picture - up(low), low]

    monkeypatch.setattr(frequency_decoupled, "_CAN_USE_KORNIA", True)
    monkeypatch.setattr(frequency_decoupled, "build_laplacian_pyramid_func", pyramid)
    monkeypatch.setattr(frequency_decoupled, "upsample_and_blur_func", up)
    for index, guided in enumerate(drive(frequency_decoupled.FrequencyDecoupledGuidance([8.0, 3.0]))):
        cond, uncond, _ = (picture.double() for picture in example(index))
        low, high = (up(F.avg_pool2d(cond - uncond, 2)) * w for w in (3.0, 8.0))
        close(guided, uncond + 8.0 * (cond - uncond) - high + low)


def test_a_skipped_layer_is_compared_with_the_text_also_where_diffusers_gives_it_the_negative_one():
    def wanted(scale: float) -> list[Wanted]:
        guider = SkipLayerGuidance(scale, 2.0, 0.0, 1.0, skip_layer_config=SKIP)
        run = GuiderRun(StageGuider(guider))
        run.begin_step(1, 4, torch.tensor(0))
        return run.wanted

    assert wanted(3.0) == [*BOTH, Wanted(worse=True)]
    assert wanted(1.0) == [Wanted(), Wanted(worse=True)]


def test_without_guidance_the_prediction_comes_back_to_the_bit():
    for guider_class in (ClassifierFreeGuidance, ClassifierFreeZeroStarGuidance, TangentialClassifierFreeGuidance):
        guider = guider_class(7.0)
        guider.disable()
        for index, guided in enumerate(drive(guider)):
            assert torch.equal(guided, example(index)[0])


def test_a_guider_is_as_it_was_and_remembers_nothing_of_the_run_before():
    guider = AdaptiveProjectedGuidance(6.0, -0.75, 2.0)
    before = dict(vars(guider))
    first, second = drive(guider), drive(guider)
    assert vars(guider) == before
    assert all(map(torch.equal, first, second))
    # Momentum is what makes later steps differ from those of a guider without.
    without = drive(AdaptiveProjectedGuidance(6.0, None, 2.0))
    assert torch.equal(first[0], without[0])
    assert not torch.equal(first[1], without[1])


def test_what_is_changed_in_a_guider_counts_from_the_next_step_on():
    guider = ClassifierFreeGuidance(3.0)
    run = GuiderRun(StageGuider(guider))
    cond, uncond, x_t = example(0)
    results = []
    for index, scale in enumerate((3.0, 5.0, 1.0)):
        guider.guidance_scale = scale
        run.begin_step(index, 3, torch.tensor(0))
        results.append(run.guide([cond, uncond][: len(run.wanted)], x_t, ALPHA, SIGMA))
    for scale, result in zip((3.0, 5.0, 1.0), results, strict=True):
        close(result, guide(cond, uncond, scale))
    assert len(run.wanted) == 1


def test_a_guider_of_ones_own_works_on_x_0():
    class Average(BaseGuidance):
        _input_predictions = ["pred_cond", "pred_uncond"]  # noqa: RUF012 (as Diffusers' own guiders have it)
        num_conditions = 2

        def prepare_inputs(self, data: Any) -> list[Any]:
            return [self._prepare_batch(data, index, name) for index, name in enumerate(self._input_predictions)]

        def forward(self, pred_cond: Tensor, pred_uncond: Tensor) -> Any:
            return GuiderOutput(pred=(pred_cond + pred_uncond) / 2, pred_cond=pred_cond, pred_uncond=pred_uncond)

    for index, guided in enumerate(drive(Average())):
        cond, uncond, _ = example(index)
        close(guided, (cond + uncond) / 2)


@pytest.mark.parametrize(("start", "stop"), [(0.0, 1.0), (0.25, 0.75), (0.3, 0.31), (0.0, 0.0)])
def test_an_interval_is_counted_in_evaluations_as_our_own(start, stop):
    run = GuiderRun(StageGuider(ClassifierFreeGuidance(3.0, start=start, stop=stop)))
    guided = []
    for index in range(8):
        run.begin_step(index, 8, torch.tensor(0))
        guided.append(len(run.wanted) == 2)
    assert guided == [math.floor(start * 8) <= index < math.floor(stop * 8) for index in range(8)]
