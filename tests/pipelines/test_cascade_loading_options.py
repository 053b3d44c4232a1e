"""What Diffusers' `from_pretrained` and `save_pretrained` take, on a saved cascade: the same pictures, or what was asked.

Components by override, `None`, one `dtype`, `variant` and `from_pipe` are in test_cascade_saving.py; `revision` and
`local_files_only` in tests/hub.
"""

import json
from enum import StrEnum
from typing import Any

import pytest
import torch
from diffusers import (
    AutoModel,
    AutoPipelineForImage2Image,
    AutoPipelineForInpainting,
    AutoPipelineForText2Image,
    DiffusionPipeline,
    PipelineQuantizationConfig,
)
from diffusers.quantizers import auto as quantizers
from diffusers.quantizers.base import DiffusersQuantizer
from diffusers.quantizers.quantization_config import QuantizationConfigMixin
from transformers.quantizers import HfQuantizer
from transformers.quantizers import auto as text_quantizers
from transformers.utils.quantization_config import QuantizationConfigMixin as TextQuantizationConfigMixin

from diffusers_imagen.models.unet_imagen import ImagenUNet2DConditionModel
from diffusers_imagen.pipelines.pipeline_imagen_cascade import ImagenCascadePipeline

ROUTES = [ImagenCascadePipeline, DiffusionPipeline, AutoPipelineForText2Image]


class Method(StrEnum):
    ROUNDING = "rounding"


class RoundingConfig(QuantizationConfigMixin):
    """A quantization of our own: linear layers get few different weights."""

    def __init__(self, levels: int = 4) -> None:
        self.quant_method = Method.ROUNDING
        self.levels = levels

    def to_diff_dict(self) -> dict[str, Any]:
        return self.to_dict()


class RoundingQuantizer(DiffusersQuantizer):
    is_serializable = True
    is_trainable = False

    def _process_model_before_weight_loading(self, model: Any, **_: Any) -> None:
        model.config.quantization_config = self.quantization_config

    def _process_model_after_weight_loading(self, model: Any, **_: Any) -> Any:
        round_weights(model, self.quantization_config.levels)
        return model


class TextRoundingConfig(TextQuantizationConfigMixin):
    """The same for models of Transformers."""

    def __init__(self, levels: int = 4) -> None:
        self.quant_method = Method.ROUNDING
        self.levels = levels


class TextRoundingQuantizer(HfQuantizer):
    is_trainable = False

    def is_serializable(self) -> bool:
        return True

    def _process_model_after_weight_loading(self, model: Any, **_: Any) -> Any:
        round_weights(model, self.quantization_config.levels)
        return model


def round_weights(model: Any, levels: int) -> None:
    for layer in linear_layers(model):
        largest = layer.weight.data.abs().max()
        layer.weight.data = (layer.weight.data / largest * levels).round() * largest / levels


@pytest.fixture(scope="module")
def saved(make_cascade, tmp_path_factory):
    """Give a saved cascade of two stages."""
    folder = tmp_path_factory.mktemp("options")
    make_cascade(2).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def expected(make_cascade):
    return draw(make_cascade(2))


def draw(pipe: Any) -> torch.Tensor:
    pipe.set_progress_bar_config(disable=True)
    return pipe("a red cat", generator=torch.Generator().manual_seed(0), output_type="latent").images


def linear_layers(model: torch.nn.Module) -> list[torch.nn.Linear]:
    return [layer for layer in model.modules() if isinstance(layer, torch.nn.Linear)]


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize(
    "options",
    [
        {"low_cpu_mem_usage": False},
        {"device_map": "cpu"},
        {"disable_mmap": True},
        {"use_safetensors": True},
        {"stages": {"base": {"num_inference_steps": 3, "guidance_scale": 3.0}, "sr_1": {"num_inference_steps": 2}}},
    ],
    ids=lambda options: next(iter(options)),
)
def test_ways_of_loading_draw_the_same_picture(saved, expected, route, options):
    assert torch.equal(draw(route.from_pretrained(saved, **options)), expected)


@pytest.mark.parametrize("route", ROUTES)
def test_each_component_has_its_own_dtype(saved, route):
    dtypes = {"unet": torch.bfloat16, "text_encoder": torch.float64, "default": torch.float32}
    pipe = route.from_pretrained(saved, dtype=dtypes)
    assert {name: getattr(pipe, name).dtype for name in ("unet", "text_encoder", "sr_unet_1")} == {
        "unet": torch.bfloat16,
        "text_encoder": torch.float64,
        "sr_unet_1": torch.float32,
    }
    assert draw(pipe).isfinite().all()


@pytest.mark.parametrize("route", ROUTES)
def test_a_cascade_in_parts_draws_the_same_picture(make_cascade, expected, tmp_path, route):
    make_cascade(2).save_pretrained(tmp_path, max_shard_size="20KB")
    index = json.loads((tmp_path / "unet/diffusion_pytorch_model.safetensors.index.json").read_text())
    assert len(set(index["weight_map"].values())) > 1
    assert torch.equal(draw(route.from_pretrained(tmp_path)), expected)


def test_a_variant_in_parts_is_loaded_beside_the_usual_weights(make_cascade, expected, tmp_path):
    make_cascade(2).save_pretrained(tmp_path)
    make_cascade(2).save_pretrained(tmp_path, variant="small", max_shard_size="20KB")
    for variant in (None, "small"):
        assert torch.equal(draw(DiffusionPipeline.from_pretrained(tmp_path, variant=variant)), expected)


@pytest.mark.parametrize("route", ROUTES)
def test_a_quantization_reaches_the_components_that_it_names(saved, monkeypatch, route):
    monkeypatch.setitem(quantizers.AUTO_QUANTIZER_MAPPING, "rounding", RoundingQuantizer)
    monkeypatch.setitem(quantizers.AUTO_QUANTIZATION_CONFIG_MAPPING, "rounding", RoundingConfig)
    wanted = {"unet": RoundingConfig(4), "sr_unet_1": RoundingConfig(1)}
    pipe = route.from_pretrained(saved, quantization_config=PipelineQuantizationConfig(quant_mapping=wanted))
    counts = {
        name: max(len(layer.weight.unique()) for layer in linear_layers(getattr(pipe, name)))
        for name in ("unet", "sr_unet_1", "text_encoder")
    }
    assert 3 < counts["unet"] <= 9
    assert counts["sr_unet_1"] <= 3
    assert counts["text_encoder"] > 100
    assert draw(pipe).isfinite().all()


@pytest.mark.parametrize("route", ROUTES)
def test_a_quantization_reaches_the_text_encoder(saved, monkeypatch, route):
    monkeypatch.setitem(text_quantizers.AUTO_QUANTIZER_MAPPING, "rounding", TextRoundingQuantizer)
    monkeypatch.setitem(text_quantizers.AUTO_QUANTIZATION_CONFIG_MAPPING, "rounding", TextRoundingConfig)
    wanted = PipelineQuantizationConfig(quant_mapping={"text_encoder": TextRoundingConfig(4)})
    pipe = route.from_pretrained(saved, quantization_config=wanted)
    assert max(len(layer.weight.unique()) for layer in linear_layers(pipe.text_encoder)) <= 9
    assert max(len(layer.weight.unique()) for layer in linear_layers(pipe.unet)) > 100
    assert draw(pipe).isfinite().all()


def test_a_u_net_loads_by_auto_model_in_another_dtype(saved):
    unet = AutoModel.from_pretrained(str(saved), subfolder="unet", dtype=torch.bfloat16)
    assert type(unet) is ImagenUNet2DConditionModel
    assert unet.dtype == torch.bfloat16


@pytest.mark.parametrize("task", [AutoPipelineForImage2Image, AutoPipelineForInpainting])
def test_tasks_that_a_cascade_does_not_do_are_refused(saved, task):
    with pytest.raises(ValueError, match="can't find a pipeline linked to ImagenCascadePipeline"):
        task.from_pretrained(str(saved))


def test_what_does_not_apply_is_not_there(make_cascade):
    pipe = make_cascade(1)
    assert not hasattr(pipe, "from_single_file")
    assert not hasattr(pipe, "vae")
