import struct

import numpy as np
import pytest
import rebuild_encoder as example
import torch

from diffusers_imagen.builtin.packing import unpack_tensors

WIDTH, INNER, PIECES = 32, 64, ["<s>", "▁cat", "猫", "▁dog"]


def quantize(values: np.ndarray) -> bytes:
    """Write a matrix as Q4_0 blocks of 32 values: a half-precision scale and 16 bytes of nibbles."""
    content = b""
    for block in values.reshape(-1, 32):
        scale = np.float16(np.abs(block).max() / 7)
        nibbles = (np.clip(np.round(block / np.float32(scale)), -8, 7) + 8).astype(np.uint8)
        content += scale.tobytes() + (nibbles[:16] | nibbles[16:] << 4).tobytes()
    return content


@pytest.fixture(scope="module")
def tensors() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    shapes = {"emb.word": (4, WIDTH), "emb.pos": (130, WIDTH), "emb.type": (2, WIDTH)}
    shapes |= {"emb.ln.w": (WIDTH,), "emb.ln.b": (WIDTH,)}
    for name in ("q", "k", "v", "ao"):
        shapes |= {f"l0.{name}.w": (WIDTH, WIDTH), f"l0.{name}.b": (WIDTH,)}
    shapes |= {"l0.fi.w": (INNER, WIDTH), "l0.fi.b": (INNER,), "l0.fo.w": (WIDTH, INNER), "l0.fo.b": (WIDTH,)}
    shapes |= {f"l0.{name}.{part}": (WIDTH,) for name in ("aln", "oln") for part in "wb"}
    return {name: rng.normal(size=shape).astype("<f4") for name, shape in shapes.items()}


@pytest.fixture(scope="module")
def source(tensors: dict[str, np.ndarray]) -> example.Source:
    head = b"E5S1" + struct.pack(
        "<i7ifi5i", 1, WIDTH, 1, 4, INNER, len(PIECES), 130, 2, 1e-12, 32, len(PIECES), 0, 2, 1, 3
    )
    encoded = [piece.encode() for piece in PIECES]
    ends = np.cumsum([0, *map(len, encoded)])
    head += struct.pack("<Q", ends[-1]) + ends.astype("<u4").tobytes() + bytes(4 * len(PIECES)) + b"".join(encoded)
    head += struct.pack("<iI", 1, 5) + bytes(5) + struct.pack("<i", len(tensors))
    written = {
        name: quantize(values)
        if name == "emb.word" or (name.endswith(".w") and values.ndim == 2)
        else values.tobytes()
        for name, values in tensors.items()
    }
    place = len(head) + sum(2 + len(name) + 21 for name in written)
    table = b""
    for name, content in written.items():
        table += (
            struct.pack("<H", len(name))
            + name.encode()
            + struct.pack("<BIQQ", 0, tensors[name].size, place, len(content))
        )
        place += len(content)
    return example.read_source(head + table + b"".join(written.values()))


def test_the_source_is_read(source: example.Source) -> None:
    assert source.pieces == PIECES
    assert (source.width, source.inner_width, source.num_layers) == (WIDTH, INNER, 1)


def test_kept_pieces_have_their_rows_and_matrices_their_values(
    source: example.Source, tensors: dict[str, np.ndarray]
) -> None:
    state = unpack_tensors(example.extract_encoder(source, ["猫", "<s>"]))
    words = state["embeddings.word_embeddings.weight"]
    torch.testing.assert_close(words, torch.from_numpy(tensors["emb.word"][[2, 0]]), atol=0.3, rtol=0)
    for short, name in (("fi", "intermediate.dense"), ("fo", "output.dense"), ("q", "attention.self.query")):
        weight = state[f"encoder.layer.0.{name}.weight"]
        torch.testing.assert_close(weight, torch.from_numpy(tensors[f"l0.{short}.w"]), atol=0.3, rtol=0)
    positions = state["embeddings.position_embeddings.weight"]
    torch.testing.assert_close(positions, torch.from_numpy(tensors["emb.pos"][:128]), atol=2e-3, rtol=1e-3)
    assert len(state) == 5 + 6 * 2 + 2 * 2


def test_a_piece_that_the_source_lacks_is_refused(source: example.Source) -> None:
    with pytest.raises(ValueError, match=r"1 pieces that the source lacks, such as \['dragon'\]"):
        example.extract_encoder(source, ["<s>", "dragon"])
    with pytest.raises(ValueError, match="does not begin with"):
        example.read_source(b"ZIP!")


def test_a_difference_of_one_bit_is_found(source: example.Source) -> None:
    state = example.extract_encoder(source, PIECES)
    assert example.differing(state, {**state, "pooler.dense.bias": torch.zeros(2)}) == []
    name = "encoder.layer.0.output.dense.weight.q4"
    changed = {**state, name: state[name] ^ torch.tensor(1, dtype=torch.uint8)}
    assert example.differing(state, changed) == [name]
    assert example.differing(state, {k: v for k, v in state.items() if k != name}) == [name]


def test_a_wheel_with_another_checksum_is_refused(tmp_path) -> None:
    (tmp_path / example.WHEEL).write_bytes(b"something else")
    with pytest.raises(ValueError, match="not the pinned"):
        example.fetch_wheel(tmp_path)
