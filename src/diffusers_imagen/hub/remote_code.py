# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""A copy of a saved cascade that brings its code along, for machines that have Diffusers and not this package.

Beside the cascade's own files it holds

- `pipeline.py`, which Diffusers runs for `custom_pipeline="pipeline"`. Where the package is installed, it gives the
  package's class and nothing else of the repository is run;
- the code, in one file whose name holds its hash: Python keeps modules by name, and two exports must not mix;
- `unet/diffusers_imagen_remote.py` and its like, which Diffusers asks for before it fetches anything.
"""

import hashlib
import json
import shutil
import tempfile
from pathlib import Path

from diffusers_imagen._version import __version__
from diffusers_imagen.hub.inlined_code import PACKAGE, inlined
from diffusers_imagen.hub.saved_cascade import INDEX, PIPELINE, SavedCascade, read_cascade

REMOTE_CODE = "diffusers_imagen_remote"
_ROOT = "diffusers_imagen.pipelines.pipeline_imagen_cascade"
_HEADER = f"""# Copyright 2026 The diffusers-imagen authors.
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except in compliance with the
# License. You may obtain a copy of the License at http://www.apache.org/licenses/LICENSE-2.0. Unless required by
# applicable law or agreed to in writing, software distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific language
# governing permissions and limitations under the License.
#
# Written by `diffusers-imagen export-remote-code`, version {__version__}.
"""
_PIPELINE = f'''
"""Gives Diffusers this cascade's pipeline: the installed package's, or else the one in the file beside this."""

import importlib
import importlib.util
import sys

import diffusers
from diffusers.pipelines.pipeline_loading_utils import LOADABLE_CLASSES

if importlib.util.find_spec("{PACKAGE}") is not None:
    {PIPELINE} = importlib.import_module("{_ROOT}").{PIPELINE}
else:
    from .CODE_MODULE import {PIPELINE}

    code = sys.modules[{PIPELINE}.__module__]
    # Where Diffusers looks for the U-Nets' classes: those that this pipeline knows.
    diffusers.pipelines.{REMOTE_CODE} = code
    # What is saved again is the package's format.
    LOADABLE_CLASSES.setdefault("{PACKAGE}", {{}})
    for model in (code.ImagenUNet2DConditionModel, code.EfficientUNet2DConditionModel):
        model.__module__ = "{PACKAGE}"
'''
_COMPONENT = '''
"""Here so that Diffusers fetches this component; its class comes with `custom_pipeline="pipeline"`."""

raise ImportError(
    'This cascade is loaded with `custom_pipeline="pipeline", trust_remote_code=True`, or after installing and importing '
    "diffusers_imagen."
)
'''


def export_cascade(folder: Path, output: Path) -> Path:
    """Write the copy and return its file of code.

    Args:
        folder: of a saved cascade, which stays as it is.
        output: the new folder; it appears whole or not at all.

    Raises:
        ValueError: a folder that nobody could load, or an output that exists.
    """
    cascade = read_cascade(folder)
    if output.exists():
        raise ValueError(f"`output` is {str(output)!r}, which exists; give a new folder.")
    code = f"{_HEADER}\n{inlined(_ROOT)}"
    name = f"{PACKAGE}_{hashlib.sha256(code.encode()).hexdigest()[:12]}"
    compile(code, f"{name}.py", "exec")
    output.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{output.name}-", dir=output.parent))
    try:
        copy = temporary / "copy"
        shutil.copytree(folder, copy, ignore=shutil.ignore_patterns(".*", "__pycache__"))
        (copy / f"{name}.py").write_text(code, encoding="utf-8")
        (copy / "pipeline.py").write_text(_HEADER + _PIPELINE.replace("CODE_MODULE", name), encoding="utf-8")
        _point_to_code(cascade, copy)
        copy.rename(output)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return output / f"{name}.py"


def _point_to_code(cascade: SavedCascade, copy: Path) -> None:
    """Let the index name the code instead of the package, and put the file beside each component that stands for it."""
    index = dict(cascade.index)
    for name, component in cascade.components.items():
        if component.library in (PACKAGE, REMOTE_CODE):
            index[name] = [REMOTE_CODE, component.class_name]
            (copy / name / f"{REMOTE_CODE}.py").write_text(_HEADER + _COMPONENT, encoding="utf-8")
    (copy / INDEX).write_text(json.dumps(index, indent=2, sort_keys=True) + "\n", encoding="utf-8")
