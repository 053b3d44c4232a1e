# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""What a model card says that no saved file knows: licences, data, training, evaluation, pictures, limits.

Read from a YAML or JSON file (`diffusers-imagen card --facts`), or made in Python and handed to `push_to_hub(card=...)`.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any


@dataclass(frozen=True, kw_only=True)
class CardFacts:
    """What the author tells about a cascade; everything may be left out, and the card then says that it was."""

    title: str | None = None
    """Heading; by default the repository's or the folder's name."""
    description: str | None = None
    """What the cascade is for, in a few sentences."""
    license: str | None = None
    """The whole's licence by the Hub's short name, such as "apache-2.0"."""
    licenses: Mapping[str, str] = field(default_factory=dict)
    """Licence and origin of each part: a component's name, "data", "code" or another, to a text."""
    language: tuple[str, ...] = ()
    """Languages of the prompts by their codes, such as "en"."""
    base_model: str | None = None
    """The Hub repository that training started from."""
    datasets: tuple[str, ...] = ()
    """Hub repositories of the pictures."""
    tags: tuple[str, ...] = ()
    """Tags beside the usual ones."""
    data: str | None = None
    """What it was trained on, in words."""
    training: str | None = None
    """How it was trained, in words."""
    training_logs: Mapping[str, Path] = field(default_factory=dict)
    """A `log.jsonl` of `diffusers-imagen train` by stage."""
    evaluation: Path | Mapping[str, float] | None = None
    """The `report.json` of `diffusers-imagen evaluate`, or a mapping from measures to numbers, itself or as JSON."""
    pictures: Path | None = None
    """A PNG to show, such as a grid of `diffusers-imagen generate`, which carries its prompts."""
    limits: tuple[str, ...] = ()
    """What it does not do, one sentence each."""

    def __post_init__(self) -> None:
        if isinstance(self.evaluation, Mapping):
            evaluation_rows(self.evaluation)
        for path in (*self.training_logs.values(), self.evaluation, self.pictures):
            if isinstance(path, Mapping):
                continue
            if path is not None and not path.is_file():
                raise ValueError(f"the card's facts name {str(path)!r}, which is no file; give its path.")
        if self.pictures is not None and self.pictures.suffix.lower() != ".png":
            raise ValueError(f"`pictures` is {str(self.pictures)!r}; give a PNG file.")


def read_facts(path: Path | None) -> CardFacts:
    """Read facts from a YAML or JSON file; paths in it are taken from its own folder.

    Raises:
        ValueError: a file that cannot be read, an unknown name, or a value of the wrong kind.
    """
    if path is None:
        return CardFacts()
    import yaml

    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ValueError(f"`--facts` is {str(path)!r}, which cannot be read: {error}") from error
    known = {item.name for item in fields(CardFacts)}
    if not isinstance(content, dict) or not set(content) <= known:
        unknown = sorted(map(str, set(content) - known)) if isinstance(content, dict) else type(content).__name__
        raise ValueError(f"`--facts` is {str(path)!r}, which holds {unknown}; it may name {', '.join(sorted(known))}.")
    return CardFacts(
        **{name: _value(name, value, path.parent) for name, value in content.items() if value is not None}
    )


def training_rows(logs: Mapping[str, Path]) -> list[tuple[str, ...]]:
    """Return stage, steps, losses at the first, a middle and the last line, and samples a second of each log.

    Raises:
        ValueError: a log without lines, or with other ones.
    """
    rows: list[tuple[str, ...]] = []
    for stage, path in logs.items():
        try:
            lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
            # A line of nothing but skipped steps has no loss.
            told = [line for line in lines if "loss" in line]
            chosen = {line["step"]: line["loss"] for line in (told[0], told[len(told) // 2], told[-1])}
            losses = ", ".join(f"{loss:.4g} (step {step:,})" for step, loss in chosen.items())
            speed = sorted(line["samples_per_s"] for line in lines)[len(lines) // 2]
        except (ValueError, TypeError, KeyError, IndexError) as error:
            raise ValueError(f"`training_logs` names {str(path)!r}, which is no log of a training run.") from error
        rows.append((stage, f"{lines[-1]['step']:,}", losses, f"{speed:.3g}"))
    return rows


def evaluation_rows(evaluation: Path | Mapping[str, float]) -> list[tuple[str, ...]]:
    """Return measure, value, and what it was measured on, of an evaluation.

    Args:
        evaluation: `diffusers-imagen evaluate`'s report or a mapping to numbers, or the file of either.

    Raises:
        ValueError: something else.
    """
    try:
        report: Any = evaluation
        if isinstance(evaluation, Path):
            report = json.loads(evaluation.read_text(encoding="utf-8"))
        if "scores" not in report:
            return [(str(name), f"{float(value):.4g}", "") for name, value in report.items()]
        suite = report["suite"]
        rows: list[tuple[str, ...]] = [
            (f"hits, {score['category']}", _rate(score["drawn"]), suite) for score in report["scores"]
        ]
        for distance in report["distances"]:
            where = f"{distance['count']} {distance['pictures']} to {distance['real']} real pictures"
            rows.append((f"Frechet distance, {distance['features']} features", f"{distance['frechet']:.4g}", where))
        for name, estimate in report["agreement"].items():
            rows.append((f"agreement with the text, {name}", f"{estimate['value']:.3f}", suite))
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(
            f"`evaluation` is {str(evaluation)!r}, which is neither a report.json of `diffusers-imagen evaluate` nor a mapping "
            "from measures to numbers."
        ) from error
    return rows


def _rate(rate: Mapping[str, Any]) -> str:
    if not rate["trials"]:
        return "-"
    return f"{rate['hits'] / rate['trials']:.1%} [{rate['low']:.1%}, {rate['high']:.1%}] (N = {rate['trials']})"


def _value(name: str, value: Any, folder: Path) -> Any:
    """Bring what YAML gives to the type of a field."""
    if name in ("licenses", "training_logs"):
        if not isinstance(value, dict):
            raise ValueError(f"`{name}` is {value!r}; give a mapping.")
        return {str(key): folder / str(item) if name == "training_logs" else str(item) for key, item in value.items()}
    if name == "evaluation" and isinstance(value, dict):
        return {str(key): item for key, item in value.items()}
    if name in ("evaluation", "pictures"):
        return folder / str(value)
    if name in ("language", "datasets", "tags", "limits"):
        return (value,) if isinstance(value, str) else tuple(map(str, value))
    return str(value)
