import os
import resource
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from diffusers_imagen._version import __version__
from diffusers_imagen.cli.main import app

PROGRAM = "from diffusers_imagen.cli.main import main; main()"


def test_help_comes_within_a_second_and_names_the_verbs():
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    result = subprocess.run(
        [sys.executable, "-c", PROGRAM, "--help"],
        capture_output=True, text=True, timeout=60, env={**os.environ, "COLUMNS": "100"},
    )  # fmt: skip
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert result.returncode == 0, result.stderr
    assert "generate" in result.stdout
    assert "train" in result.stdout
    # Time of the process, not of the clock: other work on the machine does not count.
    assert after.ru_utime - before.ru_utime < 1.0


def test_without_a_verb_the_help_is_shown():
    result = CliRunner().invoke(app, [])
    assert "generate" in result.output
    assert result.exit_code == 2


@pytest.mark.parametrize("option", ["--prompt", "--bogus"])
def test_an_unknown_option_is_refused_by_name(option):
    result = CliRunner().invoke(app, ["generate", "a cat", option])
    assert result.exit_code == 2
    assert option in result.output


def test_the_version_is_told(run):
    result = run("--version")
    assert result.code == 0
    assert result.out.strip() == __version__


def test_wrong_input_is_told_in_one_line(run):
    result = run("generate", "a cat", "--output", "cat.gif")
    assert result.code == 2
    assert result.err == "diffusers-imagen: `--output` is 'cat.gif'; give a file name that ends in .png.\n"
    assert result.out == ""
