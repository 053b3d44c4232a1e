"""docs/diffusers.md: each line of its tables is Python, and the test that is named for it exists."""

import ast
import builtins
import copy
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROWS = [
    [cell.strip() for cell in line.strip("|").split(" | ")]
    for line in (ROOT / "docs/diffusers.md").read_text(encoding="utf-8").splitlines()
    if line.startswith("| ") and not line.startswith("| to do |")
]


TEXT = (ROOT / "docs/diffusers.md").read_text(encoding="utf-8")
IMPORTS, DEFINITIONS = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)


def test_every_name_of_a_line_is_defined_at_the_head_or_by_a_line():
    lines = [row[1].strip("`") for row in ROWS]
    known = set(dir(builtins))
    for node in (node for code in (IMPORTS, DEFINITIONS, *lines) for node in ast.walk(ast.parse(code))):
        if isinstance(node, ast.Import | ast.ImportFrom):
            known |= {alias.asname or alias.name for alias in node.names}
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            known.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            known.add(node.id)
    for line in lines:
        read = [
            node for node in ast.walk(ast.parse(line)) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)
        ]
        # A loop's own variable is stored in the same line.
        assert {node.id for node in read} <= known, line


def test_the_definitions_will_do_for_the_lines(make_cascade, tmp_path, monkeypatch):
    pipe = make_cascade(2)
    pipe.unet = copy.deepcopy(pipe.unet)
    names = {"pipe": pipe}
    exec(IMPORTS.replace('pipe = ImagenCascadePipeline.from_pretrained("imagen-emoji")', ""), names)
    exec(DEFINITIONS, names)
    monkeypatch.chdir(tmp_path)
    used = {"embeds", "noise", "watch", "MyPipelineCallback", "Mirror", "layers", "state_dict", "ImagenAttnProcessor"}
    rows = [line.strip("`") for _, line, *_ in ROWS]
    rows = [row for row in rows if used & {node.id for node in ast.walk(ast.parse(row)) if isinstance(node, ast.Name)}]
    assert len(rows) == len(used)
    for line in rows:
        exec(line, names)
    assert list(names["blocks"].sub_blocks)[2] == "mirror"
    assert pipe.get_list_adapters() == {"unet": ["default_0"]}


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
