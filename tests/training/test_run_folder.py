"""One process at a time writes into a run's folder."""

import os
from pathlib import Path

import pytest

from diffusers_imagen.training.run_folder import lock_run


def test_a_folder_is_one_processs_until_it_ends_however_it_ends(tmp_path: Path) -> None:
    ready, tell = os.pipe()
    wait, go = os.pipe()
    child = os.fork()
    if child == 0:
        lock = lock_run(tmp_path)
        os.write(tell, b"1")
        os.read(wait, 1)
        os._exit(0 if not lock.closed else 1)
    os.read(ready, 1)
    with pytest.raises(ValueError, match="where another run is at work"):
        lock_run(tmp_path)
    os.write(go, b"1")
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    lock_run(tmp_path).close()
