"""Folders and files that are written whole or not at all, and the places where they cannot be."""

import os
import signal

import pytest

from diffusers_imagen.conversion.new_folder import check_free, new_file, new_folder


@pytest.fixture
def default_signals():
    """Undo what the parent process may have said: under `nohup` SIGHUP is ignored, on purpose."""
    before = {number: signal.signal(number, signal.SIG_DFL) for number in (signal.SIGTERM, signal.SIGHUP)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("make", [new_folder, new_file])
@pytest.mark.parametrize("end", [KeyboardInterrupt, "SIGTERM", "SIGHUP", OSError("no space left on device")])
def test_whatever_ends_the_writing_nothing_is_left(tmp_path, make, end, default_signals):
    before = signal.getsignal(signal.SIGTERM)

    def write(place):
        (place / "half" if place.is_dir() else place).write_text("half")
        if isinstance(end, str):
            os.kill(os.getpid(), getattr(signal, end))
        raise end

    with pytest.raises((KeyboardInterrupt, SystemExit, OSError)), make(tmp_path / "new" / "out") as place:
        write(place)
    assert list(tmp_path.iterdir()) == []
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.parametrize("is_file", [False, True])
def test_places_where_nothing_can_be_written_are_refused_before_any_work(tmp_path, monkeypatch, is_file):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    places = {
        "file": "holds something already",
        "file/out": "is no folder that can be written to",
        "file/deep/out": "is no folder that can be written to",
        "loop": "cannot be looked at|holds something already",
    }
    for name, message in places.items():
        with pytest.raises(ValueError, match=message):
            check_free(tmp_path / name, is_file)
    for name in (".", "../here"):
        with pytest.raises(ValueError, match="holds something already" if is_file else "that this runs in"):
            check_free(tmp_path.__class__(name), is_file)
    # Where nobody may write, not even root.
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(ValueError, match="cannot be made, as"):
        check_free(tmp_path / "out", is_file)


def test_links_are_followed_to_the_place_that_they_name(tmp_path):
    (tmp_path / "dangling").symlink_to(tmp_path / "there")
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "empty")
    for name in ("dangling", "link"):
        with new_folder(tmp_path / name) as folder:
            (folder / "a").write_text(name)
        assert (tmp_path / name).is_symlink()
    assert (tmp_path / "there" / "a").read_text() == "dangling"
    assert (tmp_path / "empty" / "a").read_text() == "link"
