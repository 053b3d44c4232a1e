"""A program: load saved cascades in every way there is, draw with each, and write the pictures to a file.

Arguments: which package is imported first, the folder with the cascades, the file to write.
"""

import socket
import sys
from pathlib import Path


def refuse_network(*_: object) -> None:
    raise RuntimeError("the network was asked for")


socket.socket.connect = refuse_network
first, folder, output = sys.argv[1], Path(sys.argv[2]), sys.argv[3]
if first == "package":
    from diffusers import AutoModel, AutoPipelineForText2Image, DiffusionPipeline

    import diffusers_imagen
else:
    from diffusers import AutoModel, AutoPipelineForText2Image, DiffusionPipeline

    before = set(sys.modules)
    import diffusers_imagen

    # All of ours that is needed for drawing, and nothing that Diffusers has not imported for itself but for its guiders,
    # whose base class is in the pipeline's signature.
    assert diffusers_imagen.ImagenCascadePipeline.__module__ in sys.modules
    added = set(sys.modules) - before
    assert {name for name in added if not name.startswith(("diffusers_imagen", "diffusers.guiders"))} == set(), added
    parts = {name.split(".")[1] for name in added if "." in name}
    assert parts.isdisjoint({"cli", "conversion", "data", "demo", "evaluation", "hub", "training"}), parts

import torch  # noqa: E402 (the order of imports is what is tested)
from safetensors.torch import load_file, save_file  # noqa: E402

torch.set_num_threads(1)
OURS = diffusers_imagen.ImagenCascadePipeline
embeds = load_file(folder / "embeds.safetensors")
pictures = {}


def draw(name, pipeline_class, stages, prompt="a red cat", texts=None, **overrides):
    pipe = pipeline_class.from_pretrained(folder / stages, **overrides)
    assert type(pipe) is OURS, type(pipe)
    pipe.set_progress_bar_config(disable=True)
    generator = torch.Generator().manual_seed(0)
    pictures[name] = pipe(prompt, generator=generator, output_type="latent", **(texts or {})).images


for name, pipeline_class in {"ours": OURS, "theirs": DiffusionPipeline}.items():
    draw(f"{name} three", pipeline_class, "three")
    draw(f"{name} two of three", pipeline_class, "three", sr_unet_2=None)
    draw(f"{name} without encoder", pipeline_class, "two", prompt=None, texts=embeds, text_encoder=None)
draw("auto two", AutoPipelineForText2Image, "two")
draw("ours two", OURS, "two")

inputs = load_file(folder / "inputs.safetensors")
for name, arguments in {
    "automodel folder": {"pretrained_model_or_path": str(folder / "two/unet")},
    "automodel subfolder": {"pretrained_model_or_path": str(folder / "two"), "subfolder": "unet"},
}.items():
    model = AutoModel.from_pretrained(**arguments)
    assert type(model) is diffusers_imagen.ImagenUNet2DConditionModel, type(model)
    with torch.no_grad():
        pictures[name] = model(**inputs).sample
save_file({name: picture.contiguous() for name, picture in pictures.items()}, output)
