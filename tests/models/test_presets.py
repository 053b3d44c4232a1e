import pytest
import torch

from diffusers_imagen.models.blocks import ImagenResBlock
from diffusers_imagen.models.presets import PRESETS
from diffusers_imagen.models.unet_efficient import EfficientUNet2DConditionModel
from diffusers_imagen.models.unet_imagen import ImagenUNet2DConditionModel


def on_meta(name: str) -> torch.nn.Module:
    model_class = ImagenUNet2DConditionModel if name == "imagen-2b-64" else EfficientUNet2DConditionModel
    with torch.device("meta"):
        return model_class(**PRESETS[name])


def residual_convolutions(model: torch.nn.Module) -> int:
    blocks = [module for module in model.modules() if isinstance(module, ImagenResBlock)]
    return sum(block.conv1.weight.numel() + block.conv2.weight.numel() for block in blocks)


@pytest.mark.parametrize(("name", "millions"), [("imagen-2b-64", 2000), ("imagen-600m-256", 600)])
def test_presets_have_the_papers_size_within_five_percent(name, millions):
    assert on_meta(name).num_parameters() / 1e6 == pytest.approx(millions, rel=0.05)


def test_the_papers_second_enlargement_is_nine_percent_above_its_stated_size():
    model = on_meta("imagen-400m-1024")
    assert model.num_parameters() / 1e6 == pytest.approx(437, abs=1)
    # Why: F.3 has F.2's blocks, and their 3x3 convolutions alone nearly fill the 400M.
    assert residual_convolutions(model) / 1e6 == pytest.approx(391, abs=1)
    assert residual_convolutions(model) == residual_convolutions(on_meta("imagen-600m-256"))


def test_presets_follow_the_papers_attention():
    base = on_meta("imagen-2b-64")
    sides = {level: 64 // 2**level for level, kind in enumerate(base.config.attention_types) if kind == "self"}
    assert sorted(sides.values()) == [8, 16, 32]
    assert on_meta("imagen-600m-256").config.attention_types[-1] == "self"
    assert on_meta("imagen-400m-1024").config.attention_types == ("none", "none", "none", "cross")
