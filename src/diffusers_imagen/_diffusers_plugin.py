# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""Makes Diffusers' own loaders know this package: the only file that changes anything in Diffusers.

Diffusers trusts a fixed table of libraries, and looks pipeline and model classes up as its own attributes. Without an
entry a cascade loads from a folder with our class only, and a repository on the Hub not at all. Six things are set:

- `LOADABLE_CLASSES["diffusers_imagen"]`, so that components are saved under the package's short name and loaded;
- `diffusers.pipelines.diffusers_imagen_remote`, the name under which exported cascades carry their own code: where the
  package is installed, its classes are taken and that code is not run;
- our public classes as attributes of `diffusers`, for `DiffusionPipeline.from_pretrained` and `AutoModel`;
- the pipeline in `AutoPipelineForText2Image`'s table;
- a guider of its own that it forgot there;
- what DeepFloyd IF's safety checker lacks for transformers 5 to load it, and with it IF's repositories.

Diffusers takes seconds to import, so nothing is imported for this: each entry is made right after Diffusers has
loaded the module that it belongs to, at once where that has happened already. Retire it when Diffusers offers a
public registration.
"""

import importlib
import importlib.abc
import importlib.machinery
import sys
from collections.abc import Callable, Sequence
from types import ModuleType

PACKAGE = "diffusers_imagen"
REMOTE_CODE = "diffusers_imagen_remote"
_MODELS = {
    "DeepFloydUNet2DConditionModel": "diffusers_imagen.models.unet_deepfloyd",
    "ImagenPytorchUNet2DConditionModel": "diffusers_imagen.models.unet_imagen_pytorch",
    "ImagenUNet2DConditionModel": "diffusers_imagen.models.unet_imagen",
    "EfficientUNet2DConditionModel": "diffusers_imagen.models.unet_efficient",
}
# Diffusers exports it from its guiders only, and would save it under a name that it cannot load.
_GUIDERS = {"MagnitudeAwareGuidance": "diffusers.guiders.magnitude_aware_guidance"}
_PIPELINES = {"ImagenCascadePipeline": "diffusers_imagen.pipelines.pipeline_imagen_cascade"}


def register() -> None:
    """Register with Diffusers, now or as soon as it is imported; twice is once."""
    for name, action in _ACTIONS.items():
        if name in sys.modules and not getattr(sys.modules[name].__spec__, "_initializing", False):
            action(sys.modules[name])
    if not any(isinstance(finder, _AfterImport) for finder in sys.meta_path):
        sys.meta_path.insert(0, _AfterImport())


def _trust_package(loading: ModuleType) -> None:
    loading.LOADABLE_CLASSES.setdefault(PACKAGE, {})


def _prefer_package(_: ModuleType) -> None:
    # By its name: Diffusers replaces the module that was loaded by a lazy one.
    setattr(sys.modules["diffusers.pipelines"], REMOTE_CODE, sys.modules[PACKAGE])


def _expose_models(_: ModuleType) -> None:
    _expose(_MODELS)


def _expose_guiders(_: ModuleType) -> None:
    _expose(_GUIDERS)


def _expose_pipelines(_: ModuleType) -> None:
    _expose(_PIPELINES)


def _expose(classes: dict[str, str]) -> None:
    diffusers = sys.modules["diffusers"]
    for name, module in classes.items():
        # While our own module is what imports Diffusers, its class is not there yet; the action behind it follows.
        found = getattr(importlib.import_module(module), name, None)
        if found is not None and name not in vars(diffusers):
            setattr(diffusers, name, found)


def _offer_for_text_to_image(auto: ModuleType) -> None:
    pipeline = importlib.import_module(_PIPELINES["ImagenCascadePipeline"])
    auto.AUTO_TEXT2IMAGE_PIPELINES_MAPPING.setdefault("imagen", pipeline.ImagenCascadePipeline)


def _let_safety_checker_load(checking: ModuleType) -> None:
    # transformers reads this of every model that it loads; IF's checker leaves out the call that would set it.
    if not hasattr(checking.IFSafetyChecker, "all_tied_weights_keys"):
        checking.IFSafetyChecker.all_tied_weights_keys = {}


_ACTIONS: dict[str, Callable[[ModuleType], None]] = {
    "diffusers.pipelines": _prefer_package,
    "diffusers.pipelines.pipeline_loading_utils": _trust_package,
    "diffusers.models.auto_model": _expose_models,
    "diffusers.pipelines.pipeline_utils": _expose_pipelines,
    "diffusers.pipelines.auto_pipeline": _offer_for_text_to_image,
    "diffusers.pipelines.deepfloyd_if.safety_checker": _let_safety_checker_load,
    **dict.fromkeys(_MODELS.values(), _expose_models),
    **dict.fromkeys(_GUIDERS.values(), _expose_guiders),
    **dict.fromkeys(_PIPELINES.values(), _expose_pipelines),
}


class _AfterImport(importlib.abc.MetaPathFinder):
    """Runs an action after one of Diffusers' modules was imported."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """Find the module as Python does, with our action behind its loading."""
        if fullname not in _ACTIONS:
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path, target)
        if spec is None or spec.loader is None:
            return spec
        spec.loader = _ThenAct(spec.loader, _ACTIONS[fullname])
        return spec


class _ThenAct(importlib.abc.Loader):
    """A loader that loads as another does and then runs an action."""

    def __init__(self, loader: importlib.abc.Loader, action: Callable[[ModuleType], None]) -> None:
        self._loader = loader
        self._action = action

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        """Create the module as the other loader does."""
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        """Run the module, then the action."""
        self._loader.exec_module(module)
        self._action(module)
