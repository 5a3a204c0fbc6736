"""Commands that are killed at any moment leave nothing wrong, and go on; `killers.py` kills them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
if sys.platform != "linux":
    pytest.skip("forks", allow_module_level=True)
pytest.importorskip("av")
pytest.importorskip("pyvips")


@pytest.fixture(scope="module", params=["train", "learn", "convert", "pull"])
def outcome(request, tmp_path_factory) -> tuple[str, dict]:
    """A command, and what killers.py found of it."""
    folder = tmp_path_factory.mktemp("killed")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": f"{HERE.parent}{os.pathsep}{HERE}"}
    words = [sys.executable, HERE / "killers.py", folder, request.param]
    done = subprocess.run(words, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    return request.param, json.loads(done.stdout)


def test_a_kill_at_any_moment_leaves_whole_files_and_the_next_run_goes_on(outcome):
    command, found = outcome[0], outcome[1]["killed"]
    assert len(found["signals"]) == 20 and found["signals"].count(signal.SIGKILL) >= 15  # some moments come after the end
    assert found["damaged"] == []
    assert found["again"] == [0, ""] and found["names"] and found["left"] == []
    if command == "train":  # the losses of the killed runs, one after the other, are those of one that nothing disturbs
        assert found["plain"] == [0, ""] and found["equal"]


def test_two_processes_at_once_leave_a_whole_file(outcome):
    command, found = outcome[0], outcome[1]["two"]
    # a training refuses another's folder, unless that one has ended
    assert sorted(found["ended"]) in ([[0, 0], [0, 2]] if command == "train" else [[0, 0]])
    assert found["damaged"] == [] and found["left"] == []
