import math

import pytest
import torch
from diffusers import DDPMScheduler

from diffusers_imagen.diffusion.noise import NoiseProcess, NoiseSchedule, add_noise, alpha_sigma, per_sample

SCHEDULES = [
    NoiseSchedule(),
    NoiseSchedule("cosine", -20.0, 20.0),
    NoiseSchedule("cosine", -5.0, 9.0),
    NoiseSchedule("linear", -15.0, 9.21),
    NoiseSchedule("linear", -8.0, 6.0),
    NoiseSchedule("cosine", -15.0, 15.0, shift=2 * math.log(64 / 256)),
    NoiseSchedule("linear", -12.0, 6.4, shift=2 * math.log(64 / 256)),
]
every_schedule = pytest.mark.parametrize("schedule", SCHEDULES, ids=repr)


def log_snr_of(alphas_cumprod):
    alphas_cumprod = alphas_cumprod.double()
    return torch.log(alphas_cumprod / (1 - alphas_cumprod))


@every_schedule
def test_ends_are_exact(schedule):
    log_snr = schedule.log_snr(torch.tensor([0.0, 1.0]))
    assert log_snr.tolist() == torch.tensor([schedule.log_snr_max, schedule.log_snr_min]).tolist()


@every_schedule
def test_log_snr_falls_with_time(schedule):
    log_snr = schedule.log_snr(torch.linspace(0, 1, 2001, dtype=torch.float64))
    assert (log_snr.diff() < 0).all()


@every_schedule
def test_schedule_does_not_jump_at_its_ends(schedule):
    inside = schedule.log_snr(torch.tensor([1e-9, 1 - 1e-9], dtype=torch.float64))
    ends = torch.tensor([schedule.log_snr_max, schedule.log_snr_min], dtype=torch.float64)
    torch.testing.assert_close(inside, ends, rtol=0, atol=1e-4)


@every_schedule
def test_time_of_log_snr_inverts_it(schedule):
    t = torch.linspace(0, 1, 1001, dtype=torch.float64)
    torch.testing.assert_close(schedule.t(schedule.log_snr(t)), t, rtol=0, atol=1e-12)
    torch.testing.assert_close(schedule.t(schedule.log_snr(t.float())), t.float(), rtol=0, atol=3e-7)


@every_schedule
def test_float32_keeps_log_snr_to_four_digits_behind_the_point(schedule):
    t = torch.cat([torch.linspace(0, 1, 1001), torch.tensor([1e-4, 1e-5, 1 - 1e-4, 1 - 1e-5])])
    torch.testing.assert_close(schedule.log_snr(t).double(), schedule.log_snr(t.double()), rtol=0, atol=1e-4)


def test_half_precision_times_are_raised_to_float32():
    assert NoiseSchedule().log_snr(torch.tensor([0.5], dtype=torch.bfloat16)).dtype == torch.float32


def test_values_outside_the_range_are_taken_as_the_ends():
    schedule = NoiseSchedule()
    assert schedule.t(torch.tensor([99.0, -99.0])).tolist() == [0.0, 1.0]
    assert schedule.log_snr(torch.tensor([-0.1, 1.1])).tolist() == [15.0, -15.0]
    assert schedule.clamp(torch.tensor([99.0, 0.5, -99.0])).tolist() == [15.0, 0.5, -15.0]


def test_cosine_is_the_closed_form_of_the_paper():
    t = torch.linspace(0.05, 0.95, 19, dtype=torch.float64)
    wide = NoiseSchedule("cosine", -40.0, 40.0)
    torch.testing.assert_close(wide.log_snr(t), -2 * torch.log(torch.tan(math.pi / 2 * t)), rtol=0, atol=1e-6)


def test_cosine_is_near_the_squared_cosine_betas_of_diffusers():
    # Theirs shifts time by 0.008, which shows at both ends; in the middle the difference is 0.14 at most.
    theirs = log_snr_of(DDPMScheduler(beta_schedule="squaredcos_cap_v2").alphas_cumprod)
    ours = NoiseSchedule().log_snr(torch.arange(1, 1001, dtype=torch.float64) / 1000)
    torch.testing.assert_close(ours[100:900], theirs[100:900], rtol=0, atol=0.14)
    torch.testing.assert_close(torch.sigmoid(ours), torch.sigmoid(theirs), rtol=0, atol=8e-3)


def test_linear_is_the_closed_form_of_the_paper():
    schedule = NoiseSchedule("linear", -math.log(math.expm1(10.0001)), 9.21)
    t = torch.linspace(0.05, 1, 20, dtype=torch.float64)
    # u runs from 0.0002, where log_snr is 9.21, to 1.
    torch.testing.assert_close(schedule.log_snr(t), -torch.log(torch.expm1(1e-4 + 10 * t**2)), rtol=0, atol=1e-2)


def test_linear_is_near_the_linear_betas_of_diffusers():
    # The paper's 1e-4 + 10 u^2 stands for DDPM's 0.1 u + 9.95 u^2: alpha^2 differs by 0.012 at most.
    theirs = log_snr_of(DDPMScheduler(beta_schedule="linear").alphas_cumprod)
    schedule = NoiseSchedule("linear", -math.log(math.expm1(10.0001)), 9.21)
    ours = schedule.log_snr(torch.arange(1, 1001, dtype=torch.float64) / 1000)
    torch.testing.assert_close(ours[100:], theirs[100:], rtol=0, atol=0.12)
    torch.testing.assert_close(torch.sigmoid(ours), torch.sigmoid(theirs), rtol=0, atol=0.012)


def test_alpha_and_sigma_preserve_variance_and_give_the_log_snr_back():
    log_snr = torch.linspace(-20, 20, 81, dtype=torch.float64)
    alpha, sigma = alpha_sigma(log_snr)
    torch.testing.assert_close(alpha**2 + sigma**2, torch.ones_like(log_snr), rtol=0, atol=1e-12)
    torch.testing.assert_close(2 * torch.log(alpha / sigma), log_snr, rtol=0, atol=1e-10)


def test_noise_is_added_per_sample():
    x_0, eps = torch.full((2, 3, 4, 4), 2.0), torch.full((2, 3, 4, 4), 10.0)
    x_t = add_noise(x_0, eps, torch.tensor([1.0, 0.5]), torch.tensor([0.0, 0.1]))
    assert x_t[0].unique().tolist() == [2.0]
    assert x_t[1].unique().tolist() == [2.0]
    assert add_noise(x_0, eps, 0.5, 0.3).unique().tolist() == [4.0]


def test_values_per_sample_get_the_axes_of_the_batch():
    like = torch.zeros(2, 3, 4, 4)
    assert per_sample(torch.ones(2), like).shape == (2, 1, 1, 1)
    assert per_sample(torch.tensor(1.0), like).shape == ()
    assert per_sample(0.5, like) == 0.5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("sigmoid", -15.0, 15.0), "`kind` is 'sigmoid'; choose one of cosine, linear"),
        (("cosine", 15.0, -15.0), "`log_snr_min` is 15.0 and `log_snr_max` is -15.0; give two finite"),
        (("cosine", -math.inf, 15.0), "`log_snr_min` is -inf"),
        (("cosine", math.nan, 15.0), "`log_snr_min` is nan"),
        (("linear", -15.0, 15.0), "`log_snr_max` is 15.0, but the linear schedule starts at 9.2103; give 9.21"),
        (("linear", -15.0, 9.0, -1.0), "`log_snr_max` is 9.0, but the linear schedule starts at 8.2103; give 8.21"),
        (("cosine", -15.0, 15.0, math.nan), "`shift` is nan; give a finite number"),
    ],
)
def test_impossible_schedules_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        NoiseSchedule(*arguments)


def test_unknown_prediction_types_are_refused():
    assert NoiseProcess("v_prediction", NoiseSchedule()).prediction_type == "v_prediction"
    with pytest.raises(ValueError, match="`prediction_type` is 'v'; choose one of epsilon, sample"):
        NoiseProcess("v", NoiseSchedule())


def test_shifted_cosine_is_simple_diffusions_formula():
    # arXiv:2301.11093, appendix: its ends are moved along with the rest.
    t = torch.linspace(0, 1, 501, dtype=torch.float64)
    start, stop = math.atan(math.exp(-7.5)), math.atan(math.exp(7.5))
    shift = 2 * math.log(64 / 256)
    expected = -2 * torch.log(torch.tan(start + t * (stop - start))) + shift
    schedule = NoiseSchedule("cosine", -15.0 + shift, 15.0 + shift, shift)

    torch.testing.assert_close(schedule.log_snr(t), expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("kind", ["cosine", "linear"])
def test_shift_keeps_the_noise_of_averaged_pixels(kind):
    # 256 pixels averaged to 64: noise falls by a factor of 4, which the shift makes up for.
    t = torch.linspace(0.1, 0.9, 9, dtype=torch.float64)
    shift = 2 * math.log(64 / 256)
    small = NoiseSchedule(kind, -10.0, 9.0)
    large = NoiseSchedule(kind, -10.0 + shift, 9.0 + shift, shift)
    alpha, sigma = alpha_sigma(large.log_snr(t))

    torch.testing.assert_close(2 * torch.log(alpha / (sigma / 4)), small.log_snr(t), rtol=0, atol=1e-9)


def test_a_schedule_is_made_inside_a_graph_whose_numbers_are_symbols():
    # As a U-Net does in `torch.compile(unet, dynamic=True)`, whose configured numbers may differ from call to call.
    def noise(t: torch.Tensor, limits: dict[str, float]) -> torch.Tensor:
        return NoiseSchedule("cosine", **limits).log_snr(t)

    compiled = torch.compile(noise, backend="eager", fullgraph=True, dynamic=True)
    t = torch.linspace(0.1, 0.9, 5)
    for shift in (0.0, 0.5):
        limits = {"log_snr_min": -15.0 + shift, "log_snr_max": 15.0 + shift, "shift": shift}
        torch.testing.assert_close(compiled(t, limits), noise(t, limits))
    torch.compiler.reset()
