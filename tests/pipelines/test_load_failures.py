"""A folder that cannot be loaded is refused by the file at fault; mistakes of the caller and the machine are not the folder's."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from diffusers import DiffusionPipeline, PipelineQuantizationConfig
from diffusers.models.modeling_utils import ModelMixin

from diffusers_imagen.models.unet_imagen import ImagenUNet2DConditionModel
from diffusers_imagen.pipelines.load_failures import load_failure
from diffusers_imagen.pipelines.pipeline_imagen_cascade import ImagenCascadePipeline

UNET = "unet/diffusion_pytorch_model.safetensors"
POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:aa\nsize 3\n"


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def change(path: Path, **entries: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | entries))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: cut(f / "tokenizer/tokenizer.json"), "tokenizer/tokenizer.json cannot be read: "),
        (lambda f: (f / "tokenizer/tokenizer.json").write_text(POINTER), "tokenizer/tokenizer.json cannot be read: "),
        (lambda f: (f / "tokenizer/tokenizer.json").write_text("{}"), "tokenizer cannot be loaded as transformers."),
        (lambda f: (f / "tokenizer/tokenizer.json").unlink(), "tokenizer cannot be loaded as transformers."),
        (
            lambda f: (f / "tokenizer/tokenizer_config.json").write_text(""),
            "tokenizer/tokenizer_config.json cannot be",
        ),
        (lambda f: (f / "text_encoder/config.json").unlink(), "text_encoder/config.json is missing"),
        (
            lambda f: (f / "text_encoder/config.json").write_text("{}"),
            "text_encoder cannot be loaded as transformers.T5",
        ),
        (lambda f: cut(f / "text_encoder/model.safetensors"), "text_encoder/model.safetensors cannot be read"),
        (lambda f: (f / "text_encoder/model.safetensors").unlink(), "text_encoder holds no safetensors file"),
        (
            lambda f: change(f / "scheduler/scheduler_config.json", num_train_timesteps="x"),
            "scheduler cannot be loaded as diffusers.DDIMScheduler: ",
        ),
        (lambda f: (f / "scheduler/scheduler_config.json").unlink(), "scheduler cannot be loaded as diffusers.DDIM"),
        (lambda f: change(f / "unet/config.json", sample_size="big"), "unet/config.json describes no ImagenUNet2D"),
        (lambda f: (f / "unet/config.json").write_text("[]"), "unet/config.json is no configuration, but a list"),
        (lambda f: (f / "unet/config.json").unlink(), "unet/config.json is missing"),
        (lambda f: cut(f / UNET), f"{UNET} cannot be read"),
        (lambda f: (f / UNET).unlink(), f"{UNET} is missing"),
        (lambda f: (f / "model_index.json").write_text("[]"), "model_index.json is no configuration, but a list"),
        (lambda f: (f / "model_index.json").write_text("{"), "model_index.json cannot be read: "),
        (
            lambda f: change(f / "model_index.json", text_encoder=["transformers", "BertModel"]),
            "text_encoder/model.safetensors holds the weights of another model than BertModel, ",
        ),
        (
            lambda f: change(f / "model_index.json", unet=["diffusers_imagen", "EfficientUNet2DConditionModel"]),
            "unet/config.json is that of a ImagenUNet2DConditionModel, but it is loaded as EfficientUNet2D",
        ),
    ],
)
def test_a_damaged_folder_is_refused_by_the_file_or_the_component(folder, damage, message):
    ImagenCascadePipeline.from_pretrained(folder)
    damage(folder)
    with pytest.raises(OSError) as told:  # noqa: PT011 (the message is compared below)
        ImagenCascadePipeline.from_pretrained(folder)
    assert str(told.value).startswith(message)
    assert f"(`pretrained_model_name_or_path` is '{folder}'); fetch or save the checkpoint again." in str(told.value)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: change(f / "unet/config.json", sample_size="big"), "unet/config.json describes no ImagenUNet2D"),
        (lambda f: (f / "unet/config.json").write_text("[]"), "unet/config.json is no configuration"),
        (lambda f: (f / UNET).unlink(), f"{UNET} is missing"),
    ],
)
def test_diffusers_own_class_names_the_files_of_u_nets_as_well(folder, damage, message):
    damage(folder)
    with pytest.raises(OSError, match=message):
        DiffusionPipeline.from_pretrained(folder)


@pytest.mark.parametrize(
    ("options", "error"), [({"device_map": "auto"}, NotImplementedError), ({"device_map": 3}, ValueError)]
)
def test_a_mistake_in_the_arguments_is_told_as_it_is(checkpoint, options, error):
    with pytest.raises(error, match=r"auto not supported|`device_map` must be"):
        ImagenCascadePipeline.from_pretrained(checkpoint, **options)


def test_what_the_machine_lacks_is_told_as_it_is(checkpoint, monkeypatch):
    def fill_memory(*_: Any, **__: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(ModelMixin, "_load_pretrained_model", classmethod(fill_memory))
    with pytest.raises(torch.OutOfMemoryError):
        ImagenCascadePipeline.from_pretrained(checkpoint)


def test_a_quantization_that_cannot_be_is_not_the_files_fault(checkpoint, monkeypatch):
    def refuse(*_: Any, **__: Any) -> None:
        raise RuntimeError("No GPU found. A GPU is needed for quantization.")

    config = PipelineQuantizationConfig(quant_mapping={"text_encoder": transformers.BitsAndBytesConfig()})
    monkeypatch.setattr(transformers.PreTrainedModel, "from_pretrained", classmethod(refuse))
    with pytest.raises(RuntimeError, match=r"^No GPU found"):
        ImagenCascadePipeline.from_pretrained(checkpoint, quantization_config=config)


def test_an_error_outside_of_a_component_leaves_a_whole_folder_alone(checkpoint):
    for error in (ValueError("x"), TypeError("x"), RuntimeError("x")):
        assert load_failure(str(checkpoint), "model_index.json", error, {}) is None


def test_a_u_net_alone_is_refused_by_its_file(folder):
    change(folder / "unet/config.json", sample_size="big")
    for place, options in ((folder / "unet", {}), (str(folder), {"subfolder": "unet"})):
        with pytest.raises(OSError, match=r"^unet/config\.json describes no ImagenUNet2DConditionModel"):
            ImagenUNet2DConditionModel.from_pretrained(place, **options)
