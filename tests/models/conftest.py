import pytest
import torch

from diffusers_imagen.models.unet_efficient import EfficientUNet2DConditionModel
from diffusers_imagen.models.unet_imagen import ImagenUNet2DConditionModel

TINY = {
    "block_out_channels": (16, 32),
    "layers_per_block": (1, 2),
    "attention_types": ("cross", "self"),
    "attention_head_dim": 8,
    "norm_num_groups": 8,
    "conditioning_dim": 32,
    "encoder_hid_dim": 12,
    "num_text_layers": 2,
    "cross_attention_dim": 16,
    "text_adapter_layers": 1,
    "text_max_length": 16,
}


def _randomised(model: torch.nn.Module, seed: int = 0) -> torch.nn.Module:
    """Give zero-initialised layers weights too, so that every path reaches the output."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                fan_in = parameter[0].numel()
                parameter.copy_(torch.randn(parameter.shape, generator=generator) / fan_in**0.5)
    return model.eval()


@pytest.fixture
def tiny_config() -> dict[str, object]:
    return dict(TINY)


@pytest.fixture
def randomised():
    return _randomised


@pytest.fixture
def base() -> ImagenUNet2DConditionModel:
    return _randomised(ImagenUNet2DConditionModel(sample_size=16, patch_size=1, **TINY))


@pytest.fixture
def enlargement() -> EfficientUNet2DConditionModel:
    config = TINY | {"feed_forward_mult": 2, "patch_size": 2}
    return _randomised(EfficientUNet2DConditionModel(sample_size=32, **config))


@pytest.fixture(params=["base", "enlargement"])
def unet(request: pytest.FixtureRequest) -> torch.nn.Module:
    return request.getfixturevalue(request.param)


@pytest.fixture
def inputs_of():
    """Return inputs for a U-Net: a batch of 3 whose texts have 5, 2 and 0 tokens."""

    def make(model: torch.nn.Module, batch: int = 3, dtype: torch.dtype = torch.float32) -> dict[str, torch.Tensor]:
        generator = torch.Generator().manual_seed(1)
        side = model.config.sample_size
        lengths = torch.tensor([5, 2, 0])[:batch]
        inputs = {
            "sample": torch.randn(batch, 3, side, side, generator=generator),
            "timestep": torch.tensor([900.0, 500.5, 3.0])[:batch],
            "encoder_hidden_states": torch.randn(batch, 5, 24, generator=generator),
        }
        if model.config.low_res_channels:
            inputs["low_res"] = torch.randn(batch, 3, side, side, generator=generator)
            inputs["noise_level"] = torch.tensor([0.0, 0.3, 1.0])[:batch]
        inputs = {name: value.to(dtype) for name, value in inputs.items()}
        inputs["encoder_attention_mask"] = torch.arange(5) < lengths[:, None]
        return inputs

    return make
