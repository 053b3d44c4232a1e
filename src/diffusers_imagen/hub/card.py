# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""The model card of a saved cascade: Markdown with the Hub's metadata, and whether somebody has edited one since.

A card ends in a comment with the hash of what stands above it. A card whose hash is right is as it was made and is
made anew; any other is its author's and is kept. Called by the upload and by `diffusers-imagen card`.
"""

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from diffusers_imagen._version import __version__
from diffusers_imagen.hub.facts import CardFacts, evaluation_rows, training_rows
from diffusers_imagen.hub.saved_cascade import SavedCascade

CARD = "README.md"
PICTURES = "pictures.png"
_TAGS = ("diffusers", "imagen", "diffusers-imagen", "pixel-diffusion", "text-to-image")
_MARK = re.compile(r"\n*<!-- diffusers-imagen card sha256:([0-9a-f]{64}).*?-->\s*\Z", re.DOTALL)
_PREDICTS = {"epsilon": "noise", "sample": "x_0", "v_prediction": "v", "flow_prediction": "flow"}
_UNKNOWN = "ACCOUNT/NAME"
_UNSTATED = "Not stated by the author."


def model_card(cascade: SavedCascade, facts: CardFacts, repo_id: str | None = None) -> str:
    """Return the text of a cascade's model card.

    Args:
        cascade: as it is saved.
        facts: what the author tells.
        repo_id: the Hub repository, or its name without the account; `None` for one that is not known yet.

    Raises:
        ValueError: facts that cannot be read.
    """
    name = facts.title or (repo_id or cascade.folder.resolve().name).rpartition("/")[2]
    sections = [
        _metadata(facts),
        f"# {name}",
        facts.description or _one_sentence(cascade),
        *_pictures(facts),
        "## Use",
        _usage(cascade, repo_id if repo_id and "/" in repo_id else _UNKNOWN),
        "## What it is",
        *_parts(cascade),
        "## Data",
        facts.data or _UNSTATED,
        "## Training",
        *_training(facts),
        "## Evaluation",
        *_evaluation(facts),
        "## Licences",
        _licences(cascade, facts),
        "## Limits",
        _limits(cascade, facts),
    ]
    return _marked("\n\n".join(sections))


def is_edited(card: str) -> bool:
    """Say whether somebody else than `model_card` has written or changed a card."""
    found = _MARK.search(card)
    return found is None or _hash(card[: found.start()]) != found[1]


def with_repository(card: str, repo_id: str) -> str:
    """Return a card that was made before its repository's name was known with the name; an edited one as it is."""
    if is_edited(card):
        return card
    return _marked(_MARK.sub("", card).replace(_UNKNOWN, repo_id))


def _marked(text: str) -> str:
    mark = f"diffusers-imagen card sha256:{_hash(text)} (a card that was edited is kept: change what you like above)"
    return f"{text}\n\n<!-- {mark} -->\n"


def _hash(text: str) -> str:
    # Neither line ends nor spaces at them are an edit: some editors change them unasked.
    lines = [line.rstrip() for line in text.strip().splitlines()]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _metadata(facts: CardFacts) -> str:
    from huggingface_hub import ModelCardData

    data = ModelCardData(
        license=facts.license,
        library_name="diffusers",
        pipeline_tag="text-to-image",
        language=list(facts.language) or None,
        base_model=facts.base_model,
        datasets=list(facts.datasets) or None,
        tags=list(dict.fromkeys((*_TAGS, *facts.tags))),
    )
    return f"---\n{data.to_yaml()}\n---"


def _one_sentence(cascade: SavedCascade) -> str:
    sizes = [f"{size} x {size}" for size in cascade.sizes]
    first, *enlarged = sizes
    then = f", then to {' and '.join(enlarged)}" if enlarged else ""
    return (
        f"A cascade of pixel diffusion models ([Imagen](https://arxiv.org/abs/2205.11487)) for Diffusers: a prompt to a "
        f"picture of {first} pixels{then}. {_count(cascade.parameters)} weights in all."
    )


def _pictures(facts: CardFacts) -> Iterator[str]:
    if facts.pictures is None:
        return
    yield f"![Pictures that this cascade drew]({PICTURES})"
    prompts = _prompts_of(facts.pictures)
    if prompts:
        yield "Prompts, in reading order: " + "; ".join(f'"{prompt}"' for prompt in prompts) + "."


def _prompts_of(path: Path) -> list[str]:
    """Return the prompts that `diffusers-imagen generate` writes into its PNG files."""
    from PIL import Image

    with Image.open(path) as picture:
        return [line for line in str(picture.info.get("prompt", "")).splitlines() if line]


def _usage(cascade: SavedCascade, place: str) -> str:
    lines = [
        "With the package diffusers-imagen installed:",
        "",
        "```python",
        "import torch",
        "import diffusers_imagen  # makes Diffusers know the cascade",
        "from diffusers import DiffusionPipeline",
        "",
        f'pipe = DiffusionPipeline.from_pretrained("{place}")',
        'images = pipe("a prompt", generator=torch.Generator().manual_seed(0)).images',
        'images[0].save("image.png")',
        "```",
    ]
    if (cascade.folder / "pipeline.py").is_file():
        lines += [
            "",
            "Without the package, with the code that this repository carries (read it first):",
            "",
            "```python",
            "from diffusers import DiffusionPipeline",
            "",
            "pipe = DiffusionPipeline.from_pretrained(",
            f'    "{place}", custom_pipeline="pipeline", trust_remote_code=True',
            ")",
            "```",
        ]
    return "\n".join(lines)


def _parts(cascade: SavedCascade) -> Iterator[str]:
    rows = []
    for stage, (unet, scheduler) in cascade.stages.items():
        saved = dict((cascade.index.get("stages") or {}).get(stage) or {})
        # A U-Net of another family does not say itself what it was trained on: the saved settings do.
        noise = {**(saved.pop("noise", None) or {}), **unet.config}
        rows.append(
            (
                f"{stage} (`{unet.name}`)",
                unet.class_name,
                f"{unet.config['sample_size']} x {unet.config['sample_size']}",
                f"{_count(unet.parameters)}, {'/'.join(unet.dtypes)}",
                _PREDICTS.get(noise.get("prediction_type", ""), "not stated"),
                _noise_schedule(noise),
                f"{scheduler.class_name}, {', '.join(f'{key} {value}' for key, value in saved.items()) or 'defaults'}",
            )
        )
    yield _table(("stage", "class", "pixels", "weights", "predicts", "noise schedule", "saved sampling"), rows)
    encoder = cascade.components.get("text_encoder")
    if encoder is None:
        yield "It has no text encoder of its own: give `prompt_embeds`."
    else:
        text = cascade.index.get("text") or {}
        settings = ", ".join(f"{key} {value!r}" for key, value in text.items()) or "the last layer"
        yield (
            f"Text goes through a frozen {encoder.class_name} ({_count(encoder.parameters)} weights, "
            f"{'/'.join(encoder.dtypes)}): {settings}."
        )


def _noise_schedule(noise: Mapping[str, Any]) -> str:
    if "log_snr_min" not in noise:
        return str(noise.get("noise_schedule", "not stated"))
    return f"{noise['noise_schedule']}, log-SNR {noise['log_snr_min']:g} to {noise['log_snr_max']:g}"


def _training(facts: CardFacts) -> Iterator[str]:
    if facts.training or not facts.training_logs:
        yield facts.training or _UNSTATED
    if facts.training_logs:
        yield _table(("stage", "steps", "loss", "samples a second"), training_rows(facts.training_logs))


def _evaluation(facts: CardFacts) -> Iterator[str]:
    if facts.evaluation is None:
        yield _UNSTATED
        return
    yield _table(("measure", "value", "on"), evaluation_rows(facts.evaluation))
    yield "Intervals in brackets are 95 %."


def _licences(cascade: SavedCascade, facts: CardFacts) -> str:
    models = [name for name, component in cascade.components.items() if component.parameters]
    names = list(dict.fromkeys(("whole", *models, "data", *facts.licenses)))
    unets = {unet.name: facts.license and "as the whole" for unet, _ in cascade.stages.values()}
    stated = {"whole": facts.license, **unets, **facts.licenses}
    return _table(("part", "licence"), [(name, stated.get(name) or _UNSTATED) for name in names])


def _limits(cascade: SavedCascade, facts: CardFacts) -> str:
    size = cascade.sizes[-1]
    length = (cascade.index.get("text") or {}).get("max_length")
    known = [
        *facts.limits,
        f"It was trained on pictures of {size} x {size} pixels; others can be asked for and may be worse.",
        *(
            [f"Prompts of more than {length} tokens are cut, with a warning that names what was lost."]
            if length
            else []
        ),
        "Nothing filters prompts or pictures. What its training pictures lack or favour, its pictures lack or favour too.",
    ]
    return "\n".join(f"- {line}" for line in known) + (
        f"\n\nMade with diffusers-imagen {__version__} from the saved files."
    )


def _count(parameters: int) -> str:
    for unit, name in ((1_000_000_000, " B"), (1_000_000, " M"), (1_000, " k")):
        if parameters >= unit:
            return f"{parameters / unit:.3g}{name}"
    return str(parameters)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(
        "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in line) + " |" for line in lines
    )
