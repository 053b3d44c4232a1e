"""A program: load cascades from the Hub in every way there is, draw, and note what went wrong with damaged ones.

Arguments: "package" or "alone" (a machine that has Diffusers only), the folder of the exported cascade, a JSON file with
commits, the folder to write into.
"""

import json
import os
import signal
import sys
import time
import urllib.request
import warnings
from importlib.util import find_spec
from pathlib import Path
from threading import Event

import torch
from diffusers import AutoModel, AutoPipelineForText2Image, DiffusionPipeline
from huggingface_hub import close_session, constants
from safetensors.torch import save_file

mode, exported, commits, output = (
    sys.argv[1],
    Path(sys.argv[2]),
    json.loads(Path(sys.argv[3]).read_text()),
    sys.argv[4],
)
torch.set_num_threads(1)
warnings.simplefilter("ignore")
time.sleep = lambda _: None
pictures, notes = {}, {}


def draw(name, pipeline_class, place, **options):
    try:
        pipe = pipeline_class.from_pretrained(place, **options)
        pipe.set_progress_bar_config(disable=True)
        notes[name] = f"{type(pipe).__module__}.{type(pipe).__name__}, {type(pipe.scheduler).__name__}"
        generator = torch.Generator().manual_seed(0)
        pictures[name] = pipe("a red cat", generator=generator, output_type="latent").images
        return pipe
    except Exception as error:
        notes[name] = f"{type(error).__name__}: {error}"


def switch(**switches):
    request = urllib.request.Request(f"{os.environ['HF_ENDPOINT']}/test/switches", json.dumps(switches).encode())
    urllib.request.urlopen(request).close()


def kill_while_it_loads(pipeline_class, repo):
    """Let another process fetch a repository, and kill it in the middle of a file."""
    switch(stall_download="unet/diffusion_pytorch_model.safetensors")
    child = os.fork()
    if child == 0:
        close_session()
        draw("killed", pipeline_class, repo)
        os._exit(0)
    # In the middle, once all other files are there.
    place = Path(constants.HF_HUB_CACHE) / f"models--{repo.replace('/', '--')}"
    while not (list(place.glob("blobs/*.incomplete")) and list(place.glob("snapshots/*/model_index.json"))):
        assert os.waitpid(child, os.WNOHANG) == (0, 0), "the process ended by itself"
        Event().wait(0.02)
    os.kill(child, signal.SIGKILL)
    notes["killed"] = os.waitpid(child, 0)[1]
    switch()


def load_with_package():
    import diffusers_imagen

    ours = diffusers_imagen.ImagenCascadePipeline
    routes = {"ours": ours, "theirs": DiffusionPipeline, "auto": AutoPipelineForText2Image}
    for name, route in routes.items():
        draw(name, route, "me/pushed")
    for name, arguments in {"automodel": ["me/unet"], "automodel subfolder": ["me/pushed"]}.items():
        subfolder = {"subfolder": "unet"} if "subfolder" in name else {}
        unet = AutoModel.from_pretrained(*arguments, **subfolder)
        notes[name] = type(unet).__name__
        pictures[name] = unet.conv_in.weight.detach().clone()
    draw("without asking the Hub", ours, "me/pushed", local_files_only=True)
    draw("never fetched", ours, "me/program", local_files_only=True)
    draw("parts", ours, "me/parts", revision=commits["parts"])
    draw("whole over parts", ours, "me/parts", revision=commits["whole over parts"])
    draw("branch", ours, "me/parts", revision="main")
    draw("variant", ours, "me/parts", variant="small")
    draw("no such revision", ours, "me/parts", revision="v9")
    draw("no such repository", ours, "me/nothing")
    for damage in commits["damaged"]:
        for name, route in routes.items():
            draw(f"{damage} {name}", route, f"me/{damage}")
    switch(cut_download="unet/diffusion_pytorch_model.safetensors")
    draw("interrupted", ours, "me/interrupted")
    switch()
    draw("fetched again", ours, "me/interrupted")
    kill_while_it_loads(ours, "me/killed")
    draw("fetched after a kill", ours, "me/killed")
    draw("exported, plainly", DiffusionPipeline, "me/exported")
    draw("exported, asked for its code", DiffusionPipeline, "me/exported", **code("pipeline"))
    draw("exported, ours", ours, exported)
    assert not [name for name in sys.modules if name.startswith("diffusers_modules") and "_imagen_" in name]


def load_alone():
    assert find_spec("diffusers_imagen") is None
    draw("plainly", DiffusionPipeline, "me/exported")
    draw("without trust", DiffusionPipeline, "me/exported", custom_pipeline="pipeline")
    draw("from the Hub", DiffusionPipeline, "me/exported", **code("pipeline"))
    pipe = draw("from a folder", DiffusionPipeline, str(exported), **code("pipeline"))
    draw("by its folder", DiffusionPipeline, str(exported), **code(str(exported)))
    again = draw("from the Hub again", DiffusionPipeline, "me/exported", **code("me/exported"))
    # The classes of one do not get in the way of another's.
    pictures["still"] = pipe("a red cat", generator=torch.Generator().manual_seed(0), output_type="latent").images
    assert find_spec("diffusers_imagen") is None
    again.save_pretrained(Path(output) / "saved")


def code(pipeline):
    return {"custom_pipeline": pipeline, "trust_remote_code": True}


load_with_package() if mode == "package" else load_alone()
save_file({name: picture.contiguous() for name, picture in pictures.items()}, Path(output) / "pictures.safetensors")
(Path(output) / "notes.json").write_text(json.dumps(notes))
