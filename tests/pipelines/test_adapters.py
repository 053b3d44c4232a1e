"""Cascades with LoRA adapters: what is saved is the cascade, under the names that it is loaded by."""

import copy
import logging
from typing import Any

import pytest
import torch
from diffusers import DiffusionPipeline
from peft import LoraConfig
from safetensors.torch import load_file

from diffusers_imagen.pipelines.pipeline_imagen_cascade import ImagenCascadePipeline

TARGETS = ["to_q", "to_k", "to_v", "add_k_proj", "add_v_proj"]


@pytest.fixture
def adapted(make_cascade, cascade_parts) -> ImagenCascadePipeline:
    """Give a cascade whose base has an adapter that does something."""
    unet = copy.deepcopy(cascade_parts["unet"])
    unet.add_adapter(LoraConfig(r=2, target_modules=TARGETS, init_lora_weights=False), adapter_name="style")
    return make_cascade(2, unet=unet.eval())


def draw(pipe: Any) -> torch.Tensor:
    pipe.set_progress_bar_config(disable=True)
    return pipe("a cat", generator=torch.Generator().manual_seed(0), output_type="latent").images


def test_a_cascade_with_an_adapter_is_saved_without_it_and_says_so(adapted, cascade, tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        adapted.save_pretrained(tmp_path)
    (message,) = [record.getMessage() for record in caplog.records if record.name.endswith("adapters")]
    assert "`unet` has the adapters ['style'] attached" in message
    assert "pipe.unet.save_lora_adapter(folder)" in message
    stored = load_file(tmp_path / "unet/diffusion_pytorch_model.safetensors")
    weights = cascade.unet.state_dict()
    assert stored.keys() == weights.keys()
    assert all(torch.equal(value, weights[name]) for name, value in stored.items())
    assert torch.equal(draw(DiffusionPipeline.from_pretrained(tmp_path)), draw(cascade))
    # The cascade itself keeps its adapter.
    assert not torch.equal(draw(adapted), draw(cascade))
    assert any("lora_A" in name for name in adapted.unet.state_dict())


def test_an_adapter_saved_beside_it_gives_the_same_pictures(adapted, tmp_path):
    adapted.save_pretrained(tmp_path)
    adapted.unet.save_lora_adapter(tmp_path / "style", adapter_name="style")
    loaded = ImagenCascadePipeline.from_pretrained(tmp_path)
    name = "pytorch_lora_weights.safetensors"
    loaded.unet.load_lora_adapter(tmp_path / "style", weight_name=name, prefix=None, adapter_name="style")
    torch.testing.assert_close(draw(loaded), draw(adapted), rtol=0, atol=1e-5)


def test_a_merged_adapter_is_part_of_the_weights(adapted, tmp_path, caplog):
    expected = draw(adapted)
    adapted.unet.fuse_lora()
    adapted.unet.unload_lora()
    with caplog.at_level(logging.WARNING):
        adapted.save_pretrained(tmp_path)
    assert not [record for record in caplog.records if record.name.endswith("adapters")]
    torch.testing.assert_close(draw(ImagenCascadePipeline.from_pretrained(tmp_path)), expected, rtol=0, atol=1e-4)
