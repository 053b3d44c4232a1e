"""A program: push a saved cascade to the Hub in every way there is, and note what each way said.

Arguments: the folder of the cascade, a folder to work in, the file of notes to write.
"""

import contextlib
import io
import json
import os
import sys
import time
import urllib.request
from pathlib import Path

from diffusers import EulerDiscreteScheduler
from huggingface_hub import HfApi

from diffusers_imagen import ImagenCascadePipeline
from diffusers_imagen.cli.main import main
from diffusers_imagen.hub.facts import CardFacts

folder, work, output = Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3])
time.sleep = lambda _: None  # the Hub's client tries again after waiting; here it need not wait
notes = {}


def note(name, action):
    try:
        notes[name] = str(action())
    except Exception as error:
        notes[name] = f"{type(error).__name__}: {error}"


def switch(**switches):
    request = urllib.request.Request(f"{os.environ['HF_ENDPOINT']}/test/switches", json.dumps(switches).encode())
    urllib.request.urlopen(request).close()


def program(*arguments):
    sys.argv = ["diffusers-imagen", *map(str, arguments)]
    told = io.StringIO()
    with contextlib.redirect_stdout(told), contextlib.redirect_stderr(told), contextlib.suppress(SystemExit):
        main()
    return told.getvalue()


def edit_card(repo):
    """Change a card as its author does in the browser."""
    api = HfApi()
    text = Path(api.hf_hub_download(repo, "README.md")).read_text(encoding="utf-8")
    return api.upload_file(
        path_or_fileobj=text.replace("## Limits", "My own words.\n\n## Limits").encode(),
        path_in_repo="README.md",
        repo_id=repo,
    )


pipe = ImagenCascadePipeline.from_pretrained(folder)
facts = CardFacts(license="apache-2.0", licenses={"data": "CC0"}, language=("en", "zh"))
note("pipeline", lambda: pipe.push_to_hub("me/pushed", commit_message="The first", card=facts))
note("saved", lambda: pipe.save_pretrained(work / "saved", push_to_hub=True, card=facts))
note("unet", lambda: pipe.unet.push_to_hub("me/unet"))
note("program", lambda: program("push", folder, "me/program"))
note("request", lambda: pipe.push_to_hub("me/request", create_pr=True, private=True).pr_url)
note("pickles", lambda: pipe.push_to_hub("me/pickles", safe_serialization=False))
note("subfolder", lambda: pipe.push_to_hub("me/subfolder", subfolder="x"))
note("saved subfolder", lambda: pipe.save_pretrained(work / "below", push_to_hub=True, subfolder="x"))
note("no name", lambda: pipe.push_to_hub("me/too/deep"))

note("parts", lambda: pipe.push_to_hub("me/parts", max_shard_size="20KB"))
pipe.scheduler = EulerDiscreteScheduler.from_config(pipe.scheduler.config)
note("whole over parts", lambda: pipe.push_to_hub("me/parts"))
note("variant", lambda: pipe.push_to_hub("me/parts", variant="small"))

note("edited", lambda: edit_card("me/saved"))
note("over edited", lambda: pipe.push_to_hub("me/saved", card=facts))

switch(lose_upload=True)
pipe.unet.conv_in.bias.data += 1  # other weights, which the Hub does not hold yet
note("interrupted", lambda: pipe.push_to_hub("me/pushed"))
note("interrupted first", lambda: pipe.push_to_hub("me/new"))
switch()
note("again", lambda: pipe.push_to_hub("me/new"))
output.write_text(json.dumps(notes))
