"""Several processes share a folder of prompts' embeddings; one is killed while it writes."""

import multiprocessing
import os
import random
import resource
import signal
import time
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from diffusers_imagen.text.encoding import TextEmbeddings, TextSettings
from diffusers_imagen.text.prompt_cache import PromptCache

SETTINGS = TextSettings(max_length=24, layers=(1, -1))
SHARED = [f"the same {number}" for number in range(12)]
# Threads are one in the tests, so that a copy of the process has all that it needs.
FORK = multiprocessing.get_context("fork")


def embedding(prompt: str, length: int) -> torch.Tensor:
    """Give numbers (L, 8) that only this prompt has."""
    return torch.randn(length, 8, generator=torch.Generator().manual_seed(sum(map(ord, prompt)) * 31 + len(prompt)))


@pytest.fixture
def ask(text_models, tmp_path) -> Callable[..., list[str]]:
    """Give a function that asks for prompts, checks what it gets to the bit, and returns those that were encoded."""
    tokenizer, encoder = text_models("bert")

    def ask(prompts: list[str], length: int = 5, folder: Path = tmp_path) -> list[str]:
        asked: list[str] = []

        def encode(missing: Any) -> TextEmbeddings:
            asked.extend(missing)
            states = torch.stack([embedding(prompt, length) for prompt in missing])
            return TextEmbeddings(states, torch.ones(states.shape[:2], dtype=torch.bool))

        got = PromptCache(folder).embeddings(prompts, tokenizer, encoder, SETTINGS, encode)
        assert torch.equal(got.hidden_states, torch.stack([embedding(prompt, length) for prompt in prompts]))
        return asked

    return ask


def start(work: Callable[[int], None], count: int) -> list[Any]:
    processes = [FORK.Process(target=work, args=(number,)) for number in range(count)]
    for process in processes:
        process.start()
    return processes


def whole(folder: Path) -> int:
    return len(list(folder.glob("prompts-*/*.safetensors")))


def halves(folder: Path) -> set[Path]:
    return {path for path in folder.glob("prompts-*/*") if path.suffix != ".safetensors"}


def test_processes_that_write_and_read_at_once_get_what_is_right_and_lose_nothing(ask, tmp_path):
    own = {number: [f"only {number}'s {other}" for other in range(6)] for number in range(4)}

    def work(number: int) -> None:
        order = random.Random(number)
        for _ in range(25):
            ask(order.sample(SHARED, 4) + order.sample(own[number], 2))
        ask(SHARED + own[number])

    processes = start(work, 4)
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * 4
    every = SHARED + [prompt for prompts in own.values() for prompt in prompts]
    assert ask(every) == []
    assert whole(tmp_path) == len(every)
    assert not halves(tmp_path)


def test_processes_that_clear_the_folder_take_nothing_from_those_that_read(ask, tmp_path):
    def work(number: int) -> None:
        for turn in range(30):
            ask(SHARED[:4])
            if turn % 3 == number:
                PromptCache(tmp_path).clear()

    processes = start(work, 3)
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * 3


def test_a_process_killed_while_it_writes_leaves_nothing_that_is_read(ask, tmp_path):
    # Entries of 6 MB take long enough to be written for a kill in the middle.
    length, killed = 200_000, 0
    for attempt in range(20):
        prompts = [f"{attempt} {number}" for number in range(50)]
        [process] = start(lambda _, prompts=prompts: [ask([prompt], length) for prompt in prompts] and None, 1)
        before = halves(tmp_path)
        while process.is_alive() and not halves(tmp_path) - before:
            time.sleep(0.0005)
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        killed += bool(halves(tmp_path) - before)
        found = prompts[: prompts.index(ask(prompts[:3], length)[0]) + 1]
        assert ask(found, length) == []
        if killed == 3:
            break
    assert killed == 3
    # Whoever writes at the moment keeps its file; after an hour nobody does.
    PromptCache(tmp_path).clear()
    assert len(halves(tmp_path)) >= 3
    for path in halves(tmp_path):
        os.utime(path, (1e9, 1e9))
    PromptCache(tmp_path).clear()
    assert not list(tmp_path.glob("prompts-*/*"))


@contextmanager
def largest_file(size: int) -> Any:
    """Let no file grow beyond `size` bytes: what a full disk looks like to who writes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_costs_only_the_cache_and_leaves_no_half(ask, tmp_path, caplog):
    with largest_file(3000):
        assert ask(["a"], length=1000) == ["a"]
        assert ask(["a"], length=1000) == ["a"]
    assert caplog.text.count(f"The prompt cache {tmp_path} cannot be written") == 2
    assert not list(tmp_path.glob("prompts-*/*"))
    ask(["a"], length=1000)
    assert ask(["a"], length=1000) == []


def test_another_prompts_entry_is_not_taken(ask, tmp_path, caplog):
    ask(["a"])
    [first] = tmp_path.glob("prompts-*/*")
    ask(["b"])
    [second] = set(tmp_path.glob("prompts-*/*")) - {first}
    first.replace(second)
    assert ask(["b"]) == ["b"]
    assert f"{second} is another prompt's. Its prompt is encoded again." in caplog.text
    assert ask(["b"]) == []


@contextmanager
def as_nobody() -> Any:
    """Take a superuser's rights away for a while: it may write everywhere."""
    mine = os.geteuid()
    if mine == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(mine)


def test_a_folder_that_may_only_be_read_is_read(ask, tmp_path, monkeypatch, caplog):
    # Relative, as only this folder can be reached without a superuser's rights.
    monkeypatch.chdir(tmp_path)
    tmp_path.chmod(0o755)
    folder = Path("prompts")
    ask(["a"], folder=folder)
    [good] = folder.glob("*/*")
    ask(["b"], folder=folder)
    [damaged] = set(folder.glob("*/*")) - {good}
    damaged.write_bytes(good.read_bytes()[:-1])
    good.chmod(0o444)
    good.parent.chmod(0o555)
    folder.chmod(0o555)
    with as_nobody():
        assert ask(["a"], folder=folder) == []
        assert ask(["a", "b"], folder=folder) == ["b"]
    assert f"The text cache {damaged} cannot be read" in caplog.text
    assert "The prompt cache prompts cannot be written" in caplog.text
    folder.chmod(0o000)
    with as_nobody():
        assert ask(["a"], folder=folder) == ["a"]
    folder.chmod(0o755)
    good.parent.chmod(0o755)
    assert ask(["a"], folder=folder) == []
