"""The guider with a U-Net of its own is copied and saved with it."""

import pytest
import torch

from diffusers_imagen.guiders.unet_auto_guidance import UNetAutoGuidance


def test_a_copy_has_the_same_u_net_and_settings_unless_told_otherwise(cascade_parts):
    guider = UNetAutoGuidance(cascade_parts["unet"], guidance_scale=3.0, start=0.25)
    copied, changed = guider.new(), guider.new(guidance_scale=2.0, unet=cascade_parts["sr_unet_1"])
    assert copied.unet is guider.unet
    assert (copied.guidance_scale, copied.config.start) == (3.0, 0.25)
    assert changed.unet is cascade_parts["sr_unet_1"]
    assert (changed.guidance_scale, changed.config.start) == (2.0, 0.25)


def test_it_is_saved_and_loaded_with_its_u_net(cascade_parts, tmp_path):
    UNetAutoGuidance(cascade_parts["unet"], 3.0, 0.5, stop=0.75).save_pretrained(tmp_path / "some/guider")
    loaded = UNetAutoGuidance.from_pretrained(tmp_path / "some", subfolder="guider")
    weights = cascade_parts["unet"].state_dict()
    assert all(torch.equal(value, weights[key]) for key, value in loaded.unet.state_dict().items())
    assert (loaded.guidance_scale, loaded.guidance_rescale, loaded.config.stop) == (3.0, 0.5, 0.75)
    other = UNetAutoGuidance.from_pretrained(tmp_path / "some/guider", unet=cascade_parts["sr_unet_1"])
    assert other.unet is cascade_parts["sr_unet_1"]


def test_without_a_u_net_it_is_not_saved(tmp_path):
    with pytest.raises(ValueError, match="`unet` is None, and without it there is nothing to load again"):
        UNetAutoGuidance().save_pretrained(tmp_path)
    assert not list(tmp_path.iterdir())
