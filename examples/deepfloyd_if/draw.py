"""Draw with DeepFloyd IF as one cascade, any scheduler, and the Stability x4 upscaler as its usual third stage.

    python examples/deepfloyd_if/draw.py "a photo of a kangaroo in an orange hoodie" --dtype float16 --device cuda
    python examples/deepfloyd_if/draw.py "a cat" --tiny        # random weights, no download: shows that it runs

The weights are DeepFloyd's and Stability's, under their licences; accept IF's on the Hub and log in first.
"""

import argparse
from pathlib import Path

import diffusers
import torch
from diffusers import StableDiffusionUpscalePipeline
from tiny import tiny_stages, tiny_upscaler

from diffusers_imagen import ImagenCascadePipeline


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("prompt")
    parser.add_argument("--negative-prompt")
    parser.add_argument("--stage-1", default="DeepFloyd/IF-I-XL-v1.0", help="repository or folder")
    parser.add_argument("--stage-2", default="DeepFloyd/IF-II-L-v1.0", help="repository or folder")
    parser.add_argument("--stage-3", default="stabilityai/stable-diffusion-x4-upscaler", help="repository or folder")
    parser.add_argument("--scheduler", help="of both IF stages, such as UniPCMultistepScheduler; IF's DDPM by default")
    parser.add_argument("--steps", type=int, nargs=3, metavar=("I", "II", "III"), default=(100, 50, 75))
    parser.add_argument("--dtype", default="float32", choices=["float32", "float16", "bfloat16"])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=Path("deepfloyd_if.png"))
    parser.add_argument("--tiny", action="store_true", help="random weights instead of the repositories")
    arguments = parser.parse_args()

    dtype = getattr(torch, arguments.dtype)
    if arguments.tiny:
        pipe, upscaler = ImagenCascadePipeline.from_deepfloyd_if(*tiny_stages()), tiny_upscaler()
    else:
        variant = "fp16" if arguments.dtype == "float16" else None
        pipe = ImagenCascadePipeline.from_deepfloyd_if(
            arguments.stage_1, arguments.stage_2, dtype=dtype, variant=variant
        )
        upscaler = StableDiffusionUpscalePipeline.from_pretrained(arguments.stage_3, dtype=dtype)
    if arguments.scheduler:
        scheduler = getattr(diffusers, arguments.scheduler)
        pipe.scheduler = scheduler.from_config(pipe.scheduler.config)
        pipe.sr_scheduler_1 = scheduler.from_config(pipe.sr_scheduler_1.config)
    for part in (pipe, upscaler):
        part.enable_model_cpu_offload() if arguments.device == "cuda" else part.to(arguments.device)

    generator = torch.Generator().manual_seed(arguments.seed)
    drawn = pipe(
        arguments.prompt,
        arguments.negative_prompt,
        num_inference_steps={"base": arguments.steps[0], "sr_1": arguments.steps[1]},
        generator=generator,
    )
    large = upscaler(
        arguments.prompt,
        image=drawn.images,
        negative_prompt=arguments.negative_prompt,
        noise_level=20,
        num_inference_steps=arguments.steps[2],
        generator=generator,
    ).images[0]
    large.save(arguments.output)
    sides = [*(pictures[0].width for pictures in drawn.stages.values()), large.width]
    print(f"{' -> '.join(map(str, sides))} pixels: {arguments.output}")


if __name__ == "__main__":
    main()
