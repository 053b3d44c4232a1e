"""Rules of the house that no linter checks, read from the syntax trees of the package's files."""

import ast
import re
from pathlib import Path

import diffusers
import pytest

import diffusers_imagen

ROOT = Path(diffusers_imagen.__file__).parent
FILES = sorted(str(path.relative_to(ROOT)) for path in ROOT.rglob("*.py"))
# Who may read Diffusers' private names, and what every pipeline of Diffusers has to set or read.
MAY_READ_PRIVATE = ("schedulers/", "models/", "_diffusers_plugin.py")
PIPELINES_HOOKS = {"_execution_device", "_optional_components", "_callback_tensor_inputs"}
PIPELINES = (
    "pipelines/pipeline_imagen_cascade.py",
    "pipelines/stored_pipeline.py",
    "pipelines/modular_blocks.py",
)
# What passes unnamed keywords on to the host, whose own signature that is.
TAKE_KEYWORDS = {
    "models/adapter_model.py": ["load_lora_adapter"],
    "pipelines/lora.py": ["lora_state_dict", "load_lora_weights"],
    "pipelines/stored_pipeline.py": ["from_pretrained", "register_modules", "save_pretrained", "_save"],
    "models/packed_model.py": ["enable_layerwise_casting", "compile"],
    "models/repeated_blocks.py": ["compile_repeated_blocks"],
    "models/stored_model.py": ["save_pretrained", "from_pretrained", "extract_init_dict", "_load_pretrained_model"],
    "models/unet_deepfloyd.py": ["__init__"],
    "pipelines/disk_offload.py": ["pre_forward"],
    "guiders/unet_auto_guidance.py": ["new", "save_pretrained", "from_pretrained"],
}
COPYRIGHT = "# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0."
VAGUE = {"utils.py", "helpers.py", "common.py", "misc.py"}


def _private_names_of_diffusers() -> set[str]:
    """Return what Diffusers' pipelines, models and schedulers name with an underscore, read from their source."""
    folder = Path(diffusers.__file__).parent
    files = [
        folder / "pipelines/pipeline_utils.py",
        folder / "pipelines/pipeline_loading_utils.py",
        folder / "models/modeling_utils.py",
        folder / "configuration_utils.py",
        *folder.glob("schedulers/scheduling_*.py"),
    ]
    text = "\n".join(file.read_text(encoding="utf-8") for file in files)
    return {name for name in re.findall(r"\b_\w+", text) if is_private(name)}


def tree(path: str) -> ast.Module:
    return ast.parse((ROOT / path).read_text(encoding="utf-8"))


def is_private(name: str) -> bool:
    return name.startswith("_") and not (name.startswith("__") and name.endswith("__"))


def private_names_of_others(module: ast.Module) -> set[str]:
    """Return the private names that a file reads without having made them."""
    own = {node.name for node in ast.walk(module) if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    read: set[str] = set()
    for node in ast.walk(module):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("diffusers."):
            parts = [*(node.module or "").split("."), *(alias.name for alias in node.names)]
            read |= {part for part in parts if is_private(part)}
        elif isinstance(node, ast.Import):
            read |= {part for alias in node.names for part in alias.name.split(".") if is_private(part)}
        elif isinstance(node, ast.Attribute) and is_private(node.attr):
            (own if isinstance(node.ctx, ast.Store) and is_self(node.value) else read).add(node.attr)
        elif isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("getattr", "setattr"):
            read |= {
                str(arg.value) for arg in node.args if isinstance(arg, ast.Constant) and is_private(str(arg.value))
            }
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            own.add(node.id)
    return read - own


def is_self(node: ast.expr) -> bool:
    return isinstance(node, ast.Name) and node.id in ("self", "cls")


DIFFUSERS_PRIVATE = _private_names_of_diffusers()


@pytest.mark.parametrize("path", [path for path in FILES if not path.startswith(MAY_READ_PRIVATE)])
def test_private_names_of_diffusers_stay_in_their_places(path):
    allowed = PIPELINES_HOOKS if path in PIPELINES else set()
    assert private_names_of_others(tree(path)) & DIFFUSERS_PRIVATE <= allowed


def test_the_search_for_private_names_finds_them():
    source = """
from diffusers.utils import _hidden
class A:
    _mine = 1
    def f(self, pipe):
        self._made_here = pipe._progress_bar_config
        getattr(pipe.scheduler, "_step_index")
        return self._mine, self._made_here, self._execution_device, self.__class__
"""
    found = private_names_of_others(ast.parse(source))
    assert found == {"_hidden", "_progress_bar_config", "_step_index", "_execution_device"}
    assert found - {"_hidden"} <= DIFFUSERS_PRIVATE


@pytest.mark.parametrize("path", FILES)
def test_a_file_is_short_and_says_what_lives_in_it(path):
    text = (ROOT / path).read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 500
    assert text.splitlines()[0] == COPYRIGHT
    assert ast.get_docstring(tree(path))
    assert Path(path).name not in VAGUE


@pytest.mark.parametrize("path", FILES)
def test_nothing_is_imported_from_the_package_root_or_relatively(path):
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0
            assert node.module != "diffusers_imagen"


@pytest.mark.parametrize("path", FILES)
def test_a_function_takes_no_unnamed_keywords_but_to_pass_them_on_to_diffusers(path):
    takers = [
        node.name for node in ast.walk(tree(path)) if isinstance(node, ast.FunctionDef) and node.args.kwarg is not None
    ]
    assert takers == TAKE_KEYWORDS.get(path, [])
