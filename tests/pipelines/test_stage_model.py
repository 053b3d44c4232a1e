import pytest
import torch

from diffusers_imagen.diffusion.noise import NoiseProcess, NoiseSchedule
from diffusers_imagen.models.stage_model import stage_model_for


def test_the_u_net_is_asked_at_its_own_time_in_thousandths(cascade_parts):
    unet = cascade_parts["sr_unet_1"]
    model = stage_model_for(unet)
    assert model.noise_process == NoiseProcess("v_prediction", NoiseSchedule("cosine", -15.0, 15.0))
    assert not model.predicts_variance
    noise = torch.randn(3, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    mask = torch.tensor([[True, True], [True, False], [False, False]])
    text, level = noise[:, 0, :2], torch.tensor([0.0, 0.3, 1.0])
    # At log_snr 0 the cosine schedule is half way; the two others are its ends.
    with torch.no_grad():
        found = model.predict(noise, torch.tensor([0.0, 15.0, -15.0]), text, mask, noise / 2, level)
        expected = unet(
            noise, torch.tensor([500.0, 0.0, 1000.0]), text, mask, low_res=noise / 2, noise_level=level
        ).sample
    torch.testing.assert_close(found.value, expected, rtol=0, atol=1e-5)
    assert found.variance is None


def test_a_noise_process_for_a_u_net_that_has_its_own_is_refused(cascade_parts):
    with pytest.raises(ValueError, match=r"`noise` is .* says in its own config what it was trained on; leave it"):
        stage_model_for(cascade_parts["unet"], {"prediction_type": "epsilon"})


def test_a_thing_that_is_no_u_net_is_refused():
    with pytest.raises(ValueError, match=r"`unet` is a Linear, .* use ImagenUNet2DConditionModel"):
        stage_model_for(torch.nn.Linear(1, 1))
