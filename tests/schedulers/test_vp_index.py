import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler

from diffusers_imagen.schedulers.bridge import bridge_for

both = pytest.mark.parametrize("scheduler_class", [DDPMScheduler, DDIMScheduler])


def images(channels=3, seed=0):
    return torch.rand(4, channels, 8, 8, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def run(scheduler, x_0, steps=10):
    bridge, sample = bridge_for(scheduler), torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    generator = torch.Generator().manual_seed(0)
    for t in bridge.set_timesteps(steps, "cpu"):
        sample = bridge.step(x_0, t, sample, generator=generator)
    return sample


@both
@pytest.mark.parametrize("clipping", [{}, {"thresholding": True}, {"thresholding": True, "sample_max_value": 3.0}])
def test_their_own_clipping_changes_nothing_within_the_range(scheduler_class, clipping):
    x_0 = images()
    x_0[0, 0, 0, :2] = torch.tensor([-1.0, 1.0])
    clipped, unclipped = run(scheduler_class(**clipping), x_0), run(scheduler_class(clip_sample=False), x_0)
    assert bridge_for(scheduler_class(**clipping)).clips_x_0
    torch.testing.assert_close(clipped, unclipped, rtol=0, atol=1e-6)


@both
def test_without_their_clipping_any_x_0_is_reached(scheduler_class):
    scheduler = scheduler_class(clip_sample=False)
    assert not bridge_for(scheduler).clips_x_0
    torch.testing.assert_close(run(scheduler, 3 * images()), 3 * images(), rtol=0, atol=1e-4)


@both
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"clip_sample_range": 0.5}, "`clip_sample_range` of .* is 0.5, narrower than .* with clip_sample=False"),
        ({"thresholding": True, "sample_max_value": 0.9}, "`sample_max_value` of .* with thresholding=False"),
        ({"rescale_betas_zero_snr": True}, "is 'epsilon' and its noise schedule ends at zero .*\"v_prediction\""),
        ({"prediction_type": "flow_prediction"}, "is 'flow_prediction', which its step\\(\\) does not know"),
    ],
)
def test_settings_that_cannot_work_are_refused(scheduler_class, settings, message):
    with pytest.raises(ValueError, match=message):
        bridge_for(scheduler_class(**settings))


def test_a_narrow_range_that_is_not_used_is_no_hindrance():
    assert not bridge_for(DDIMScheduler(clip_sample=False, clip_sample_range=0.5)).clips_x_0


@both
def test_more_steps_than_indices_are_refused(scheduler_class):
    bridge = bridge_for(scheduler_class(num_train_timesteps=100))
    with pytest.raises(ValueError, match=f"is 101, but {scheduler_class.__name__} has 100 noise levels; give 100 or"):
        bridge.set_timesteps(101, "cpu")
    assert len(bridge.set_timesteps(100, "cpu")) == 100


@both
@pytest.mark.parametrize("steps", [61, 103, 122, 999, 1000])
def test_trailing_steps_do_not_run_past_the_first_index(scheduler_class, steps):
    scheduler = scheduler_class(timestep_spacing="trailing", clip_sample=False, prediction_type="sample")
    timesteps = bridge_for(scheduler).set_timesteps(steps, "cpu")
    assert len(timesteps) == steps
    assert timesteps.min() >= 0
    # DDIM's own steps are 1000 // steps indices long; some leave it at index 0, where sigma is 0.01.
    assert (run(scheduler, images(), steps) - images()).square().mean().sqrt() < 1.5e-2


@pytest.mark.parametrize("variance_type", ["learned", "learned_range"])
@pytest.mark.parametrize("prediction_type", ["epsilon", "sample", "v_prediction"])
def test_a_learned_variance_goes_through_to_ddpm(prediction_type, variance_type):
    scheduler = DDPMScheduler(variance_type=variance_type, prediction_type=prediction_type)
    bridge = bridge_for(scheduler)
    assert bridge.needs_variance
    assert bridge.accepts_variance
    t = bridge.set_timesteps(10, "cpu")[3]
    x_0, sample, variance = images(), images(seed=1), images(seed=2).abs()
    output = bridge.model_output(x_0, sample, t, variance)
    assert torch.equal(output[:, 3:], variance)
    ours = bridge.step(x_0, t, sample, variance, torch.Generator().manual_seed(0))
    theirs = scheduler.step(output, t, sample, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(theirs.pred_original_sample, x_0, rtol=0, atol=1e-4)
    # Ours has not lost what the way through eps or v costs theirs.
    torch.testing.assert_close(ours, theirs.prev_sample, rtol=0, atol=1e-5)
    other = bridge.step(x_0, t, sample, variance / 2, torch.Generator().manual_seed(0))
    assert not torch.equal(ours, other)


def test_a_missing_learned_variance_is_refused_with_a_remedy():
    bridge = bridge_for(DDPMScheduler(variance_type="learned_range"))
    t = bridge.set_timesteps(10, "cpu")[0]
    with pytest.raises(
        ValueError, match=r"is 'learned_range', but .* make the scheduler with variance_type=.fixed_small"
    ):
        bridge.step(images(), t, images(seed=1))


def test_a_variance_is_dropped_where_none_is_learned():
    # DDIM keeps the setting of the DDPM it was made from, unused.
    ddim = DDIMScheduler.from_config(DDPMScheduler(variance_type="learned_range").config)
    for scheduler in (ddim, DDPMScheduler()):
        bridge = bridge_for(scheduler)
        assert not bridge.needs_variance
        assert not bridge.accepts_variance
        t = bridge.set_timesteps(10, "cpu")[0]
        assert bridge.model_output(images(), images(seed=1), t, images()).shape == (4, 3, 8, 8)


def test_the_broken_variance_of_ddpm_is_refused():
    with pytest.raises(ValueError, match=r"`variance_type` of DDPMScheduler is 'fixed_large_log'.*=.fixed_large.\."):
        bridge_for(DDPMScheduler(variance_type="fixed_large_log"))
