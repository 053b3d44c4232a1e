# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""Draw a suite's prompts into a folder with a sampling callable; what is there already is kept."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from diffusers_imagen.evaluation.suite import Suite, SuitePrompt

# Prompts and their seeds to pictures; each picture depends on its own prompt and seed alone.
Sampler = Callable[[list[str], list[int]], Sequence[Image.Image]]

_SETTINGS = "drawn_with.json"


def picture_path(folder: Path, identity: str) -> Path:
    """Return where the picture of a prompt lies in an evaluation's folder."""
    return folder / "pictures" / f"{identity}.png"


def claim_folder(folder: Path, settings: Mapping[str, object]) -> None:
    """Write down what a folder's pictures are drawn with, before the first is.

    Args:
        folder: The evaluation's folder; made if it is not there.
        settings: Checkpoint, steps and whatever else changes pictures; as JSON holds it.

    Raises:
        ValueError: If the folder has pictures that were drawn with something else, or holds anything but an evaluation.
    """
    wanted, present = json.loads(json.dumps(settings)), drawn_with(folder)
    if present is not None and any(folder.rglob("*.png")):
        differing = sorted(name for name in {*present, *wanted} if present.get(name) != wanted.get(name))
        if wanted.get("weights") is not None and "weights" not in differing:
            # The same files under another name.
            differing = [name for name in differing if name != "checkpoint"]
        if differing:
            raise ValueError(
                f"`out` is {str(folder)!r}, whose pictures were drawn with {differing[0]} {present.get(differing[0])!r}, "
                f"not {wanted.get(differing[0])!r}; choose another folder, or delete this one."
            )
        return
    if present is None and folder.exists():
        held = [folder] if folder.is_file() else sorted(folder.iterdir())
        if held:
            raise ValueError(
                f"`out` is {str(folder)!r}, with {held[0].name!r} but no {_SETTINGS}; choose another folder."
            )
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / _SETTINGS, json.dumps(wanted, indent=1, ensure_ascii=False) + "\n")


def drawn_with(folder: Path) -> dict[str, Any] | None:
    """Return what an evaluation's pictures were drawn with, or None where a folder holds no evaluation."""
    path = folder / _SETTINGS
    try:
        return dict(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else None
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path} cannot be read ({error}); choose another folder.") from error


def missing_prompts(suite: Suite, folder: Path) -> list[SuitePrompt]:
    """Return the prompts whose pictures an evaluation's folder does not have yet."""
    return [prompt for prompt in suite.prompts if not picture_path(folder, prompt.id).is_file()]


def draw_suite(
    suite: Suite,
    sampler: Sampler,
    folder: Path,
    batch_size: int = 16,
    progress: Callable[[int, int], None] | None = None,
) -> int:
    """Draw the pictures that a folder does not have yet.

    Args:
        suite: The prompts.
        sampler: Draws pictures from prompts and seeds.
        folder: The evaluation's folder, claimed with `claim_folder`.
        batch_size: Prompts drawn together.
        progress: Is told how many pictures of how many are there, after each batch.

    Returns:
        The number of pictures drawn now.

    Raises:
        ValueError: If the sampler returns another number of pictures than it was given prompts.
    """
    (folder / "pictures").mkdir(parents=True, exist_ok=True)
    missing = missing_prompts(suite, folder)
    present = len(suite.prompts) - len(missing)
    for start in range(0, len(missing), batch_size):
        batch = missing[start : start + batch_size]
        images = sampler([prompt.prompt for prompt in batch], [prompt.seed for prompt in batch])
        if len(images) != len(batch):
            raise ValueError(
                f"`sampler` returned {len(images)} pictures for {len(batch)} prompts; it must return as many."
            )
        for prompt, image in zip(batch, images, strict=True):
            path = picture_path(folder, prompt.id)
            temporary = path.with_suffix(".tmp")
            image.save(temporary, format="PNG")
            temporary.replace(path)
        if progress is not None:
            progress(present + start + len(batch), len(suite.prompts))
    return len(missing)


def write_atomically(path: Path, content: str) -> None:
    """Write a text file under a temporary name, then rename it."""
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(content, encoding="utf-8")
    temporary.replace(path)
