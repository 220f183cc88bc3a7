"""What killed demos leave is removed, and nothing else."""

import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from devtools.demo.folder import PREFIX, own_folder

DEMO = "from devtools.demo.folder import own_folder\nwith own_folder() as folder:\n    print(folder, flush=True)\n    input()"


def test_the_next_demo_removes_what_a_dead_one_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "lock").touch()
    (tmp_path / f"{PREFIX}link").symlink_to(elsewhere)
    (tmp_path / f"{PREFIX}begun").mkdir()
    demos = [
        subprocess.Popen([sys.executable, "-c", DEMO], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    dead, alive = (Path(demo.stdout.readline().strip()) for demo in demos if demo.stdout)
    (dead / "state").mkdir()
    (dead / "state" / "admin-token").write_text("secret")
    demos[0].kill()
    demos[0].communicate()

    with own_folder() as own:
        assert {path.name for path in tmp_path.iterdir()} == {
            own.name, alive.name, "elsewhere", f"{PREFIX}link", f"{PREFIX}begun",
        }  # fmt: skip
    assert (elsewhere / "lock").exists()
    demos[1].communicate("\n", timeout=20)
    assert not alive.exists()
