"""The cascade as modular blocks: the same pictures, whole or in parts."""

import re

import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler, UniPCMultistepScheduler
from diffusers.guiders import ClassifierFreeGuidance
from diffusers.modular_pipelines import ModularPipeline, ModularPipelineBlocks
from diffusers.modular_pipelines.modular_pipeline_utils import InputParam, OutputParam
from torch import Tensor

from diffusers_imagen.pipelines.modular_blocks import (
    ImagenPicturesBlock,
    ImagenStageBlock,
    ImagenTextBlock,
    cascade_blocks,
    modular_cascade,
)

CALLS = {
    "plain": {},
    "negative prompt, several pictures": {"negative_prompt": "a hat", "num_images_per_prompt": 2},
    "stage arguments": {
        "num_inference_steps": {"base": 2, "sr_1": 3},
        "guidance_scale": 2.0,
        "guidance_rescale": 0.5,
        "noise_level": {"sr_1": 0.3},
        "thresholding": {"base": "static"},
        "max_batch_size": 1,
    },
    "not square": {"height": 16, "width": 32, "prompt": ["a cat", "狗"]},
    "own steps": {"timesteps": {"base": [900, 500, 100]}},
    "guider": {"guider": {"base": ClassifierFreeGuidance(guidance_scale=2.0)}},
}


class Invert(ModularPipelineBlocks):
    """Turn pictures between two stages into their negatives."""

    @property
    def inputs(self):
        return [InputParam("pictures", Tensor, required=True)]

    @property
    def intermediate_outputs(self):
        return [OutputParam("pictures", Tensor)]

    def __call__(self, components, state):
        given = self.get_block_state(state)
        given.pictures = -given.pictures
        self.set_block_state(state, given)
        return components, state


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_the_picture_is_that_of_the_pipeline_to_the_bit(make_cascade, seeded, call):
    # Stochastic steps too: noise is drawn in the same order.
    pipe = make_cascade(2, scheduler=DDPMScheduler(), sr_scheduler_1=UniPCMultistepScheduler())
    call = {"prompt": "a red cat", "output_type": "latent"} | call
    expected = pipe(**call, generator=seeded(3)).images
    assert torch.equal(modular_cascade(pipe)(**call, generator=seeded(3), output="images"), expected)


def test_three_stages_and_pil_pictures(make_cascade, seeded):
    pipe = make_cascade(3)
    drawn = modular_cascade(pipe)(prompt="a red cat", generator=seeded(0), output="images")
    assert drawn[0].size == (32, 32)
    assert np.array_equal(drawn[0], pipe("a red cat", generator=seeded(0)).images[0])


def test_a_generator_for_each_picture_and_own_noise(make_cascade, seeded):
    pipe = make_cascade(2)
    noise = torch.randn(2, 3, 8, 8, generator=seeded(9))
    call = {"prompt": ["a cat", "a dog"], "latents": noise, "output_type": "latent"}
    expected = pipe(**call, generator=seeded(0, 1)).images
    assert torch.equal(modular_cascade(pipe)(**call, generator=seeded(0, 1), output="images"), expected)


def test_u_nets_of_deepfloyd_ifs_order_of_noise_draw_the_same(deepfloyd, seeded):
    from diffusers_imagen.pipelines.pipeline_imagen_cascade import ImagenCascadePipeline

    pipe = ImagenCascadePipeline.from_deepfloyd_if(*deepfloyd(2))
    pipe.set_progress_bar_config(disable=True)
    call = {"prompt": "a cat", "num_inference_steps": {"base": 2, "sr_1": 2}, "output_type": "latent"}
    expected = pipe(**call, generator=seeded(0)).images
    assert torch.equal(modular_cascade(pipe)(**call, generator=seeded(0), output="images"), expected)


def test_only_the_text(make_cascade):
    pipe = make_cascade(1)
    alone = ImagenTextBlock().init_pipeline()
    alone.update_components(tokenizer=pipe.tokenizer, text_encoder=pipe.text_encoder, text=pipe.config.text)
    state = alone(prompt="a red cat", negative_prompt="a hat", num_images_per_prompt=2)
    names = ("prompt_embeds", "prompt_attention_mask", "negative_prompt_embeds", "negative_prompt_attention_mask")
    for name, expected in zip(names, pipe.encode_prompt("a red cat", "a hat", 2), strict=True):
        assert torch.equal(state.get(name), expected)


def test_only_the_base(make_cascade, seeded):
    pipe = make_cascade(2)
    embeds, mask, _, _ = pipe.encode_prompt("a red cat")
    alone = ImagenStageBlock("base").init_pipeline()
    alone.update_components(unet=pipe.unet, scheduler=pipe.scheduler, stages=pipe.config.stages)
    texts = {"prompt_embeds": embeds, "prompt_attention_mask": mask}
    drawn = alone(**texts, generator=seeded(0), output="pictures")
    expected = pipe("a red cat", stop_stage="base", generator=seeded(0), output_type="latent").images
    assert torch.equal(drawn, expected)


def test_only_the_enlargement_of_a_given_picture(make_cascade, seeded):
    pipe = make_cascade(2)
    image = torch.rand(1, 3, 8, 8, generator=seeded(5))
    blocks = cascade_blocks(["sr_1"])
    assert [spec.name for spec in blocks.expected_components] == [
        "tokenizer", "text_encoder", "sr_unet_1", "sr_scheduler_1"
    ]  # fmt: skip
    alone = blocks.init_pipeline()
    alone.update_components(
        **{spec.name: getattr(pipe, spec.name) for spec in blocks.expected_components},
        stages=pipe.config.stages,
        text=pipe.config.text,
    )
    call = {"prompt": "a red cat", "image": image, "output_type": "latent"}
    drawn = alone(**call, generator=seeded(0), num_images_per_prompt=2, output="images")
    expected = pipe(**call, generator=seeded(0), num_images_per_prompt=2).images
    assert torch.equal(drawn, expected)
    # The only stage takes single values.
    drawn = alone(**call, generator=seeded(0), num_inference_steps=3, output="images")
    expected = pipe(**call, generator=seeded(0), num_inference_steps={"sr_1": 3}).images
    assert torch.equal(drawn, expected)


def test_a_block_of_ones_own_between_the_stages(make_cascade, seeded):
    pipe = make_cascade(2)
    blocks = cascade_blocks()
    blocks.sub_blocks.insert("invert", Invert(), 2)
    changed = blocks.init_pipeline()
    parts = modular_cascade(pipe)
    changed.update_components(**parts.components, stages=pipe.config.stages, text=pipe.config.text)
    drawn = changed(prompt="a red cat", generator=seeded(0), output_type="latent", output="images")

    generator = seeded(0)
    texts = dict(zip(("prompt_embeds", "prompt_attention_mask"), pipe.encode_prompt("a red cat")[:2], strict=True))
    base, enlargement = (ImagenStageBlock(stage).init_pipeline() for stage in ("base", "sr_1"))
    for alone in (base, enlargement):
        alone.update_components(
            **{name: getattr(pipe, name) for name in alone.component_names}, stages=pipe.config.stages
        )
    small = base(**texts, generator=generator, output="pictures")
    expected = enlargement(**texts, generator=generator, pictures=-small, output="pictures")
    assert torch.equal(drawn, expected)
    assert not torch.allclose(
        drawn, parts(prompt="a red cat", generator=seeded(0), output_type="latent", output="images"), atol=1e-2
    )


def test_blocks_load_a_saved_cascade(make_cascade, seeded, tmp_path):
    pipe = make_cascade(2)
    pipe.save_pretrained(tmp_path)
    modular = cascade_blocks(["base", "sr_1"]).init_pipeline(str(tmp_path))
    modular.load_components()
    drawn = modular(prompt="a red cat", generator=seeded(0), output_type="latent", output="images")
    assert torch.equal(drawn, pipe("a red cat", generator=seeded(0), output_type="latent").images)


def test_a_modular_pipeline_is_saved_and_loaded_with_its_settings(make_cascade, seeded, tmp_path):
    pipe = make_cascade(2)
    call = {"prompt": "a red cat", "output_type": "latent", "output": "images"}
    modular_cascade(pipe).save_pretrained(str(tmp_path / "modular"), overwrite_modular_index=True)
    again = cascade_blocks().init_pipeline(str(tmp_path / "modular"))
    again.load_components()
    assert isinstance(again, ModularPipeline)
    assert again.config.stages == pipe.config.stages
    assert again.config.text == pipe.config.text
    assert torch.equal(again(**call, generator=seeded(0)), modular_cascade(pipe)(**call, generator=seeded(0)))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"prompt": None}, "Required input 'prompt' is missing"),
        ({"prompt": "\ud800"}, "`prompt` holds '\\ud800', half a character"),
        ({"num_inference_steps": 0}, "`num_inference_steps` is 0"),
        ({"guidance_scale": {"sr_2": 1.0}}, "`guidance_scale` names the stage 'sr_2'"),
        ({"height": 17}, "`height` is 17 pixels"),
        ({"generator": "seed"}, "`generator` is or holds 'seed'"),
        ({"latents": torch.zeros(1)}, "`latents` is (1,)"),
        ({"image": torch.zeros(1, 3, 8, 8)}, "`pictures` and `image` are both given for 'sr_1'"),
        ({"output_type": "gif"}, "`output_type` is 'gif'"),
    ],
)
def test_what_the_pipeline_refuses_the_blocks_refuse(cascade, arguments, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        modular_cascade(cascade)(**{"prompt": "a cat"} | arguments)


def test_an_enlargement_without_pictures_and_a_stage_without_a_u_net_are_refused(cascade):
    embeds = cascade.encode_prompt("a cat")[0]
    alone = ImagenStageBlock("sr_1").init_pipeline()
    with pytest.raises(ValueError, match="`sr_unet_1` is None, but the stage 'sr_1' runs"):
        alone(prompt_embeds=embeds)
    alone.update_components(sr_unet_1=cascade.sr_unet_1, sr_scheduler_1=cascade.sr_scheduler_1)
    with pytest.raises(ValueError, match="`pictures` and `image` are both missing for 'sr_1'"):
        alone(prompt_embeds=embeds)
    with pytest.raises(ValueError, match=r"`pictures` is \(3, 8, 8\); give a tensor"):
        alone(prompt_embeds=embeds, pictures=torch.zeros(3, 8, 8))
    with pytest.raises(ValueError, match="There are 2 pictures to enlarge for 1 texts"):
        alone(prompt_embeds=embeds, pictures=torch.zeros(2, 3, 8, 8))


def test_impossible_blocks_are_refused():
    with pytest.raises(ValueError, match="`stage` is 'sr_3'; choose one of base, sr_1, sr_2"):
        ImagenStageBlock("sr_3")
    for stages in ([], ["sr_1", "base"], ["base", "base"]):
        with pytest.raises(ValueError, match="`stages` is"):
            cascade_blocks(stages)


def test_every_block_describes_itself():
    for block in (ImagenTextBlock(), ImagenStageBlock("sr_1"), ImagenPicturesBlock(), cascade_blocks()):
        assert all(name in block.doc for name in block.input_names)


def test_a_modular_pipeline_does_not_load_without_its_blocks(make_cascade, tmp_path):
    # What docs/modular.md says of Diffusers; a release that can do it should be made use of.
    modular_cascade(make_cascade(1)).save_pretrained(str(tmp_path), overwrite_modular_index=True)
    with pytest.raises((AttributeError, TypeError, ValueError, OSError)):
        ModularPipeline.from_pretrained(str(tmp_path))


def test_blocks_find_a_built_in_cascade_by_its_name():
    modular = cascade_blocks(["base", "sr_1"]).init_pipeline("imagen-emoji")
    modular.load_components(names=["unet", "scheduler"])
    assert modular.unet.config.sample_size == 64
    assert ImagenStageBlock("base").init_pipeline("imagen-emoji").config.stages["base"]["num_inference_steps"] == 12
