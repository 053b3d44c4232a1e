# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""The report of an evaluation: `report.md` for people, `report.json` for programs, and sheets of pictures."""

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from diffusers_imagen.evaluation.assessment import Assessment, Memorisation, real_pictures
from diffusers_imagen.evaluation.claims import Verdict
from diffusers_imagen.evaluation.drawing import picture_path, write_atomically
from diffusers_imagen.evaluation.intervals import Estimate, Rate
from diffusers_imagen.evaluation.pictures import read_picture
from diffusers_imagen.evaluation.sheets import Cell, write_sheet
from diffusers_imagen.evaluation.suite import Suite, SuitePrompt

_BOUNDS = (0.03, 0.05, 0.10)
_ON_SHEET = 60
_NEIGHBORS_ON_SHEET = 40


def write_report(
    suite: Suite,
    folder: Path,
    settings: Mapping[str, object],
    found: Assessment,
    others: Mapping[str, Path] | None = None,
) -> Path:
    """Write the report and its sheets into an evaluation's folder.

    Args:
        suite: The suite.
        folder: The evaluation's folder.
        settings: What the pictures were drawn with.
        found: What was found.
        others: Folders of the pictures that were compared with, by name.

    Returns:
        The path of `report.md`.
    """
    settings = dict(settings) | {"sizes": _sizes(suite.prompts[0], folder, others or {})}
    sheets = _write_sheets(suite, folder, found)
    content = {
        "suite": suite.name,
        "identity": suite.identity,
        "settings": dict(settings),
        "num_prompts": len(suite.prompts),
        "scores": [asdict(score) for score in found.scores],
        "comparisons": [asdict(comparison) for comparison in found.comparisons],
        "distances": [asdict(distances) for distances in found.distances],
        "agreement": {name: asdict(estimate) for name, estimate in found.agreement.items()},
        "memorisation": _memorisation_json(found.memorisation),
        "pictures": _picture_rows(suite.prompts, found),
    }
    text = json.dumps(_without_nan(content), indent=1, ensure_ascii=False, default=str)
    write_atomically(folder / "report.json", text + "\n")
    path = folder / "report.md"
    write_atomically(path, "\n".join(_markdown(suite, settings, found, sheets)) + "\n")
    return path


def _markdown(
    suite: Suite, settings: Mapping[str, object], found: Assessment, sheets: Mapping[str, Sequence[SuitePrompt]]
) -> Iterable[str]:
    yield f"# Evaluation on {suite.name}"
    yield ""
    yield from (f"- {name}: {value}" for name, value in settings.items() if value is not None)
    yield f"- claims, real pictures and judge: {suite.identity}"
    yield f"- pictures: {len(suite.prompts)}"
    yield from ("", "## Scores", "")
    yield (
        "A picture is a hit if the judge sees all that its prompt claims and no other things; of a prompt that claims a "
        "concept only, if the surest thing is one that is accepted. Ceiling: the same judge on "
        "real pictures of the scenes. Chance: prompts dealt to the pictures of other scenes. N counts pictures. Intervals "
        "are 95 %, of scenes: the languages of a scene share a seed, and are not independent."
    )
    yield ""
    yield from _score_table(found)
    yield from ("", "## Seen and held-out combinations, languages", "")
    yield from _split_table(found)
    yield from ("", "## Comparisons", "", '"Within" means that the whole interval lies inside the bound.', "")
    yield from _comparison_table(found)
    if found.distances:
        yield from ("", "## Distances to the real pictures", "")
        yield from _distance_table(found)
    if found.agreement:
        yield from ("", "## Agreement with the text (cosine)", "")
        yield from _table(("pictures", "mean"), [(name, _plain(value)) for name, value in found.agreement.items()])
    if found.memorisation is not None:
        yield from ("", "## Nearest training pictures", "")
        yield from _memorisation_table(found.memorisation)
    yield from ("", "## Sheets", "", "Green: hit, red: miss. Real picture left (where there is one), drawn right.")
    for number, (name, prompts) in enumerate(sheets.items(), start=1):
        yield from ("", f"### {name}", "", f"![{name}](sheets/{_file_name(number, name)})", "")
        yield "; ".join(f"{number}. {prompt.prompt}" for number, prompt in enumerate(prompts, start=1))


def _sizes(prompt: SuitePrompt, folder: Path, others: Mapping[str, Path]) -> str | None:
    """Say how large compared pictures are, where that differs: a difference of scores may then be the size's."""
    paths = {"model": picture_path(folder, prompt.id)} | {
        name: path / f"{prompt.id}.png" for name, path in others.items()
    }
    sizes = {name: "{} x {}".format(*read_picture(path).size) for name, path in paths.items()}
    return ", ".join(f"{name} {size}" for name, size in sizes.items()) if len(set(sizes.values())) > 1 else None


def _score_table(found: Assessment) -> Iterable[str]:
    others = list(found.judged.others)
    head = ("category", "N", "model", "nouns", "ceiling", "share of ceiling", "chance", *others)
    rows = [
        (
            score.category,
            str(score.drawn.trials),
            _percent(score.drawn),
            _percent(score.nouns),
            "-" if score.ceiling is None else f"{_percent(score.ceiling)} (N = {score.ceiling.trials})",
            "-" if score.share is None else _share(score.share),
            "-" if math.isnan(score.chance) else f"{score.chance:.1%}",
            *(_percent(score.baselines[name]) for name in others),
        )
        for score in found.scores
    ]
    return _table(head, rows)


def _split_table(found: Assessment) -> Iterable[str]:
    columns = list(dict.fromkeys(name for score in found.scores for name in (*score.splits, *score.languages)))
    rows = []
    for score in found.scores:
        rates = {**score.splits, **score.languages}
        cells = [rates.get(name) for name in columns]
        rows.append((score.category, *("-" if rate is None or not rate.trials else str(rate) for rate in cells)))
    return _table(("category", *columns), rows)


def _comparison_table(found: Assessment) -> Iterable[str]:
    head = ("comparison", "category", "difference", "paired", *(f"within {100 * bound:.0f}" for bound in _BOUNDS))
    rows = [
        (
            comparison.name,
            comparison.category,
            str(comparison.difference),
            "yes" if comparison.paired else "no",
            *(comparison.difference.within(bound) for bound in _BOUNDS),
        )
        for comparison in found.comparisons
    ]
    return _table(head, rows)


def _distance_table(found: Assessment) -> Iterable[str]:
    head = ("features", "pictures", "N", "real N", "Frechet", "KID x 1000", "CMMD", "precision", "recall")
    rows = [
        (
            row.features,
            row.pictures,
            str(row.count),
            str(row.real),
            f"{row.frechet:.4g}",
            f"{1000 * row.kernel:.4g}",
            f"{row.cmmd:.4g}",
            f"{row.precision:.1%}",
            f"{row.recall:.1%}",
        )
        for row in found.distances
    ]
    yield from _table(head, rows)
    yield ""
    yield "The Frechet distance of small sets is biased upwards: read it beside that of the other real pictures."


def _memorisation_table(found: Memorisation) -> Iterable[str]:
    head = ("distance by", "pictures", "5 %", "25 %", "50 %", "75 %", "95 %")
    rows = [
        (kind, pictures, *(f"{value:.3f}" for value in values))
        for kind, nearness in (("features", found.by_features), ("pixels", found.by_pixels))
        for pictures, values in (("model", nearness.generated), ("real, unseen", nearness.real))
    ]
    yield from _table(head, rows)
    yield ""
    yield (
        f"Nearer than the nearest quarter of real unseen pictures: {found.by_features.closer_than_real:.1%} of the drawn by "
        f"features, {found.by_pixels.closer_than_real:.1%} by pixels ({found.num_training} training pictures)."
    )
    yield ""
    yield "![nearest](sheets/nearest.png)"
    yield ""
    yield "Each three: drawn, nearest by features, nearest by pixels."


def _write_sheets(suite: Suite, folder: Path, found: Assessment) -> dict[str, list[SuitePrompt]]:
    """Write a sheet for each category and return the prompts on each."""
    real = real_pictures(suite)
    verdicts = found.judged.verdicts()
    sheets = {}
    for number, category in enumerate(suite.categories, start=1):
        rows = [(p, v) for p, v in zip(suite.prompts, verdicts, strict=True) if p.category == category][:_ON_SHEET]
        has_real = all(prompt.scene in real for prompt, _ in rows)
        groups = [_cells(folder, prompt, verdict, real if has_real else {}) for prompt, verdict in rows]
        write_sheet(groups, folder / "sheets" / _file_name(number, category), columns=6 if has_real else 10)
        sheets[category] = [prompt for prompt, _ in rows]
    if found.memorisation is not None:
        # Spread over the suite, since neighbors in it are of one category.
        step = max(1, len(found.memorisation.nearest) // _NEIGHBORS_ON_SHEET)
        groups = [
            [Cell(read_picture(path)) for path in (picture_path(folder, identity), by_features, by_pixels)]
            for identity, by_features, by_pixels in found.memorisation.nearest[::step]
        ]
        write_sheet(groups, folder / "sheets" / "nearest.png", columns=4)
    return sheets


def _cells(folder: Path, prompt: SuitePrompt, verdict: Verdict, real: Mapping[str, Path]) -> list[Cell]:
    drawn = Cell(read_picture(picture_path(folder, prompt.id)), "hit" if verdict.hit else "miss")
    return [Cell(read_picture(real[prompt.scene])), drawn] if prompt.scene in real else [drawn]


def _picture_rows(prompts: Sequence[SuitePrompt], found: Assessment) -> list[dict[str, Any]]:
    verdicts = {"model": found.judged.verdicts()}
    verdicts |= {name: found.judged.verdicts(name) for name in found.judged.others}
    return [
        {
            "id": prompt.id,
            "prompt": prompt.prompt,
            "seen": [thing.name for thing in found.judged.drawn[i].things],
            "hits": {name: given[i].hit for name, given in verdicts.items()},
        }
        for i, prompt in enumerate(prompts)
    ]


def _memorisation_json(found: Memorisation | None) -> dict[str, Any] | None:
    if found is None:
        return None
    return {
        "num_training": found.num_training,
        "by_features": asdict(found.by_features),
        "by_pixels": asdict(found.by_pixels),
    }


def _without_nan(value: Any) -> Any:
    """Replace NaN, which is no JSON, by None."""
    if isinstance(value, dict):
        return {name: _without_nan(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterable[str]:
    yield f"| {' | '.join(head)} |"
    yield f"|{'---|' * len(head)}"
    yield from (f"| {' | '.join(row)} |" for row in rows)


def _percent(rate: Rate) -> str:
    return f"{rate.value:.1%} [{rate.low:.1%}, {rate.high:.1%}]"


def _share(share: Estimate) -> str:
    return "-" if math.isnan(share.value) else f"{share.value:.1%} [{share.low:.1%}, {share.high:.1%}]"


def _plain(estimate: Estimate) -> str:
    return f"{estimate.value:.4f} [{estimate.low:.4f}, {estimate.high:.4f}] (N = {estimate.trials})"


def _file_name(number: int, category: str) -> str:
    """Name a category's sheet. The number tells "two colors" from "two-colors"."""
    words = re.sub(r"\W+", "-", category)
    return f"{number:02d}-{words}.png"
