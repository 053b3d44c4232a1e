import pytest
import torch

from diffusers_imagen.diffusion.noise import add_noise, alpha_sigma
from diffusers_imagen.diffusion.prediction import PREDICTION_TYPES, to_x_0
from diffusers_imagen.diffusion.weighting import loss_weight

LOG_SNR = torch.linspace(-14, 14, 29, dtype=torch.float64)
SNR = LOG_SNR.exp()


def test_min_snr_has_the_closed_forms_of_the_paper():
    capped = SNR.clamp(max=5)
    torch.testing.assert_close(loss_weight(LOG_SNR, "sample", "min_snr"), capped)
    torch.testing.assert_close(loss_weight(LOG_SNR, "epsilon", "min_snr"), capped / SNR)
    torch.testing.assert_close(loss_weight(LOG_SNR, "v_prediction", "min_snr"), capped / (SNR + 1))
    torch.testing.assert_close(loss_weight(LOG_SNR, "epsilon", "min_snr", gamma=2.0), SNR.clamp(max=2) / SNR)


def test_sigmoid_weighs_eps_by_a_sigmoid():
    torch.testing.assert_close(loss_weight(LOG_SNR, "epsilon", "sigmoid", bias=-3.0), torch.sigmoid(-3.0 - LOG_SNR))


@pytest.mark.parametrize("prediction_type", PREDICTION_TYPES)
def test_uniform_is_one_whatever_is_predicted(prediction_type):
    assert torch.equal(loss_weight(LOG_SNR, prediction_type, "uniform"), torch.ones_like(LOG_SNR))


@pytest.mark.parametrize("kind", ["min_snr", "sigmoid"])
@pytest.mark.parametrize("prediction_type", PREDICTION_TYPES)
def test_weighted_error_does_not_depend_on_what_is_predicted(prediction_type, kind):
    generator = torch.Generator().manual_seed(0)
    x_0, eps, right, wrong = torch.randn(4, 29, 3, 2, 2, generator=generator, dtype=torch.float64)
    alpha, sigma = alpha_sigma(LOG_SNR)
    x_t = add_noise(x_0, eps, alpha, sigma)
    error = (right - wrong).square().mean((1, 2, 3))
    x_0_error = (
        (to_x_0(right, x_t, alpha, sigma, prediction_type) - to_x_0(wrong, x_t, alpha, sigma, prediction_type))
        .square()
        .mean((1, 2, 3))
    )
    torch.testing.assert_close(
        loss_weight(LOG_SNR, prediction_type, kind, bias=1.0) * error,
        loss_weight(LOG_SNR, "sample", kind, bias=1.0) * x_0_error,
        rtol=1e-6,
        atol=0,
    )


@pytest.mark.parametrize("kind", ["uniform", "min_snr", "sigmoid"])
@pytest.mark.parametrize("prediction_type", PREDICTION_TYPES)
def test_weights_are_finite_far_beyond_the_usual_range(prediction_type, kind):
    weights = loss_weight(torch.tensor([-60.0, 60.0]), prediction_type, kind)
    assert torch.isfinite(weights).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("noise", "uniform"), "`prediction_type` is 'noise'"),
        (("sample", "snr"), "`kind` is 'snr'; choose one of uniform, min_snr, sigmoid"),
        (("sample", "min_snr", 0.0), "`gamma` is 0.0; give a number above 0"),
    ],
)
def test_settings_out_of_range_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        loss_weight(LOG_SNR, *arguments)
