import pytest
import torch
import torch.nn.functional as F

from diffusers_imagen import ImagenUNet2DConditionModel


@pytest.mark.parametrize("patch_size", [1, 2])
@torch.no_grad()
def test_a_grown_base_draws_in_larger_pixels_what_the_small_one_draws(patch_size):
    from grow import grown

    torch.manual_seed(0)
    small = ImagenUNet2DConditionModel(
        sample_size=16,
        patch_size=patch_size,
        block_out_channels=(16, 32),
        layers_per_block=(1, 1),
        attention_types=("none", "self"),
        attention_head_dim=8,
        norm_num_groups=4,
        conditioning_dim=32,
        encoder_hid_dim=12,
        cross_attention_dim=16,
    ).eval()
    torch.nn.init.normal_(small.conv_out.weight, std=0.1)
    x_t, text = torch.randn(2, 3, 32, 32), torch.randn(2, 4, 12)
    expected = F.interpolate(small(F.avg_pool2d(x_t, 2), 500.0, text).sample, scale_factor=2.0, mode="nearest")
    larger = grown(small).eval()
    assert larger.config.sample_size == 32
    assert larger.config.patch_size == 2 * patch_size
    torch.testing.assert_close(larger(x_t, 500.0, text).sample, expected)
