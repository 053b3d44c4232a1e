"""Files of strangers: data is read, everything else is refused before anything in it runs."""

import builtins
import collections
import io
import os
import pickle
import resource
import subprocess
import tarfile
import zipfile

import pytest
import torch

from diffusers_imagen.conversion.archive import read_archive, write_archive


class Calls:
    """Pickles as a call of anything."""

    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


class StatefulCalls:
    """Pickles as an object whose state is set by a call."""

    def __reduce__(self):
        return (collections.OrderedDict, (), None, None, iter([("model", Calls(os.system, "touch canary"))]))


class WithModule(torch.nn.Module):
    """A whole model instead of its weights."""


def good():
    return {"unets.0.weight": torch.arange(4.0)}


def touch():
    return Calls(os.system, "touch canary")


MALICE = {
    "a shell command": lambda: touch(),
    "a process": lambda: {"model": Calls(subprocess.Popen, ["touch", "canary"])},
    "eval": lambda: good() | {"version": Calls(builtins.eval, "open('canary', 'w')")},
    "exec": lambda: good() | {"version": Calls(builtins.exec, "open('canary', 'w')")},
    "open": lambda: {"steps": Calls(builtins.open, "canary", "w")},
    "an attribute of a module": lambda: {"ema": Calls(builtins.getattr, "os", "system")},
    "an import": lambda: {"ema": Calls(builtins.__import__, "os")},
    "within an optimizer": lambda: {"model": good(), "optim0": {"state": {0: [touch()]}}},
    "within a configuration": lambda: {"model": good(), "imagen_params": {"unets": [{"dim": touch()}]}},
    "as a key": lambda: {"model": good(), Calls(os.mkdir, "canary"): 1},
    "a nested pickle": lambda: {"model": Calls(pickle.loads, pickle.dumps(touch()))},
    "a file of torch": lambda: {"model": Calls(torch.load, "other.pt")},
    "in items that are set": lambda: StatefulCalls(),
    "a whole model": lambda: WithModule(),
    "removing files": lambda: {"version": Calls(os.remove, "keepsake")},
}


@pytest.mark.parametrize("is_zip", [True, False], ids=["zip", "before 1.6"])
@pytest.mark.parametrize("name", MALICE)
def test_what_is_more_than_data_is_refused_and_not_run(tmp_path, monkeypatch, name, is_zip):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "keepsake").touch()
    torch.save(MALICE[name](), tmp_path / "imagen.pt", _use_new_zipfile_serialization=is_zip)
    before = sorted(path.name for path in tmp_path.iterdir())
    with pytest.raises(ValueError, match=r"`path` is .*imagen\.pt"):
        read_archive(tmp_path / "imagen.pt")
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_the_corpus_does_run_where_nobody_refuses(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a shell command", "eval", "within an optimizer", "in items that are set"):
        torch.save(MALICE[name](), tmp_path / "imagen.pt")
        torch.load(tmp_path / "imagen.pt", weights_only=False)
        assert (tmp_path / "canary").exists(), name
        (tmp_path / "canary").unlink()


def test_a_refusal_names_what_was_found_and_gives_no_advice_to_run_it(tmp_path):
    torch.save({"model": Calls(os.system, "true")}, tmp_path / "imagen.pt")
    with pytest.raises(ValueError, match=r"posix\.system") as refusal:
        read_archive(tmp_path / "imagen.pt")
    assert "weights_only" not in str(refusal.value)


@pytest.mark.parametrize("is_zip", [True, False], ids=["zip", "before 1.6"])
def test_tensors_and_plain_data_are_read(tmp_path, is_zip):
    saved = {
        "model": collections.OrderedDict(good()),
        "version": "1.26.3",
        "steps": torch.tensor([3, 4]),
        "optim0": {"state": {0: {"step": torch.tensor(1.0)}}, "param_groups": [{"lr": 1e-4, "betas": (0.9, 0.99)}]},
        "scaler0": {"scale": 65536.0, "_growth_tracker": 0},
        "imagen_params": {"unets": [{"dim": 8, "cond_dim": None}], "image_sizes": [8]},
    }
    torch.save(saved, tmp_path / "imagen.pt", _use_new_zipfile_serialization=is_zip)
    found = read_archive(tmp_path / "imagen.pt")
    assert torch.equal(found["model"]["unets.0.weight"], torch.arange(4.0))
    assert found["optim0"]["param_groups"] == saved["optim0"]["param_groups"]
    assert found["imagen_params"] == saved["imagen_params"]


@pytest.mark.parametrize("share", [0.0, 0.3, 0.7, 0.99])
@pytest.mark.parametrize("is_zip", [True, False], ids=["zip", "before 1.6"])
def test_a_file_that_is_cut_off_is_refused(tmp_path, is_zip, share):
    torch.save(
        {"a": torch.ones(1000), "b": torch.ones(1000)}, tmp_path / "a.pt", _use_new_zipfile_serialization=is_zip
    )
    whole = (tmp_path / "a.pt").read_bytes()
    (tmp_path / "a.pt").write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(ValueError, match=r"a\.pt', which "):
        read_archive(tmp_path / "a.pt")


@pytest.mark.filterwarnings("ignore")
def test_files_of_other_kinds_are_refused(tmp_path):
    (tmp_path / "text.pt").write_text("weights")
    with zipfile.ZipFile(tmp_path / "zip.pt", "w") as archive:
        archive.writestr("weights.txt", "none")
    with tarfile.open(tmp_path / "tar.pt", "w") as archive:
        archive.addfile(tarfile.TarInfo("storages"), io.BytesIO())
    torch.jit.script(torch.nn.Linear(1, 1)).save(str(tmp_path / "script.pt"))
    for name in ("text.pt", "zip.pt", "tar.pt", "script.pt"):
        with pytest.raises(ValueError, match=name):
            read_archive(tmp_path / name)
    with pytest.raises(ValueError, match="no such file"):
        read_archive(tmp_path / "absent.pt")


def test_a_file_that_does_not_fit_its_check_sums_is_refused(tmp_path):
    torch.save({"a": torch.ones(1000)}, tmp_path / "a.pt")
    whole = bytearray((tmp_path / "a.pt").read_bytes())
    place = whole.find(torch.ones(100).numpy().tobytes())
    whole[place + 40] ^= 0x40
    (tmp_path / "a.pt").write_bytes(whole)
    with pytest.raises(ValueError, match=r"a\.pt', which is damaged: the check sum of .*data/0' differs"):
        read_archive(tmp_path / "a.pt")


def test_a_file_that_was_saved_without_check_sums_is_read(tmp_path):
    before = torch.serialization.get_crc32_options()
    torch.serialization.set_crc32_options(False)
    torch.save(good(), tmp_path / "a.pt")
    torch.serialization.set_crc32_options(before)
    assert torch.equal(read_archive(tmp_path / "a.pt")["unets.0.weight"], torch.arange(4.0))


def test_a_full_disk_leaves_no_half_file(tmp_path):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, before[1]))
    try:
        with pytest.raises(OSError, match=r"a\.pt"):
            write_archive({"a": torch.ones(100_000)}, tmp_path / "a.pt")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert list(tmp_path.iterdir()) == []
