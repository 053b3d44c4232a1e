"""The example that chains the Stability x4 upscaler behind DeepFloyd IF, with random weights."""

import runpy
import sys
from pathlib import Path

from PIL import Image

SCRIPT = Path(__file__).parents[2] / "examples/deepfloyd_if/draw.py"


def test_three_stages_draw_a_picture_with_another_scheduler(tmp_path, monkeypatch, capsys):
    monkeypatch.syspath_prepend(SCRIPT.parent)
    output = tmp_path / "cat.png"
    options = ["--tiny", "--steps", "2", "2", "1", "--scheduler", "UniPCMultistepScheduler", "--output", str(output)]
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), "a cat", *options])
    runpy.run_path(str(SCRIPT), run_name="__main__")
    assert "16 -> 32 -> 128 pixels" in capsys.readouterr().out
    assert Image.open(output).size == (128, 128)
