# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""Rebuild the emoji art from public npm packages: `python examples/emoji/fetch_art.py --out DIR`.

Writes one `<style>.parquet` for each style: 256 px RGBA pictures with names in eight languages, licence and credit.
Needs npm; styles drawn as vectors need `pip install resvg-py` as well. What is done already is not done again.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import io
import json
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from art_packages import NAMES, SOURCES, Package, StyleSource
from PIL import Image

_PICTURE_SIZE = 256
_LANGUAGES = ("en", "zh", "zh-hant", "ja", "ko", "es", "fr", "de")
# Groups of emoji that are left out: parts such as skin tones, and flags, as the country flags' origin is not known.
_LEFT_OUT = ("component", "flags")
_VARIATION_SELECTOR = "fe0f"
_RECIPE_KEY = b"recipe"
# Part of what settles a file's content; a change here makes old files be built anew.
_RECIPE_VERSION = "1"

Row = dict[str, object]


def integrity_of(path: Path) -> str:
    """Compute a file's checksum as npm writes it."""
    return "sha512-" + base64.b64encode(hashlib.sha512(path.read_bytes()).digest()).decode("ascii")


def fetch_package(package: Package, folder: Path) -> Path:
    """Fetch a package's tarball with `npm pack`, unless the folder has it.

    Args:
        package: What to fetch.
        folder: Folder for tarballs.

    Returns:
        Path of the checked tarball.

    Raises:
        ValueError: If npm is missing or fails, or the checksum is not the pinned one.
    """
    folder.mkdir(parents=True, exist_ok=True)
    name = package.name.removeprefix("@").replace("/", "-") + f"-{package.version}.tgz"
    path = folder / name
    if path.is_file() and integrity_of(path) == package.integrity:
        return path
    npm = shutil.which("npm")
    if npm is None:
        raise ValueError(f"`npm` was not found, but fetches {package.name}: install Node.js.")
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        command = [npm, "pack", f"{package.name}@{package.version}", "--pack-destination", temporary, "--silent"]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        tarball = Path(temporary) / name
        if result.returncode != 0 or not tarball.is_file():
            raise ValueError(f"`npm pack {package.name}@{package.version}` failed: {result.stderr.strip()[-500:]}")
        found = integrity_of(tarball)
        if found != package.integrity:
            raise ValueError(f"{package.name}@{package.version} has {found}, not the pinned {package.integrity}.")
        tarball.replace(path)
    return path


def normalize_code_points(text: str) -> str:
    """Write code points in lower case, joined by "-", without variation selectors."""
    parts = text.lower().replace("_", "-").replace(" ", "-").split("-")
    return "-".join(part for part in parts if part and part != _VARIATION_SELECTOR)


def _read_json(tarball: tarfile.TarFile, name: str) -> object:
    member = tarball.extractfile(f"package/{name}")
    if member is None:
        raise ValueError(f"{tarball.name!r} has no {name}: it is not the package that was pinned.")
    return json.load(member)


def _as_dict(value: object) -> dict[str, object]:
    if not isinstance(value, dict):
        raise ValueError(f"the package holds a {type(value).__name__} where a JSON object was expected.")
    return value


def read_concepts(path: Path) -> dict[str, Row]:
    """Read all emoji but flags and parts, with their names, from the tarball of the names' package.

    Returns:
        Code points to columns, in the standard order of emoji.
    """
    with tarfile.open(path) as tarball:
        groups = _as_dict(_read_json(tarball, "meta/groups.json"))
        entries: dict[str, dict[str, Row]] = {}
        for language in _LANGUAGES:
            data = _read_json(tarball, f"{language}/data.json")
            if not isinstance(data, list):
                raise ValueError(f"{path} holds no list of emoji for {language!r}.")
            entries[language] = {normalize_code_points(entry["hexcode"]): entry for entry in data}
    group_names, subgroup_names = _as_dict(groups["groups"]), _as_dict(groups["subgroups"])
    concepts = {}
    for code_points, entry in entries["en"].items():
        # Single regional indicators belong to no group.
        if "group" not in entry or group_names[str(entry["group"])] in _LEFT_OUT:
            continue
        row: Row = {
            "codepoints": code_points,
            "emoji": entry["emoji"],
            "group": group_names[str(entry["group"])],
            "subgroup": subgroup_names[str(entry["subgroup"])],
            "order": entry.get("order", 0),
        }
        for language in _LANGUAGES:
            row[f"name_{language.replace('-', '_')}"] = entries[language].get(code_points, {}).get("label", "")
        for language in ("en", "zh"):
            row[f"keywords_{language}"] = entries[language].get(code_points, {}).get("tags", [])
        concepts[code_points] = row
    return dict(sorted(concepts.items(), key=lambda item: int(str(item[1]["order"]))))


def _fit_square(image: Image.Image) -> Image.Image:
    """Center a picture on a transparent square of the picture size."""
    size = (_PICTURE_SIZE, _PICTURE_SIZE)
    if image.size == size:
        return image
    image.thumbnail(size)
    square = Image.new("RGBA", size)
    square.paste(image, ((size[0] - image.width) // 2, (size[1] - image.height) // 2))
    return square


def read_rasters(path: Path) -> dict[str, Image.Image]:
    """Read the WebP files `<code points>.webp` of a tarball as RGBA squares by code points."""
    pictures = {}
    with tarfile.open(path) as tarball:
        for member in tarball:
            file = tarball.extractfile(member) if member.name.endswith(".webp") else None
            if file is not None:
                image = Image.open(io.BytesIO(file.read())).convert("RGBA")
                pictures[normalize_code_points(Path(member.name).stem)] = _fit_square(image)
    return pictures


def _svg_renderer() -> Callable[[str], Image.Image]:
    try:
        import resvg_py
    except ImportError:
        raise ValueError("vector styles are drawn with resvg: run `pip install resvg-py`.") from None

    def render(svg: str) -> Image.Image:
        encoded = resvg_py.svg_to_bytes(svg_string=svg, width=_PICTURE_SIZE, height=_PICTURE_SIZE)
        return _fit_square(Image.open(io.BytesIO(bytes(encoded))).convert("RGBA"))

    return render


def _plain_alias(name: str, icons: dict[str, object], aliases: dict[str, object]) -> object:
    """Return the icon that a name stands for unchanged; None for no alias, or one that turns or flips the icon."""
    alias = _as_dict(aliases.get(name, {}))
    return icons.get(str(alias["parent"])) if set(alias) == {"parent"} else None


def read_vectors(path: Path, wanted: set[str]) -> dict[str, Image.Image]:
    """Draw the wanted pictures of an Iconify tarball as RGBA squares by code points."""
    render = _svg_renderer()
    with tarfile.open(path) as tarball:
        icon_set = _as_dict(_read_json(tarball, "icons.json"))
        names = _as_dict(_read_json(tarball, "chars.json"))
    icons, aliases = _as_dict(icon_set["icons"]), _as_dict(icon_set.get("aliases", {}))
    pictures = {}
    for characters, name in names.items():
        code_points = normalize_code_points(characters)
        if code_points not in wanted:
            continue
        icon = icons.get(str(name)) or _plain_alias(str(name), icons, aliases)
        if icon is None:
            continue
        fields = _as_dict(icon)
        width, height = (fields.get(side, icon_set.get(side, 16)) for side in ("width", "height"))
        left, top = fields.get("left", 0), fields.get("top", 0)
        pictures[code_points] = render(
            '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
            f'width="{width}" height="{height}" viewBox="{left} {top} {width} {height}">{fields["body"]}</svg>'
        )
    return pictures


def _encode(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", quality=92, alpha_quality=100, method=4)
    return buffer.getvalue()


def build_rows(style: str, source: StyleSource, tarball: Path, concepts: dict[str, Row]) -> list[Row]:
    """Join a style's pictures with the names; emoji without a visible picture are left out."""
    pictures = read_vectors(tarball, set(concepts)) if source.is_vector else read_rasters(tarball)
    rows = []
    for code_points, concept in concepts.items():
        picture = pictures.get(code_points)
        if picture is None or picture.getchannel("A").getextrema()[1] == 0:
            continue
        row: Row = {
            "image": {"bytes": _encode(picture), "path": f"{style}/{code_points}.webp"},
            "style": style,
            "package": f"{source.package.name}@{source.package.version}",
            "license": source.license,
            "credit": source.credit,
        }
        rows.append(row | concept)
    return rows


def _recipe(source: StyleSource) -> bytes:
    return f"{_RECIPE_VERSION} {source.package.integrity} {NAMES.integrity}".encode()


def build_style(style: str, folder: Path) -> Path:
    """Write `<style>.parquet`, unless the folder has it made from the same packages.

    Returns:
        The file's path.
    """
    source, path = SOURCES[style], folder / f"{style}.parquet"
    if path.is_file() and (pq.read_schema(path).metadata or {}).get(_RECIPE_KEY) == _recipe(source):
        print(f"{path}: is there")
        return path
    tarballs = folder / "packages"
    concepts = read_concepts(fetch_package(NAMES, tarballs))
    rows = build_rows(style, source, fetch_package(source.package, tarballs), concepts)
    table = pa.Table.from_pylist(rows)
    table = table.replace_schema_metadata({_RECIPE_KEY: _recipe(source)})
    temporary = path.with_name(path.name + ".tmp")
    pq.write_table(table, temporary, compression="zstd")
    temporary.replace(path)
    print(f"{path}: {len(rows)} pictures, {path.stat().st_size / 1e6:.1f} MB. {source.credit}")
    return path


def main() -> None:
    """Read the command line and build the styles."""
    parser = argparse.ArgumentParser(description="Rebuild the emoji art from public npm packages.")
    parser.add_argument("--out", type=Path, required=True, help="folder for <style>.parquet and the tarballs")
    parser.add_argument("--styles", nargs="+", choices=sorted(SOURCES), default=["fluent-3d"])
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    try:
        for style in arguments.styles:
            build_style(style, arguments.out)
    except ValueError as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
