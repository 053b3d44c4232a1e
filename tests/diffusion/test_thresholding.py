import pytest
import torch

from diffusers_imagen.diffusion.thresholding import dynamic_threshold, static_threshold, threshold


def images(*shape, std=1.0, seed=0, dtype=torch.float32):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype) * std


def by_quantile(x_0, percentile, max_threshold=None):
    s = torch.quantile(x_0.abs().flatten(1), percentile, dim=1).clamp(1, max_threshold).reshape(-1, 1, 1, 1)
    return x_0.clamp(-s, s) / s


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("percentile", [0.001, 0.3, 0.5, 0.9, 0.95, 0.995, 0.9999, 1.0])
@pytest.mark.parametrize("std", [0.2, 0.4, 0.8, 3.0])
def test_dynamic_agrees_with_torch_quantile(std, percentile, dtype):
    x_0 = images(4, 3, 21, 17, std=std, dtype=dtype) * torch.tensor([1, 0.5, 2, 9], dtype=dtype).reshape(4, 1, 1, 1)
    torch.testing.assert_close(dynamic_threshold(x_0, percentile), by_quantile(x_0, percentile), rtol=0, atol=1e-6)


@pytest.mark.parametrize("excess", [0.3, 1.0])
@pytest.mark.parametrize("above_one", range(7))
def test_neighbours_on_both_sides_of_one_decide_together(above_one, excess):
    # 11 values and percentile 0.75: the limit lies halfway between the 8th and the 9th smallest value.
    x_0 = torch.linspace(0.1, 0.9, 11).reshape(1, 1, 1, 11)
    x_0[..., 11 - above_one :] += excess
    s = float(torch.quantile(x_0, 0.75).clamp(min=1))
    torch.testing.assert_close(dynamic_threshold(x_0, 0.75), x_0.clamp(-s, s) / s, rtol=0, atol=1e-6)


def test_images_in_range_come_back_bit_by_bit():
    x_0 = images(2, 3, 16, 16).clamp(-1, 1)
    assert torch.equal(dynamic_threshold(x_0, 1.0), x_0)


def test_few_values_above_one_are_clipped_and_nothing_else_moves():
    x_0 = images(1, 3, 32, 32, std=0.1)
    x_0[0, 0, 0, :5] = 2.0
    assert torch.equal(dynamic_threshold(x_0, 0.995), x_0.clamp(-1, 1))


def test_percentile_one_divides_by_the_largest_value():
    x_0 = images(2, 3, 8, 8, std=2.0)
    torch.testing.assert_close(dynamic_threshold(x_0, 1.0), x_0 / x_0.abs().amax((1, 2, 3), keepdim=True))


def test_cap_of_one_is_static_clipping():
    x_0 = images(2, 3, 8, 8, std=2.0)
    assert torch.equal(dynamic_threshold(x_0, 0.995, max_threshold=1.0), static_threshold(x_0))


def test_cap_limits_the_division():
    x_0 = images(2, 3, 8, 8, std=3.0)
    torch.testing.assert_close(dynamic_threshold(x_0, 0.995, 1.5), x_0.clamp(-1.5, 1.5) / 1.5)


def test_each_image_has_its_own_limit():
    pair = torch.cat([images(1, 3, 8, 8, std=1.5), images(1, 3, 8, 8, std=4.0, seed=1)])
    together = dynamic_threshold(pair)
    assert torch.equal(together, torch.cat([dynamic_threshold(image[None]) for image in pair]))
    assert together.abs().amax((1, 2, 3)).tolist() == [1.0, 1.0]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_stays_and_stays_within_one(dtype):
    x_0 = images(2, 3, 16, 16, std=3.0).to(dtype)
    result = dynamic_threshold(x_0)
    assert result.dtype == dtype
    assert result.abs().max() == 1
    torch.testing.assert_close(result.float(), by_quantile(x_0.float(), 0.995), rtol=0, atol=1e-2)


def test_threshold_chooses_by_mode():
    x_0 = images(2, 3, 8, 8, std=3.0)
    assert torch.equal(threshold(x_0, "dynamic", 0.9, 2.0), dynamic_threshold(x_0, 0.9, 2.0))
    assert torch.equal(threshold(x_0, "static"), x_0.clamp(-1, 1))
    assert threshold(x_0, "none") is x_0
    with pytest.raises(ValueError, match="`mode` is 'clip'; choose one of dynamic, static, none"):
        threshold(x_0, "clip")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0.0,), "`percentile` is 0.0; give a share above 0 and at most 1"),
        ((99.5,), "`percentile` is 99.5"),
        ((float("nan"),), "`percentile` is nan"),
        ((0.995, 0.5), "`max_threshold` is 0.5; give 1 or more, or None"),
    ],
)
def test_settings_out_of_range_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        dynamic_threshold(torch.zeros(1, 3, 2, 2), *arguments)
