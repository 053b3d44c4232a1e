import os
import subprocess
import sys

import pytest

from diffusers_imagen.cli import schedulers
from diffusers_imagen.schedulers.catalogue import SCHEDULERS, Driven


def test_every_class_is_printed_with_its_verdict(run):
    result = run("schedulers")
    assert result.code == 0, result.err
    lines = {line.split()[0]: line for line in result.out.splitlines()[1:-2]}
    assert sorted(lines) == sorted(SCHEDULERS)
    for name, verdict in SCHEDULERS.items():
        if isinstance(verdict, Driven):
            assert " drives " in lines[name]
            assert f" {verdict.family} " in lines[name]
            assert f" {verdict.steps}" in lines[name]
        else:
            assert " refused " in lines[name]
            assert lines[name].endswith(f"{verdict.reason}; take {verdict.instead}")
    assert result.out.splitlines()[-1] == "36 of 51 drive any stage of any cascade."


def test_a_word_selects_classes_and_families(run):
    result = run("schedulers", "flow matching")
    assert [line.split()[0] for line in result.out.splitlines()[1:7]] == [
        "FlowMapEulerDiscreteScheduler",
        "FlowMatchEulerDiscreteScheduler",
        "FlowMatchHeunDiscreteScheduler",
        "FlowMatchLCMScheduler",
        "LTXEulerAncestralRFScheduler",
        "MiniMaxH3Scheduler",
    ]
    refused = run("schedulers", "quantum")
    assert refused.code == 2
    assert (
        refused.err == "diffusers-imagen: `word` is 'quantum', which no scheduler contains; leave it out to see all.\n"
    )


@pytest.mark.parametrize(
    ("name", "package"), [("LMSDiscreteScheduler", "scipy"), ("DPMSolverSDEScheduler", "torchsde")]
)
def test_a_missing_package_is_told(monkeypatch, name, package):
    monkeypatch.setattr(schedulers, "find_spec", lambda asked: None if asked == package else object())
    _, verdict, *_, note = schedulers.row(name)
    assert verdict == "missing"
    assert note == f"needs {package}: pip install 'diffusers-imagen[schedulers]'"


def test_nothing_heavy_is_imported_for_it():
    program = (
        "import sys; from diffusers_imagen.cli.main import app; app(['schedulers'], standalone_mode=False); "
        "sys.exit(bool({'torch', 'diffusers', 'numpy'} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, timeout=60, env=dict(os.environ))
    assert result.returncode == 0, result.stderr
