"""docs/diffusers.md: each line of its tables is Python, and the test that is named for it exists."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROWS = [
    [cell.strip() for cell in line.strip("|").split(" | ")]
    for line in (ROOT / "docs/diffusers.md").read_text(encoding="utf-8").splitlines()
    if line.startswith("| ") and not line.startswith("| to do |")
]


def test_the_tables_are_read():
    assert len(ROWS) > 40
    assert all(len(row) == 4 for row in ROWS)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_a_line_is_python_and_its_test_exists(row):
    _, line, verdict, test = row
    ast.parse(line.strip("`"))
    assert re.match(r"works|does not apply|refused|not there yet|reaches|the repository stays", verdict)
    path, name = test.strip("`").split("::")
    functions = [
        node.name for node in ast.parse((ROOT / path).read_text(encoding="utf-8")).body if hasattr(node, "name")
    ]
    assert name in functions
