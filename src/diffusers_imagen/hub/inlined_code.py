# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""The modules of this package that one module needs, joined into one file that imports none of them.

Sources are taken over as they are, in the order in which they need each other; only their imports from this package
go, and a name that two modules use for different things gets the module's name behind it. Called by the export.
"""

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

PACKAGE = "diffusers_imagen"
_Place = tuple[int, int]
_Edit = tuple[_Place, _Place, str]


@dataclass(frozen=True)
class _Module:
    name: str
    source: str
    tree: ast.Module

    @property
    def label(self) -> str:
        """Return what tells it from others in a Python name."""
        return "_".join(self.name.split(".")[1:])


def inlined(root: str) -> str:
    """Return the source of a module together with everything of this package that it imports, wherever it does so.

    Args:
        root: the module's name, such as "diffusers_imagen.pipelines.pipeline_imagen_cascade".

    Raises:
        ValueError: code that cannot be joined, such as an import of a whole module of this package.
    """
    modules: dict[str, _Module] = {}
    _collect(root, modules, ())
    owners: dict[str, dict[str, str]] = {}
    for module in modules.values():
        for name, origin in _names_made(module.tree).items():
            owners.setdefault(name, {})[module.name] = origin.removeprefix(PACKAGE) or module.name
    clashes = {name for name, origins in owners.items() if len(set(origins.values())) > 1}
    parts = []
    for module in modules.values():
        renamed = {name: f"{name}_of_{module.label}" for name in clashes & _names_made(module.tree).keys()}
        taken = _names_taken(module, clashes)
        parts.append(f"# ---- {module.name}\n\n{_rewritten(module, renamed | taken)}")
    return "\n\n\n".join(parts) + "\n"


def _collect(name: str, modules: dict[str, _Module], above: tuple[str, ...]) -> None:
    """Add a module behind those that it needs."""
    if name in modules or name in above:
        return
    spec = find_spec(name)
    if spec is None or spec.origin is None:
        raise ValueError(f"`root` is or needs {name!r}, which is no module of this package.")
    source = Path(spec.origin).read_text(encoding="utf-8")
    module = _Module(name, source, ast.parse(source))
    for needed in _own_imports(module.tree):
        _collect(str(needed.module), modules, (*above, name))
    modules[name] = module


def _own_imports(tree: ast.Module) -> Iterator[ast.ImportFrom]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import) and any(alias.name.split(".")[0] == PACKAGE for alias in node.names):
            raise ValueError(
                f"`{ast.unparse(node)}` imports a module as a whole, which cannot be joined; import names."
            )
        if isinstance(node, ast.ImportFrom) and str(node.module).split(".")[0] == PACKAGE:
            yield node


def _names_made(tree: ast.Module) -> dict[str, str]:
    """Return the names that a module binds at its top level, and for those imported from elsewhere the origin."""
    made: dict[str, str] = {}
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            made[node.name] = PACKAGE
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names = [part.id for target in targets for part in ast.walk(target) if isinstance(part, ast.Name)]
            made |= dict.fromkeys(names, PACKAGE)
        elif isinstance(node, ast.Import):
            for alias in node.names:
                top = alias.name.split(".")[0]
                made[alias.asname or top] = alias.name if alias.asname else top
        elif isinstance(node, ast.ImportFrom) and str(node.module).split(".")[0] != PACKAGE:
            made |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
    return made


def _names_taken(module: _Module, clashes: set[str]) -> dict[str, str]:
    """Return what names that come from other modules of this package are called in the joined file."""
    taken: dict[str, str] = {}
    for node in _own_imports(module.tree):
        label = "_".join(str(node.module).split(".")[1:])
        for alias in node.names:
            target = f"{alias.name}_of_{label}" if alias.name in clashes else alias.name
            if target != (alias.asname or alias.name):
                taken[alias.asname or alias.name] = target
    return taken


def _rewritten(module: _Module, renamed: Mapping[str, str]) -> str:
    """Return a module's source without its imports from this package, its names changed as `renamed` says."""
    edits = list(_edits(module, renamed))
    lines = [line.encode() for line in module.source.splitlines(keepends=True)]
    for (row, start), (last, end), text in sorted(edits, reverse=True):
        head, tail = lines[row - 1][:start], lines[last - 1][end:]
        lines[row - 1 : last] = [head + text.encode() + tail]
    text = b"".join(lines).decode()
    return "\n".join(text.splitlines()[1:]).strip()


def _names_bound_otherwise(node: ast.AST) -> set[str]:
    """Return names that do not mean the module's own: of arguments, attributes and local imports."""
    if isinstance(node, ast.arg):
        return {node.arg}
    if isinstance(node, ast.ClassDef):
        return set(_names_made(ast.Module(node.body, [])))
    if isinstance(node, ast.FunctionDef):
        inner = [part for part in ast.walk(node) if isinstance(part, ast.Import | ast.ImportFrom)]
        return {name for part in inner for name in _names_made(ast.Module([part], []))}
    return set()


def _edits(module: _Module, renamed: Mapping[str, str]) -> Iterator[_Edit]:
    for statement in _own_imports(module.tree):
        yield *_span(statement), "" if statement in module.tree.body else "pass"
    for node in ast.walk(module.tree) if renamed else ():
        if twice := (_names_bound_otherwise(node) & renamed.keys()):
            raise ValueError(
                f"{module.name} binds {sorted(twice)} to more than one thing; call one of them otherwise."
            )
        if isinstance(node, ast.Name) and node.id in renamed:
            yield *_span(node), renamed[node.id]
        elif isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name in renamed and node in module.tree.body:
            column = len("class " if isinstance(node, ast.ClassDef) else "def ")
            yield (node.lineno, column), (node.lineno, column + len(node.name)), renamed[node.name]
        elif isinstance(node, ast.Import | ast.ImportFrom) and node in module.tree.body:
            is_own = str(getattr(node, "module", "")).split(".")[0] == PACKAGE
            for alias in [] if is_own else node.names:
                if (alias.asname or alias.name) in renamed:
                    yield *_span(alias), f"{alias.name} as {renamed[alias.asname or alias.name]}"


def _span(node: ast.stmt | ast.expr | ast.alias) -> tuple[_Place, _Place]:
    return (node.lineno, node.col_offset), (int(node.end_lineno or 0), int(node.end_col_offset or 0))
