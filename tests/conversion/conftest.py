"""What imagen-pytorch itself gave for weights by formula, and those formulas."""

import json
import runpy
from pathlib import Path

import pytest

HERE = Path(__file__).parent
REFERENCES = HERE / "references"
FORMULAS = runpy.run_path(str(HERE / "formulas.py"))


@pytest.fixture(params=sorted(path.stem for path in REFERENCES.glob("*.json")))
def reference(request):
    """A release's U-Nets: names and shapes of a base and an enlargement, and what the enlargement predicts."""
    return json.loads((REFERENCES / f"{request.param}.json").read_text(encoding="utf-8"))


@pytest.fixture
def latest():
    """The same of imagen-pytorch 2.1.0."""
    return json.loads((REFERENCES / "imagen-pytorch-2.1.0.json").read_text(encoding="utf-8"))


@pytest.fixture
def first():
    """The same of imagen-pytorch 1.0.2."""
    return json.loads((REFERENCES / "imagen-pytorch-1.0.2.json").read_text(encoding="utf-8"))


@pytest.fixture
def make_state():
    return FORMULAS["by_formula"]


@pytest.fixture
def make_inputs():
    return FORMULAS["inputs_by_formula"]


@pytest.fixture
def minimagen():
    """The same of MinImagen 0.0.9."""
    return json.loads((REFERENCES / "minimagen-0.0.9.json").read_text(encoding="utf-8"))
