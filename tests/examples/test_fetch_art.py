import base64
import io
import json
import os
import tarfile
from pathlib import Path

import pytest
from art_packages import Package, StyleSource
from fetch_art import build_rows, fetch_package, integrity_of, normalize_code_points, read_concepts, read_rasters
from PIL import Image


def write_tarball(path: Path, files: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w:gz") as tarball:
        for name, content in files.items():
            member = tarfile.TarInfo(f"package/{name}")
            member.size = len(content)
            tarball.addfile(member, io.BytesIO(content))
    return path


def webp(color: str, size: tuple[int, int] = (256, 256)) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGBA", size, color).save(buffer, "WEBP", lossless=True)
    return buffer.getvalue()


@pytest.fixture
def names_tarball(tmp_path: Path) -> Path:
    entries = [
        {"hexcode": "2764-FE0F", "emoji": "❤️", "label": "red heart", "group": 0, "subgroup": 0, "order": 7},
        {"hexcode": "1F431", "emoji": "🐱", "label": "cat face", "group": 0, "subgroup": 0, "order": 2},
        {"hexcode": "1F3F3-FE0F", "emoji": "🏳️", "label": "white flag", "group": 1, "subgroup": 1, "order": 1},
        {"hexcode": "1F1E6", "emoji": "🇦", "label": "regional indicator A"},
    ]
    groups = {"groups": {"0": "symbols", "1": "flags"}, "subgroups": {"0": "heart", "1": "flag"}}
    files = {"meta/groups.json": json.dumps(groups).encode()}
    for language in ("en", "zh", "zh-hant", "ja", "ko", "es", "fr", "de"):
        files[f"{language}/data.json"] = json.dumps(entries).encode()
    return write_tarball(tmp_path / "names.tgz", files)


def test_code_points_are_normalized() -> None:
    assert normalize_code_points("2764-FE0F") == "2764"
    assert normalize_code_points("1F43B_200D 2744") == "1f43b-200d-2744"


def test_integrity_is_written_as_npm_writes_it(tmp_path: Path) -> None:
    (tmp_path / "abc").write_bytes(b"abc")
    # SHA-512 of "abc" from FIPS 180-2.
    hexadecimal = (
        "ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a"
        "2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f"
    )
    assert integrity_of(tmp_path / "abc") == "sha512-" + base64.b64encode(bytes.fromhex(hexadecimal)).decode()


def test_concepts_are_ordered_and_have_no_flags(names_tarball: Path) -> None:
    concepts = read_concepts(names_tarball)
    assert list(concepts) == ["1f431", "2764"]
    assert concepts["2764"]["name_en"] == "red heart"


def test_rows_hold_square_pictures_with_licence_and_credit(names_tarball: Path, tmp_path: Path) -> None:
    pictures = {"assets/2764-fe0f.webp": webp("red", (256, 128)), "assets/1f431.webp": webp("#00000000")}
    tarball = write_tarball(tmp_path / "art.tgz", pictures)
    assert read_rasters(tarball)["2764"].size == (256, 256)
    source = StyleSource(Package("@somebody/art", "1.2.3", ""), "MIT", "Art (c) Somebody", is_vector=False)
    (row,) = build_rows("shapes", source, tarball, read_concepts(names_tarball))
    assert (row["package"], row["license"], row["credit"]) == ("@somebody/art@1.2.3", "MIT", "Art (c) Somebody")
    assert row["codepoints"] == "2764"


def test_a_checked_tarball_is_not_fetched_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    tarball = write_tarball(tmp_path / "somebody-art-1.2.3.tgz", {"a": b"1"})
    package = Package("@somebody/art", "1.2.3", integrity_of(tarball))
    assert fetch_package(package, tmp_path) == tarball
    tarball.write_bytes(b"damaged")
    with pytest.raises(ValueError, match="`npm` was not found"):
        fetch_package(package, tmp_path)


def test_a_tarball_with_another_checksum_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in = tmp_path / "npm"
    stand_in.write_text('#!/bin/sh\necho other > "$4/art-1.0.0.tgz"\n', encoding="utf-8")
    stand_in.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    with pytest.raises(ValueError, match="not the pinned sha512-pinned"):
        fetch_package(Package("art", "1.0.0", "sha512-pinned"), tmp_path / "packages")
    assert list((tmp_path / "packages").iterdir()) == []
