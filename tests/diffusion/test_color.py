import torch

from diffusers_imagen.diffusion.color import with_mean_color


def test_pictures_get_the_mean_asked_for_and_stay_in_range():
    generator = torch.Generator().manual_seed(0)
    white = torch.rand(3, 3, 16, 16, generator=generator) > 0.3
    x_0 = torch.where(white, 1.0, torch.rand(3, 3, 16, 16, generator=generator) - 0.5)
    color = x_0.mean(dim=(-2, -1), keepdim=True) + 0.03 * torch.tensor([1.0, 0.0, -1.0])[:, None, None]
    shifted = with_mean_color(x_0, color)
    assert shifted.abs().max() <= 1
    torch.testing.assert_close(shifted.mean(dim=(-2, -1), keepdim=True), color, rtol=0, atol=5e-4)


def test_a_picture_of_the_right_mean_is_left_alone():
    x_0 = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(1)) * 2 - 1
    torch.testing.assert_close(with_mean_color(x_0, x_0.mean(dim=(-2, -1), keepdim=True)), x_0, rtol=0, atol=1e-6)
