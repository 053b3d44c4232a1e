"""Cascades whose prompts go through text models of every family, with their settings saved."""

import pytest
import torch

from diffusers_imagen.models.unet_imagen import ImagenUNet2DConditionModel
from diffusers_imagen.pipelines.pipeline_imagen_cascade import ImagenCascadePipeline
from diffusers_imagen.text.templates import chat_template

PROMPTS = ["a red cat\n", "猫 🐱", "قطة", ""]


@pytest.fixture
def two_layer_unet(cascade_parts):
    torch.manual_seed(3)
    config = {name: value for name, value in cascade_parts["unet"].config.items() if not name.startswith("_")}
    unet = ImagenUNet2DConditionModel(**config | {"num_text_layers": 2}).eval()
    for weight in unet.parameters():
        # Layers that begin with zeros too, so that the text reaches the pictures.
        torch.nn.init.normal_(weight, std=0.2)
    return unet


@pytest.mark.parametrize("name", ["t5", "mt5", "umt5", "byt5", "bert", "clip", "llama", "qwen2"])
def test_a_saved_cascade_reads_prompts_as_it_did(make_cascade, text_models, two_layer_unet, seeded, tmp_path, name):
    tokenizer, text_encoder = text_models(name)
    text = {"layers": [1, -1], "prefix": "a ", "max_length": 10}
    if name == "qwen2":
        text |= {"template": chat_template(tokenizer, "Describe the picture:"), "template_tokens": "none"}
    pipe = make_cascade(1, unet=two_layer_unet, tokenizer=tokenizer, text_encoder=text_encoder, text=text)
    drawn = pipe(PROMPTS, generator=seeded(0, 1, 2, 3), output_type="latent").images
    assert drawn.isfinite().all()
    assert not torch.allclose(drawn[0], pipe(PROMPTS[1], generator=seeded(0), output_type="latent").images[0])

    pipe.save_pretrained(tmp_path)
    again = ImagenCascadePipeline.from_pretrained(tmp_path)
    again.set_progress_bar_config(disable=True)
    assert type(again.text_encoder) is type(text_encoder)
    assert again.config.text == text
    for one, other in zip(pipe.encode_prompt(PROMPTS), again.encode_prompt(PROMPTS), strict=True):
        assert torch.equal(one, other)
    assert torch.equal(again(PROMPTS, generator=seeded(0, 1, 2, 3), output_type="latent").images, drawn)


def test_of_a_chat_template_the_u_net_gets_no_token(make_cascade, text_models):
    tokenizer, text_encoder = text_models("qwen2")
    template = chat_template(tokenizer, "Describe the picture:")
    pipe = make_cascade(1, tokenizer=tokenizer, text_encoder=text_encoder, text={"template": template})
    _, mask, _, negative_mask = pipe.encode_prompt(["a red cat", ""])
    assert mask.sum(1).tolist() == [len(tokenizer("a red cat")["input_ids"]), 0]
    assert not negative_mask.any()
