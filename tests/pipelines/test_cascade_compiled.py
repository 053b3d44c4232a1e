"""A cascade whose U-Nets are what `torch.compile` has made of them."""

import torch
from diffusers.guiders.auto_guidance import AutoGuidance

from diffusers_imagen.pipelines.pipeline_imagen_cascade import ImagenCascadePipeline


def draw(pipe, **options):
    generator = torch.Generator().manual_seed(0)
    return pipe("a cat", num_inference_steps=2, generator=generator, output_type="pt", **options).images


def test_guiders_make_the_u_net_in_the_wrapper_worse(fresh):
    pipe = fresh()
    skip = {"indices": [0], "fqn": "mid_blocks"}
    guider = {"base": AutoGuidance(3.0, auto_guidance_config=skip)}
    expected = draw(pipe, guider=guider)
    pipe.unet = torch.compile(pipe.unet)
    with torch.compiler.set_stance("force_eager"):
        assert torch.equal(draw(pipe, guider=guider), expected)


def test_wrapped_u_nets_draw_and_are_saved_as_the_u_nets_themselves(fresh, tmp_path):
    pipe = fresh()
    expected = draw(pipe)
    calls = []
    pipe.unet, pipe.sr_unet_1 = torch.compile(pipe.unet), torch.compile(pipe.sr_unet_1)
    for unet in (pipe.unet, pipe.sr_unet_1):
        unet.register_forward_hook(lambda unet, *_: calls.append(type(unet).__name__))
    # Through the wrappers, which need no compiler then.
    with torch.compiler.set_stance("force_eager"):
        assert torch.equal(draw(pipe), expected)
    assert set(calls) == {"OptimizedModule"}
    pipe.save_pretrained(tmp_path)
    assert torch.equal(draw(ImagenCascadePipeline.from_pretrained(tmp_path)), expected)
