"""What only an accelerator can show: weights that leave its memory, streams, float16. Run with `pytest -m cuda`.

On the device, pictures are compared with those of the same device, drawn with all weights on it.
"""

import copy
from typing import Any

import pytest
import torch
from diffusers.hooks import apply_group_offloading
from peft import LoraConfig

from diffusers_imagen.pipelines.pipeline_imagen_cascade import ImagenCascadePipeline

pytestmark = pytest.mark.cuda
MODELS = ("text_encoder", "unet", "sr_unet_1")


@pytest.fixture(scope="module")
def device() -> torch.device:
    found = torch.accelerator.current_accelerator()
    assert found is not None, "These tests need an accelerator; leave out `-m cuda` where there is none."
    return found


@pytest.fixture
def own(make_cascade, cascade_parts) -> ImagenCascadePipeline:
    """Give a cascade on the CPU whose models are its own."""
    return make_cascade(2, **{name: copy.deepcopy(cascade_parts[name]) for name in MODELS})


@pytest.fixture
def expected(own, device) -> torch.Tensor:
    return draw(copy.deepcopy(own).to(device))


def draw(pipe: Any) -> torch.Tensor:
    pipe.set_progress_bar_config(disable=True)
    return pipe("a red cat", generator=torch.Generator().manual_seed(0), output_type="latent").images.cpu().float()


def same(drawn: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(drawn, expected, rtol=0, atol=1e-3)


@pytest.mark.parametrize("method", ["enable_model_cpu_offload", "enable_sequential_cpu_offload"])
def test_offloaded_to_the_cpu_it_draws_the_same_as_often_as_one_likes(own, expected, method):
    getattr(own, method)()
    for _ in range(2):
        same(draw(own), expected)
    for name in MODELS:
        assert next(getattr(own, name).parameters()).device.type in ("cpu", "meta")


def test_an_adapter_is_loaded_while_models_are_offloaded(own, device, tmp_path):
    adapted = copy.deepcopy(own)
    adapted.unet.add_adapter(LoraConfig(r=2, lora_alpha=8, target_modules=["to_q"], init_lora_weights=False))
    adapted.save_lora_adapter(tmp_path)
    expected = draw(adapted.to(device))
    own.enable_model_cpu_offload()
    own.load_lora_weights(tmp_path)
    same(draw(own), expected)


@pytest.mark.parametrize("stream", [False, True], ids=["waiting", "streams"])
@pytest.mark.parametrize("kind", ["block_level", "leaf_level"])
def test_groups_come_and_go(own, device, expected, kind, stream):
    options = {
        "offload_type": kind,
        "use_stream": stream,
        "num_blocks_per_group": 1 if kind == "block_level" else None,
    }
    for name in MODELS[1:]:
        getattr(own, name).enable_group_offload(device, **options)
    apply_group_offloading(own.text_encoder, onload_device=device, offload_type="leaf_level", use_stream=stream)
    for _ in range(2):
        same(draw(own), expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_draws_nearly_the_same(own, device, expected, dtype):
    drawn = draw(own.to(device, dtype))
    assert 0 < (drawn - expected).abs().mean() < 0.1


@pytest.mark.parametrize("device_map", ["balanced", "cuda"])
def test_a_device_map_puts_models_on_the_device(own, device, expected, tmp_path, device_map):
    own.save_pretrained(tmp_path)
    device_map = device.type if device_map == "cuda" else device_map
    pipe = ImagenCascadePipeline.from_pretrained(tmp_path, device_map=device_map)
    assert pipe.unet.device.type == device.type
    same(draw(pipe), expected)


def test_a_generator_may_be_the_devices_own(own, device):
    own.to(device)
    first, second = (
        own("a red cat", generator=torch.Generator(device).manual_seed(0), output_type="latent").images
        for _ in range(2)
    )
    assert first.device.type == device.type
    assert torch.equal(first, second)
