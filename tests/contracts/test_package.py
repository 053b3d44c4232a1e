"""What the package promises as a whole: cheap imports, its public names, and its place in Diffusers' tables."""

import importlib
import inspect
import os
import subprocess
import sys
from pathlib import Path

import diffusers
import pytest
from diffusers import ConfigMixin, ModelMixin
from diffusers.pipelines.auto_pipeline import AUTO_TEXT2IMAGE_PIPELINES_MAPPING
from diffusers.pipelines.pipeline_loading_utils import LOADABLE_CLASSES

import diffusers_imagen
from diffusers_imagen import _diffusers_plugin

PUBLIC = [
    "DeepFloydUNet2DConditionModel",
    "EfficientUNet2DConditionModel",
    "ImagenCascadeOutput",
    "ImagenCascadePipeline",
    "ImagenPicturesBlock",
    "ImagenPytorchUNet2DConditionModel",
    "ImagenStageBlock",
    "ImagenTextBlock",
    "ImagenUNet2DConditionModel",
    "UNetAutoGuidance",
    "__version__",
    "builtin_path",
    "cascade_blocks",
    "modular_cascade",
]
IMPORT_ALONE = """
import sys
def watch(event, arguments):
    if event.startswith("socket.") and event != "socket.__new__":
        raise RuntimeError(f"asked for the network: {event} {arguments}")
    if event == "open" and set(arguments[1] or "") & set("wax+"):
        raise RuntimeError(f"wrote a file: {arguments[0]}")
sys.addaudithook(watch)
before = set(sys.modules)
import diffusers_imagen
import diffusers_imagen.builtin.library
diffusers_imagen.builtin.library.builtin_names()
import diffusers_imagen.cli.main
print(diffusers_imagen.__version__)
print(" ".join(sorted({name.partition(".")[0] for name in set(sys.modules) - before})))
"""


def test_importing_the_package_imports_nothing_slow_and_touches_nothing(tmp_path):
    result = subprocess.run(
        [sys.executable, "-B", "-c", IMPORT_ALONE],
        capture_output=True, text=True, timeout=60, cwd=tmp_path, env={**os.environ, "HOME": str(tmp_path)},
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    version, modules = result.stdout.splitlines()
    assert version == diffusers_imagen.__version__
    imported = set(modules.split())
    assert "diffusers_imagen" in imported
    assert imported.isdisjoint({"torch", "diffusers", "transformers", "accelerate", "numpy", "PIL", "huggingface_hub"})
    assert list(tmp_path.iterdir()) == []


def test_the_public_names_are_these_and_resolve():
    assert diffusers_imagen.__all__ == PUBLIC
    assert set(PUBLIC) <= set(dir(diffusers_imagen))
    for name in PUBLIC:
        assert getattr(diffusers_imagen, name) is not None
        namespace: dict[str, object] = {}
        exec(f"from diffusers_imagen import {name}", namespace)
        assert namespace[name] is getattr(diffusers_imagen, name)


def test_a_name_that_does_not_exist_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'ImagenPipeline'"):
        diffusers_imagen.ImagenPipeline  # noqa: B018


def test_every_public_class_and_function_has_a_docstring():
    for name in set(PUBLIC) - {"__version__"}:
        thing = getattr(diffusers_imagen, name)
        assert inspect.getdoc(thing), name
        methods = vars(thing).items() if inspect.isclass(thing) else ()
        for method, function in methods:
            if inspect.isfunction(function) and not method.startswith("_"):
                assert inspect.getdoc(function), f"{name}.{method}"


@pytest.mark.parametrize(
    "name",
    [
        "ImagenCascadePipeline",
        "ImagenUNet2DConditionModel",
        "EfficientUNet2DConditionModel",
        "DeepFloydUNet2DConditionModel",
    ],
)
def test_diffusers_finds_our_classes_as_its_own(name):
    assert getattr(diffusers, name) is getattr(diffusers_imagen, name)


def test_diffusers_tables_hold_the_package():
    assert LOADABLE_CLASSES["diffusers_imagen"] == {}
    assert AUTO_TEXT2IMAGE_PIPELINES_MAPPING["imagen"] is diffusers_imagen.ImagenCascadePipeline
    assert diffusers.pipelines.diffusers_imagen_remote is diffusers_imagen


def test_registering_twice_is_once():
    finders, table = list(sys.meta_path), dict(LOADABLE_CLASSES)
    _diffusers_plugin.register()
    assert sys.meta_path == finders
    assert table == LOADABLE_CLASSES
    assert sum(type(finder).__name__ == "_AfterImport" for finder in sys.meta_path) == 1


def test_what_the_plugin_waits_for_exists_in_this_diffusers():
    # A Diffusers that moved one of these modules would leave its action undone without a word.
    for module in _diffusers_plugin._ACTIONS:
        assert importlib.import_module(module)


def test_what_is_overridden_of_diffusers_is_there_and_takes_what_it_did():
    # Else Diffusers would go past our checks, without a word.
    names = list(inspect.signature(ModelMixin._load_pretrained_model).parameters)
    assert names[:3] == ["model", "state_dict", "resolved_model_file"]
    assert inspect.ismethod(ConfigMixin.extract_init_dict)
    # A pipeline hands on what it finds in the signature of a component's `save_pretrained`.
    ours, theirs = (
        inspect.signature(owner.save_pretrained).parameters
        for owner in (diffusers_imagen.ImagenUNet2DConditionModel, ModelMixin)
    )
    assert list(ours) == list(theirs)
    assert {name: value.default for name, value in ours.items()} == {
        name: value.default for name, value in theirs.items()
    }
    assert callable(diffusers.DiffusionPipeline.register_modules)


def test_the_package_says_that_it_is_typed():
    assert (Path(diffusers_imagen.__file__).parent / "py.typed").is_file()
