"""The scripts by which a Unix guest's files are renamed, checked and listed, run here: with this machine's tools, and with none but the BSDs'.

No BSD can run here: its tools are stand-ins, which know no option that those don't.
"""

import hashlib
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from guestwire.client.systems import UNIX, WINDOWS, Command, digest_in, system_of

POSIX = ("sh", "cat", "mv", "chmod", "chown", "rm", "find", "wc", "dd", "mkdir")

STAT = """\
#!/bin/sh
PATH=ALL
[ "$1" = -f ] || { echo "stat: illegal option -- ${1#-}" >&2; exit 1; }
format=$(printf %s "$2" | sed 's/%z/%s/; s/%Mp%Lp/0%a/; s/%m$/%Y/')
shift 2
exec REAL -c "$format" "$@"
"""
TOUCH = """\
#!/bin/sh
PATH=ALL
[ "$1" = -t ] || { echo "touch: illegal option" >&2; exit 1; }
exec REAL "$@"
"""
SHA256 = """\
#!/bin/sh
PATH=ALL
[ "$1" = -q ] || { echo "sha256: illegal option" >&2; exit 1; }
REAL | cut -d' ' -f1
"""

Run = Callable[[Command, bytes], "subprocess.CompletedProcess[bytes]"]


@pytest.fixture(params=["this machine's", "the BSDs'"])
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Runs a command with tools of one kind."""
    tools = tmp_path_factory.mktemp("tools")
    path = os.environ["PATH"] if request.param == "this machine's" else str(tools)
    if path == str(tools):
        furnish(tools)

    def run(command: Command, given: bytes = b"") -> "subprocess.CompletedProcess[bytes]":
        program = shutil.which(command[0], path=path)
        assert program, command
        return subprocess.run(
            [program, *command[1:]], input=given, capture_output=True, check=False, timeout=30, env={"PATH": path}
        )

    return run


def furnish(tools: Path) -> None:
    for name in POSIX:
        (tools / name).symlink_to(str(shutil.which(name)))
    stand_ins = (("stat", "stat", STAT), ("touch", "touch", TOUCH), ("sha256", "sha256sum", SHA256))
    for name, real, script in stand_ins:
        (tools / name).write_text(script.replace("REAL", str(shutil.which(real))).replace("ALL", os.environ["PATH"]))
        (tools / name).chmod(0o755)


def test_a_file_takes_anothers_place_and_its_permissions(run: Run, tmp_path: Path) -> None:
    old, new = tmp_path / "-old 'file", tmp_path / "new\nfile"
    old.write_text("old")
    old.chmod(0o4751)
    new.write_text("new")

    done = run(UNIX.rename(str(new), str(old), None, None), b"")

    assert (done.returncode, done.stderr, done.stdout) == (0, b"", b"")
    assert (old.read_text(), old.stat().st_mode & 0o7777, new.exists()) == ("new", 0o4751, False)


def test_permissions_and_time_are_set(run: Run, tmp_path: Path) -> None:
    (tmp_path / "a").write_text("new")

    done = run(UNIX.rename(str(tmp_path / "a"), str(tmp_path / "b"), 0o2640, 1_234_567_890), b"")

    facts = (tmp_path / "b").stat()
    assert (done.returncode, facts.st_mode & 0o7777, facts.st_mtime) == (0, 0o2640, 1_234_567_890)


def test_a_folders_place_is_not_taken(run: Run, tmp_path: Path) -> None:
    (tmp_path / "a").write_text("new")
    (tmp_path / "folder").mkdir()

    done = run(UNIX.rename(str(tmp_path / "a"), str(tmp_path / "folder"), None, None), b"")

    assert (done.returncode, b"is a directory" in done.stderr) == (1, True)
    assert (tmp_path / "a").exists()


def test_the_digest_is_found_whatever_the_file_is_called(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "-back\\slash\nnew line"
    path.write_bytes(b"\x00\xff")

    done = run(UNIX.digest(str(path)), b"")

    assert digest_in(done.stdout.decode()) == hashlib.sha256(b"\x00\xff").hexdigest()


def test_a_guest_without_a_tool_for_it_says_so(tmp_path: Path) -> None:
    done = subprocess.run(
        ["/bin/sh", *UNIX.digest("/etc/passwd")[1:]],
        capture_output=True,
        check=False,
        env={"PATH": str(tmp_path)},
        timeout=30,
    )

    assert (done.returncode, digest_in(done.stdout.decode())) == (127, None)


def test_what_is_appended_can_be_counted_and_cut_again(run: Run, tmp_path: Path) -> None:
    path = str(tmp_path / "-f")
    for piece in (b"\x00\xffab", b"cde"):
        assert run(UNIX.append(path), piece).returncode == 0
    assert int(run(UNIX.size(path), b"").stdout) == 7

    for size in (5, 5, 0):
        assert run(UNIX.cut(path, size), b"").returncode == 0
        assert Path(path).read_bytes() == b"\x00\xffabcde"[:size]


def test_a_file_is_added_to_another_and_gone(run: Run, tmp_path: Path) -> None:
    part, whole = tmp_path / "part", tmp_path / "whole"
    for expected in (b"x", b"xx"):
        part.write_bytes(b"x")
        assert run(UNIX.add(str(part), str(whole)), b"").returncode == 0
        assert (whole.read_bytes(), part.exists()) == (expected, False)


def test_what_can_not_be_added_leaves_the_file_as_it_was(run: Run, tmp_path: Path) -> None:
    (tmp_path / "whole").write_bytes(b"old")

    for whole in ("whole", "none"):
        assert run(UNIX.add(str(tmp_path / "no part"), str(tmp_path / whole)), b"").returncode

    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"whole": b"old"}


def test_a_folder_and_a_tree_are_listed(run: Run, tmp_path: Path) -> None:
    assert run(UNIX.make_folder(str(tmp_path / "a" / "b c")), b"").returncode == 0
    for name in (".hidden", "a/b c/new\nline", "a/quote'\""):
        (tmp_path / name).write_text(name)
        (tmp_path / name).chmod(0o1640)
        os.utime(tmp_path / name, (1_500_000_000, 1_500_000_000))
    (tmp_path / "link").symlink_to("none")

    def told(command: Command) -> dict[str, tuple[str, str, int, str]]:
        entries = (entry.split(" ", 4) for entry in run(command, b"").stdout.decode().split("\0")[:-1])
        return {path: (kind, size, int(mode, 8), time) for kind, size, mode, time, path in entries}

    assert told(UNIX.entries(str(tmp_path)))[".hidden"] == ("f", "7", 0o1640, "1500000000")
    assert {path: kind for path, (kind, *_) in told(UNIX.entries(str(tmp_path))).items()} == {
        ".hidden": "f",
        "a": "d",
        "link": "l",
    }
    found = told(UNIX.tree(str(tmp_path)))
    assert found["./a/b c/new\nline"] == ("f", "14", 0o1640, "1500000000")
    assert set(found) == {".", "./.hidden", "./a", "./a/b c", "./a/b c/new\nline", "./a/quote'\"", "./link"}


def test_removing_what_is_not_there_is_no_error(run: Run, tmp_path: Path) -> None:
    (tmp_path / "-x").write_text("x")

    for _ in range(2):
        assert run(UNIX.remove(str(tmp_path / "-x")), b"").returncode == 0
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("path", ["C:\\x\\y", "c:/x", "D:", "\\\\server\\share\\x"])
def test_windows_paths_are_known_by_their_beginning(path: str) -> None:
    assert system_of(path) is WINDOWS


@pytest.mark.parametrize("path", ["/x", "x", "./C:", "\\x", "/C:/x", ""])
def test_all_others_are_a_unixs(path: str) -> None:
    assert system_of(path) is UNIX


def test_beside_a_file_is_in_the_same_folder() -> None:
    assert UNIX.beside("/a/b", "n") == "/a/n"
    assert UNIX.beside("b", "n") == "n"
    assert WINDOWS.beside("C:\\a\\b", "n") == "C:\\a\\n"
    assert WINDOWS.beside("C:\\b", "n") == "C:\\n"
    assert WINDOWS.split("C:\\a/b.txt")[1] == "b.txt"
