"""docs/contract.md: every test of ours that it names exists."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NAMED = sorted(set(re.findall(r"`(tests/\S+?)::(\w+)`", (ROOT / "docs/contract.md").read_text(encoding="utf-8"))))


def test_the_tables_are_read():
    assert len(NAMED) > 40


@pytest.mark.parametrize(("path", "name"), NAMED)
def test_a_named_test_exists(path, name):
    body = ast.parse((ROOT / path).read_text(encoding="utf-8")).body
    assert name in [node.name for node in body if isinstance(node, ast.FunctionDef)]
