"""A cascade whose U-Nets are what `torch.compile` has made of them."""

import torch

from diffusers_imagen.pipelines.pipeline_imagen_cascade import ImagenCascadePipeline


def draw(pipe):
    generator = torch.Generator().manual_seed(0)
    return pipe("a cat", num_inference_steps=2, generator=generator, output_type="pt").images


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
