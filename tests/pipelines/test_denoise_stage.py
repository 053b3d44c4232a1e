"""The loop with models whose answer is known: it is closed-form mathematics, not a network."""

import itertools
import math
from typing import Any

import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
)
from torch import Tensor

from diffusers_imagen.diffusion.noise import PREDICTION_TYPES, NoiseProcess, NoiseSchedule, alpha_sigma
from diffusers_imagen.diffusion.prediction import from_x_0
from diffusers_imagen.models.stage_model import Prediction
from diffusers_imagen.pipelines.denoise_stage import StageCondition, StepControl, denoise_stage
from diffusers_imagen.pipelines.stage_settings import StageSettings
from diffusers_imagen.schedulers.bridge import bridge_for

COSINE = {"beta_schedule": "squaredcos_cap_v2"}
TYPES = ("epsilon", "sample", "v_prediction")
SCHEDULERS = [
    *((DDPMScheduler, COSINE | {"prediction_type": kind, "clip_sample": False}) for kind in TYPES),
    *(
        (DDIMScheduler, COSINE | {"prediction_type": kind, "clip_sample": False, "timestep_spacing": "trailing"})
        for kind in TYPES
    ),
    *((DPMSolverMultistepScheduler, COSINE | {"prediction_type": kind}) for kind in TYPES),
    (DPMSolverMultistepScheduler, {"prediction_type": "flow_prediction", "use_flow_sigmas": True}),
    *((EulerDiscreteScheduler, COSINE | {"prediction_type": kind}) for kind in TYPES),
    (FlowMatchEulerDiscreteScheduler, {}),
]
FAMILIES = [SCHEDULERS[i] for i in (1, 4, 7, 11, 13)]


def named(schedulers: list[Any]) -> list[Any]:
    return [
        pytest.param(kind, settings, id=f"{kind.__name__}-{settings.get('prediction_type', 'own')}")
        for kind, settings in schedulers
    ]


class Oracle:
    """Knows that pictures are normal around the mean that the text names, and answers what is best then.

    The mean is the first number of the first token; a spread of 0 is a model that knows x_0.
    """

    predicts_variance = False

    def __init__(self, prediction_type: str, x_0: Tensor, spread: float = 0.0) -> None:
        self.noise_process = NoiseProcess(prediction_type, NoiseSchedule())
        self.x_0 = x_0
        self.spread = spread
        self.calls: list[dict[str, Any]] = []

    def predict(
        self,
        x_t: Tensor,
        log_snr: Tensor,
        text: Tensor,
        text_mask: Tensor,
        low_res: Tensor | None = None,
        noise_level: Tensor | None = None,
    ) -> Prediction:
        self.calls.append({"x_t": x_t, "log_snr": log_snr, "text_mask": text_mask, "low_res": low_res})
        alpha, sigma = (value[:, None, None, None] for value in alpha_sigma(log_snr))
        mean = self.x_0.repeat(len(x_t) // len(self.x_0), 1, 1, 1) * text[:, :1, :1, None]
        variance = self.spread**2
        x_0 = mean + alpha * variance / (alpha**2 * variance + sigma**2) * (x_t - alpha * mean)
        return Prediction(from_x_0(x_0, x_t, *alpha_sigma(log_snr), self.noise_process.prediction_type))

    def after(self, x_0: Tensor) -> "Oracle":
        return self


def pictures() -> Tensor:
    return torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(1)) * 2 - 1


def texts(positive: float = 1.0, negative: float = 0.5) -> StageCondition:
    mask = torch.ones(2, 1, dtype=torch.bool)
    return StageCondition(torch.full((2, 1, 4), positive), mask, torch.full((2, 1, 4), negative), ~mask)


def draw(
    oracle: Oracle, scheduler: Any, settings: StageSettings, condition: StageCondition | None = None, steps: int = 20
) -> Tensor:
    bridge = bridge_for(scheduler)
    timesteps = bridge.set_timesteps(steps, "cpu")
    generator = torch.Generator().manual_seed(2)
    sample = torch.randn(oracle.x_0.shape, generator=generator) * bridge.init_noise_sigma
    control = StepControl(lambda: settings.guidance_scale, lambda index, timestep, sample: sample, lambda: False)
    return denoise_stage(
        oracle, bridge, timesteps, sample, condition or texts(), settings, control, torch.Generator().manual_seed(3)
    )


@pytest.mark.parametrize("prediction_type", PREDICTION_TYPES)
@pytest.mark.parametrize(("scheduler_class", "settings"), named(SCHEDULERS))
def test_a_model_that_knows_x_0_is_recovered(scheduler_class, settings, prediction_type):
    oracle = Oracle(prediction_type, pictures())
    result = draw(oracle, scheduler_class(**settings), StageSettings(guidance_scale=1.0))
    torch.testing.assert_close(result, oracle.x_0, rtol=0, atol=1e-3)


@pytest.mark.parametrize("prediction_type", PREDICTION_TYPES)
@pytest.mark.parametrize(("scheduler_class", "settings"), named(SCHEDULERS))
def test_guidance_moves_on_from_the_negative_text_through_the_positive(scheduler_class, settings, prediction_type):
    oracle = Oracle(prediction_type, pictures())
    guided = draw(
        oracle, scheduler_class(**settings), StageSettings(guidance_scale=3.0), texts(positive=0.5, negative=0.4)
    )
    torch.testing.assert_close(guided, (0.4 + 3 * (0.5 - 0.4)) * oracle.x_0, rtol=0, atol=1e-3)


@pytest.mark.parametrize("prediction_type", PREDICTION_TYPES)
@pytest.mark.parametrize(("scheduler_class", "settings"), named(FAMILIES[1:]))
def test_the_model_is_told_the_noise_that_is_there(scheduler_class, settings, prediction_type):
    # For normal data the path from noise to picture is known; a wrong level or scale would leave it.
    mean, spread = 0.2, 0.3
    oracle = Oracle(prediction_type, torch.full((2, 3, 8, 8), mean), spread)
    exact_settings = StageSettings(guidance_scale=1.0, thresholding="none")
    result = draw(oracle, scheduler_class(**settings), exact_settings, steps=250)
    first = oracle.calls[0]
    alpha, sigma = (float(value[0]) for value in alpha_sigma(first["log_snr"]))
    exact = mean + spread * (first["x_t"] - alpha * mean) / math.hypot(alpha * spread, sigma)
    assert (result - exact).square().mean().sqrt() < 0.02 * spread


@pytest.mark.parametrize("scheduler_class", [EulerDiscreteScheduler, FlowMatchEulerDiscreteScheduler])
@pytest.mark.parametrize(("mode", "maximum"), [("dynamic", 1.0), ("static", 1.0), ("none", 4.0)])
def test_thresholding_acts_with_schedulers_that_have_none(scheduler_class, mode, maximum):
    # Guidance pushes the whole picture to 4 times its range.
    oracle = Oracle("v_prediction", pictures().sign())
    settings = StageSettings(guidance_scale=8.0, thresholding=mode)
    result = draw(oracle, scheduler_class(), settings, texts(positive=1.0, negative=4 / 7))
    assert float(result.abs().max()) == pytest.approx(maximum, abs=1e-3)


def test_dynamic_thresholding_divides_by_the_percentile_of_each_picture():
    # The first picture saturates and is divided by its own percentile, the second does not and stays.
    x_0 = pictures() * torch.tensor([1.0, 0.2])[:, None, None, None]
    result = draw(
        Oracle("sample", x_0), EulerDiscreteScheduler(), StageSettings(guidance_scale=1.0), texts(positive=3.0)
    )
    percentile = float((3 * x_0[0]).abs().double().quantile(0.995))
    assert percentile > 1
    torch.testing.assert_close(result[0], (3 * x_0[0]).clamp(-percentile, percentile) / percentile, rtol=0, atol=1e-3)
    torch.testing.assert_close(result[1], 3 * x_0[1], rtol=0, atol=1e-3)


@pytest.mark.parametrize(
    ("guidance_scale", "interval", "batches"),
    [
        (1.0, (0.0, 1.0), [2, 2, 2, 2]),
        (3.0, (0.0, 1.0), [4, 4, 4, 4]),
        (0.0, (0.0, 1.0), [4, 4, 4, 4]),
        (3.0, (0.25, 0.75), [2, 4, 4, 2]),
        (3.0, (0.0, 0.0), [2, 2, 2, 2]),
    ],
)
def test_guidance_takes_one_forward_of_twice_the_batch_and_only_where_it_acts(guidance_scale, interval, batches):
    oracle = Oracle("v_prediction", pictures())
    settings = StageSettings(guidance_scale=guidance_scale, guidance_interval=interval)
    draw(oracle, DDIMScheduler(), settings, steps=4)
    assert [len(call["x_t"]) for call in oracle.calls] == batches


@pytest.mark.parametrize(("scheduler_class", "settings"), named(FAMILIES))
def test_only_the_noisy_picture_is_scaled(scheduler_class, settings):
    oracle = Oracle("v_prediction", pictures() * 0)
    low_res = pictures() / 2
    condition = texts()
    condition = StageCondition(
        condition.text, condition.text_mask, condition.text, condition.text_mask, low_res, torch.zeros(2)
    )
    draw(oracle, scheduler_class(**settings), StageSettings(guidance_scale=2.0), condition, steps=6)
    assert len(oracle.calls) == 6
    for call in oracle.calls:
        assert torch.equal(call["low_res"], torch.cat([low_res, low_res]))
        # With x_0 = 0 what is scaled to unit variance is sigma * eps.
        sigma = float(torch.sigmoid(-call["log_snr"][0]).sqrt())
        assert float(call["x_t"].std()) == pytest.approx(sigma, rel=0.15)


@pytest.mark.parametrize(("scheduler_class", "settings"), named(FAMILIES))
def test_the_model_never_sees_a_level_that_it_was_not_trained_on(scheduler_class, settings):
    oracle = Oracle("v_prediction", pictures())
    oracle.noise_process = NoiseProcess("v_prediction", NoiseSchedule(log_snr_min=-3, log_snr_max=3))
    draw(oracle, scheduler_class(**settings), StageSettings(), steps=10)
    levels = torch.stack([call["log_snr"][0] for call in oracle.calls])
    assert levels.min() >= -3
    assert levels.max() <= 3
    assert (levels.diff() >= 0).all()
    assert levels[0] == -3


def test_the_text_comes_first_and_the_negative_one_second():
    oracle = Oracle("v_prediction", pictures())
    draw(oracle, DDIMScheduler(), StageSettings(guidance_scale=2.0), steps=2)
    assert oracle.calls[0]["text_mask"][:, 0].tolist() == [True, True, False, False]


def test_a_learned_variance_reaches_the_scheduler_that_wants_one():
    class LearnedVariance(Oracle):
        predicts_variance = True
        variance = 1.0

        def predict(self, *arguments: Any) -> Prediction:
            value = super().predict(*arguments).value
            # The text's half has the variance, the negative one's must not be taken.
            both = torch.cat([torch.full_like(value[:2], self.variance), torch.full_like(value[2:], 1e9)])
            return Prediction(value, both)

    def drawn(variance: float, scheduler: Any) -> Tensor:
        oracle = LearnedVariance("v_prediction", pictures(), spread=0.5)
        oracle.variance = variance
        return draw(oracle, scheduler, StageSettings(guidance_scale=2.0), steps=4)

    learned = {"variance_type": "learned_range", "clip_sample": False}
    low, high = (drawn(value, DDPMScheduler(**learned)) for value in (-1.0, 1.0))
    assert low.isfinite().all()
    assert not torch.equal(low, high)
    assert torch.equal(drawn(-1.0, DDIMScheduler()), drawn(1.0, DDIMScheduler()))


def test_the_caller_steers_every_step():
    oracle = Oracle("sample", pictures())
    bridge = bridge_for(EulerDiscreteScheduler())
    timesteps = bridge.set_timesteps(5, "cpu")
    seen: list[tuple[int, float]] = []
    scales = itertools.chain([1.0, 3.0], itertools.repeat(1.0))

    def on_step_end(index: int, timestep: Tensor, sample: Tensor) -> Tensor:
        seen.append((index, float(timestep)))
        return sample + 100

    control = StepControl(lambda: next(scales), on_step_end, lambda: len(seen) == 3)
    result = denoise_stage(oracle, bridge, timesteps, torch.randn(2, 3, 8, 8), texts(), StageSettings(), control)
    assert seen == [(i, float(timesteps[i])) for i in range(3)]
    assert [len(call["x_t"]) for call in oracle.calls] == [2, 4, 2]
    assert float(result.mean()) > 90


def test_rescaling_keeps_the_spread_of_the_unguided_picture():
    oracle = Oracle("sample", pictures() / 8)
    settings = StageSettings(guidance_scale=6.0, guidance_rescale=1.0)
    result = draw(oracle, EulerDiscreteScheduler(), settings, texts(positive=1.0, negative=0.5))
    axes = (1, 2, 3)
    torch.testing.assert_close(result.std(axes), oracle.x_0.std(axes), rtol=1e-3, atol=0)


STOCHASTIC = [
    (DDPMScheduler, COSINE | {"prediction_type": "sample", "clip_sample": False}),
    (DPMSolverMultistepScheduler, COSINE | {"prediction_type": "sample", "algorithm_type": "sde-dpmsolver++"}),
]
# 45 values a picture: PyTorch draws noise in blocks of 16, so only a picture at a time does a split leave it as it is.
FIVE = torch.rand(5, 3, 3, 5, generator=torch.Generator().manual_seed(7)) * 2 - 1


def draw_five(
    scheduler: Any, max_batch_size: int | None, generator: Any, sizes: list[int] | None = None, scale: float = 2.0
) -> Tensor:
    """Draw five pictures of which the model knows each only by its own text, and note how many it gets at once."""
    oracle = Oracle("v_prediction", FIVE[:1], spread=0.5)
    mask = torch.ones(5, 1, dtype=torch.bool)
    text = torch.arange(1.0, 6.0)[:, None, None].expand(5, 1, 4) / 5
    condition = StageCondition(text, mask, text / 2, mask, FIVE, torch.linspace(0, 1, 5))
    settings = StageSettings(guidance_scale=scale, max_batch_size=max_batch_size)
    bridge = bridge_for(scheduler)
    timesteps = bridge.set_timesteps(6, "cpu")
    noise = torch.randn(FIVE.shape, generator=torch.Generator().manual_seed(8)) * bridge.init_noise_sigma
    control = StepControl(lambda: scale, lambda index, timestep, sample: sample, lambda: False)
    drawn = denoise_stage(oracle, bridge, timesteps, noise, condition, settings, control, generator)
    if sizes is not None:
        sizes += [len(call["x_t"]) for call in oracle.calls]
    return drawn


@pytest.mark.parametrize("several", [False, True], ids=["one generator", "a generator for each"])
@pytest.mark.parametrize(("scheduler_class", "settings"), named(FAMILIES[1:] + STOCHASTIC))
def test_a_split_batch_is_drawn_to_the_bit(scheduler_class, settings, several):
    def generator() -> Any:
        made = [torch.Generator().manual_seed(seed) for seed in range(5)]
        return made if several else made[0]

    whole = draw_five(scheduler_class(**settings), None, generator())
    for size in (1, 2, 3, 5, 9):
        assert torch.equal(draw_five(scheduler_class(**settings), size, generator()), whole)


@pytest.mark.parametrize(("scheduler_class", "settings"), named(STOCHASTIC))
def test_one_generator_gives_the_noise_that_the_scheduler_alone_would_draw(scheduler_class, settings):
    # Drawn picture by picture it is the same as in one go, so pictures are those of Diffusers' own loops.
    shapes = torch.randn(5, 3, 4, 4, generator=torch.Generator().manual_seed(9))
    generator = torch.Generator().manual_seed(9)
    assert torch.equal(shapes, torch.cat([torch.randn(1, 3, 4, 4, generator=generator) for _ in range(5)]))
    first = draw_five(scheduler_class(**settings), 2, torch.Generator().manual_seed(1))
    assert not torch.equal(first, draw_five(scheduler_class(**settings), 2, torch.Generator().manual_seed(2)))


@pytest.mark.parametrize(
    ("size", "scale", "expected"), [(2, 1.0, [2, 2, 1]), (2, 3.0, [4, 4, 2]), (1, 1.0, [1] * 5), (None, 1.0, [5])]
)
def test_the_model_gets_no_more_pictures_at_once_than_allowed(size, scale, expected):
    sizes: list[int] = []
    draw_five(DDIMScheduler(), size, None, sizes, scale)
    assert sizes == expected * 6


def test_the_callers_scheduler_is_the_one_that_steps():
    scheduler = DDIMScheduler(**COSINE)
    draw_five(scheduler, 2, None)
    assert scheduler.num_inference_steps == 6
    multistep = DPMSolverMultistepScheduler(**COSINE)
    draw_five(multistep, 2, None)
    assert multistep.step_index == 6
    assert len(multistep.model_outputs[-1]) == 2
