"""A tiny judge, and a tiny suite whose pictures are squares of one color."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from diffusers_imagen.evaluation.scene_judge import SceneJudge

NOUNS = ("cat", "dog", "hat")
COLORS = {"red": (220, 30, 30), "blue": (30, 30, 220)}


@pytest.fixture(scope="session")
def judge() -> SceneJudge:
    """Give an untrained judge of three nouns that looks at 16 by 16 pixels."""
    torch.manual_seed(0)
    made = SceneJudge(
        nouns=NOUNS,
        colors=tuple(COLORS),
        worn=("hat",),
        backgrounds=("white", "black"),
        styles=("flat", "round"),
        wearers=("cat", "dog"),
        sample_size=16,
        channels=(4, 4, 8, 8),
        num_blocks=1,
    )
    return made.eval()


def prompt_line(number: int, language: str, **changes: Any) -> dict[str, Any]:
    """Give the line of a prompt of the tiny suite; two languages and two categories in turn."""
    scene = f"scene-{number}"
    words = {"en": f"cat number {number}", "zh": f"猫{number}"}
    line = {
        "id": f"{scene}-{language}",
        "scene": scene,
        "category": ("single", "count")[number % 2],
        "language": language,
        "prompt": words[language],
        "seed": number,
        "held_out": number % 4 > 1,
        "claims": {"things": [{"names": [NOUNS[number % 3]]}]},
        "reference": f"references/{scene}.png",
        "control": f"references/scene-{(number + 2) % 8}.png",
    }
    return line | changes


@pytest.fixture
def write_suite(tmp_path: Path, judge: SceneJudge) -> Callable[..., Path]:
    """Give a function that writes a suite of the given lines, by default of eight scenes in two languages."""

    def write(lines: list[dict[str, Any]] | None = None) -> Path:
        folder = tmp_path / "suite"
        (folder / "references").mkdir(parents=True)
        for number in range(8):
            Image.new("RGB", (16, 16), (30 * number, 200, 100)).save(folder / f"references/scene-{number}.png")
        judge.save_pretrained(folder / "judge")
        if lines is None:
            lines = [prompt_line(number, language) for number in range(8) for language in ("en", "zh")]
        text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
        (folder / "prompts.jsonl").write_text(text, encoding="utf-8")
        (folder / "suite.json").write_text('{"format": 1, "name": "tiny"}')
        return folder

    return write


@pytest.fixture
def line() -> Callable[..., dict[str, Any]]:
    """Give the function that makes a line of the tiny suite."""
    return prompt_line


@pytest.fixture
def draw_squares() -> Callable[[list[str], list[int]], list[Image.Image]]:
    """Give a sampler that draws a square whose color comes from the seed."""
    return lambda prompts, seeds: [
        Image.new("RGB", (16, 16), (10 * seed % 256, len(p), 50)) for p, seed in zip(prompts, seeds, strict=True)
    ]
