# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""Suites: a folder with prompts and what they claim, real pictures, a judge, and pictures of baselines.

    suite.json         {"format": 1, "name": "..."}
    prompts.jsonl      one line for each picture to draw; the fields are those of `SuitePrompt`
    judge/             a `SceneJudge`: config.json and safetensors
    baselines/NAME/    optional: a picture `ID.png` for each prompt, made without the model

Reading and checking only; drawing is `drawing.py`'s, counting `scores.py`'s.
"""

import hashlib
import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from diffusers_imagen.evaluation.claims import Claims, parse_claims
from diffusers_imagen.evaluation.scene_judge import SceneJudge

FORMAT = 1
_TEXT_FIELDS = ("id", "scene", "category", "language", "prompt")
_FIELDS = {*_TEXT_FIELDS, "reference", "control", "seed", "held_out", "claims"}
_ID = re.compile(r"[A-Za-z0-9_.-]+")


@dataclass(frozen=True)
class SuitePrompt:
    """Hold one prompt of a suite: one picture is drawn for it.

    Attributes:
        id: Name of the picture's file, without its ending.
        scene: What the prompt describes; prompts of one scene say the same in several languages and share a seed.
        category: What is tested.
        language: Language of the prompt, such as "en".
        prompt: The prompt.
        seed: Seed to draw from.
        held_out: Whether the combination was kept out of training; None where the category has no such scenes.
        claims: What the picture must show.
        reference: A real picture of the scene, if there is one.
        control: A real picture of another scene of the category, to compare real ones with each other.
    """

    id: str
    scene: str
    category: str
    language: str
    prompt: str
    seed: int
    held_out: bool | None
    claims: Claims
    reference: Path | None = None
    control: Path | None = None


@dataclass(frozen=True)
class Suite:
    """Hold a suite: its name, its prompts, its judge, and folders of the baselines' pictures by name.

    `identity` is a hash of all that scores depend on beside the pictures: prompts, claims, real pictures and judge.
    """

    name: str
    prompts: tuple[SuitePrompt, ...]
    judge: SceneJudge
    baselines: Mapping[str, Path]
    identity: str = ""

    @property
    def categories(self) -> list[str]:
        """Return the categories in the order of the prompts."""
        return list(dict.fromkeys(prompt.category for prompt in self.prompts))

    @property
    def digest(self) -> str:
        """Return a hash of what is drawn: all ids, prompts and seeds."""
        drawn = [(prompt.id, prompt.prompt, prompt.seed) for prompt in self.prompts]
        return hashlib.sha256(json.dumps(drawn).encode()).hexdigest()[:16]

    def first_scenes(self, per_category: int) -> "Suite":
        """Return the suite with only the first scenes of each category, in all their languages.

        Raises:
            ValueError: If `per_category` is below 1.
        """
        if per_category < 1:
            raise ValueError(f"`per_category` is {per_category}; give at least 1 scene.")
        scenes: dict[str, list[str]] = {category: [] for category in self.categories}
        for prompt in self.prompts:
            chosen = scenes[prompt.category]
            if prompt.scene not in chosen and len(chosen) < per_category:
                chosen.append(prompt.scene)
        kept = tuple(prompt for prompt in self.prompts if prompt.scene in scenes[prompt.category])
        return replace(self, prompts=kept)


def read_suite(folder: str | Path) -> Suite:
    """Read and check a suite.

    Raises:
        ValueError: If a file is missing or malformed, or two prompts have one id; the message says where.
    """
    folder = Path(folder)
    description = _read_description(folder)
    judge = _read_judge(folder / "judge")
    path = folder / "prompts.jsonl"
    if not path.is_file():
        raise ValueError(f"`suite` is {str(folder)!r}, which has no prompts.jsonl; make the suite again.")
    known = {kind: tuple(judge.config[kind]) for kind in ("nouns", "colors", "worn", "backgrounds", "styles")}
    prompts = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if not line.strip():
            continue
        try:
            prompts.append(_parse_prompt(json.loads(line), folder, known))
        except ValueError as error:
            raise ValueError(f"{path}, line {number}: {error}") from error
    if not prompts:
        raise ValueError(f"{path} is empty; a suite needs at least one prompt.")
    identity, count = Counter(prompt.id for prompt in prompts).most_common(1)[0]
    if count > 1:
        raise ValueError(f"{path} has {count} prompts with the id {identity!r}; every picture needs its own name.")
    baselines = {path.name: path for path in sorted((folder / "baselines").glob("*")) if path.is_dir()}
    name = str(description.get("name", folder.name))
    return Suite(name, tuple(prompts), judge, baselines, _identity(folder, prompts))


def _identity(folder: Path, prompts: Sequence[SuitePrompt]) -> str:
    digest = hashlib.sha256()
    real = {path for prompt in prompts for path in (prompt.reference, prompt.control) if path is not None}
    for path in (
        folder / "prompts.jsonl",
        *sorted(path for path in (folder / "judge").iterdir() if path.is_file()),
        *sorted(real),
    ):
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:16]


def _read_description(folder: Path) -> dict[str, Any]:
    path = folder / "suite.json"
    if not path.is_file():
        raise ValueError(f"`suite` is {str(folder)!r}, which has no suite.json; give the folder of a suite.")
    try:
        description = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is no JSON ({error}); make the suite again.") from error
    if not isinstance(description, dict) or description.get("format") != FORMAT:
        raise ValueError(f'{path} is of another format; this version reads {{"format": {FORMAT}, ...}}.')
    return description


def _read_judge(folder: Path) -> SceneJudge:
    if not (folder / "config.json").is_file():
        raise ValueError(f"{folder} holds no judge; save one there with `SceneJudge.save_pretrained`.")
    try:
        judge: SceneJudge = SceneJudge.from_pretrained(folder, use_safetensors=True)
    except OSError as error:
        raise ValueError(f"{folder} holds a judge that cannot be read; make the suite again. ({error})") from error
    return judge.eval()


def _parse_prompt(fields: Any, folder: Path, known: Mapping[str, tuple[str, ...]]) -> SuitePrompt:
    if not isinstance(fields, dict) or not set(fields) <= _FIELDS:
        unknown = sorted(set(fields) - _FIELDS) if isinstance(fields, dict) else fields
        raise ValueError(f"the line has {unknown!r}; give an object with fields of {sorted(_FIELDS)} alone.")
    for name in _TEXT_FIELDS:
        if not isinstance(fields.get(name), str) or not fields[name]:
            raise ValueError(f"`{name}` is {fields.get(name)!r}; give some text.")
    if not _ID.fullmatch(fields["id"]):
        raise ValueError(f"`id` is {fields['id']!r}; it names a file: give letters, digits, '_', '.' and '-' only.")
    seed = fields.get("seed")
    if not isinstance(seed, int) or isinstance(seed, bool) or seed < 0:
        raise ValueError(f"`seed` is {seed!r}; give a whole number of at least 0.")
    held_out = fields.get("held_out")
    if held_out is not None and not isinstance(held_out, bool):
        raise ValueError(f"`held_out` is {held_out!r}; give true or false, or leave it out.")
    return SuitePrompt(
        **{name: fields[name] for name in _TEXT_FIELDS},
        seed=seed,
        held_out=held_out,
        claims=parse_claims(fields.get("claims", {}), known),
        reference=_picture_path("reference", fields.get("reference"), folder),
        control=_picture_path("control", fields.get("control"), folder),
    )


def _picture_path(name: str, value: object, folder: Path) -> Path | None:
    if value is None:
        return None
    path = folder / str(value)
    if not path.is_file() or folder.resolve() not in path.resolve().parents:
        raise ValueError(f"`{name}` is {value!r}; give a file within the suite's folder.")
    return path
