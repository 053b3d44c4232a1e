"""Modules joined into one: order, names that clash, and what cannot be joined."""

import ast
import sys

import pytest

from diffusers_imagen import _diffusers_plugin
from diffusers_imagen.hub import inlined_code, remote_code
from diffusers_imagen.hub.inlined_code import inlined

PARTS = {
    "__init__": "",
    "low": '''# copyright
"""Low."""
import math as maths
from math import pi
LIMIT = 3
_state = "low"
def shared() -> str:
    return _state + str(LIMIT)
class Base:
    size = 1
''',
    "high": '''# copyright
"""High."""
from math import tau as pi
from toy_package.low import LIMIT, Base
from toy_package.low import shared as lower
_state = "hoch ä"; other = _state
def shared() -> str:
    from toy_package.late import late
    return f"{_state} {lower()} {late()} {LIMIT} {pi:.2f}"
class Child(Base):
    """The child."""
''',
    "late": '''# copyright
"""Late."""
from typing import TYPE_CHECKING
if TYPE_CHECKING:
    from toy_package.low import Base
def late() -> "Base":
    return "late"
''',
}


@pytest.fixture
def toy(tmp_path, monkeypatch):
    """Give a function that writes a package of few modules; it is then the one whose imports are followed."""

    def write(**changes):
        folder = tmp_path / "toy_package"
        folder.mkdir()
        for name, text in (PARTS | changes).items():
            (folder / f"{name}.py").write_text(text, encoding="utf-8")
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.setattr(inlined_code, "PACKAGE", "toy_package")

    yield write
    for name in [name for name in sys.modules if name.startswith("toy_package")]:
        del sys.modules[name]


def test_the_joined_code_does_what_the_modules_did_and_imports_none_of_them(toy):
    toy()
    text = inlined("toy_package.high")
    names: dict[str, object] = {}
    exec(compile(text, "joined", "exec"), names)
    assert names["shared_of_high"]() == "hoch ä low3 late 3 6.28"
    assert names["Child"].size == 1
    assert "import toy_package" not in text
    assert "from toy_package" not in text
    assert text.index("---- toy_package.low") < text.index("---- toy_package.high")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"high": "# c\nimport toy_package.low\n"}, "imports a module as a whole"),
        ({"late": "# c\n_state = 1\ndef late(_state):\n    return _state\n"}, r"binds \['_state'\] to more than one"),
        ({"late": "# c\n_state = 1\nclass late:\n    _state = 2\n"}, r"binds \['_state'\] to more than one"),
        ({"high": "# c\nfrom toy_package.nowhere import thing\n"}, "'toy_package.nowhere'"),
    ],
)
def test_what_cannot_be_joined_is_told(toy, changes, message):
    toy(**changes)
    with pytest.raises(ValueError, match=message):
        inlined("toy_package.high")


def test_the_pipeline_s_code_is_whole():
    text = inlined("diffusers_imagen.pipelines.pipeline_imagen_cascade")
    tree = ast.parse(text)
    imported = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert not [name for name in imported if name.startswith("diffusers_imagen")]
    made = [
        node.name
        for node in tree.body
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and "overload" not in map(ast.unparse, node.decorator_list)
    ]
    assert len(made) == len(set(made))
    assert {"ImagenCascadePipeline", "ImagenUNet2DConditionModel", "EfficientUNet2DConditionModel"} <= set(made)


def test_export_and_registration_agree_on_the_name():
    assert remote_code.REMOTE_CODE == _diffusers_plugin.REMOTE_CODE
