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

from guestwire.client.scripts import NO_TOOL, OTHER_BYTES, Command, digest_in
from guestwire.client.systems import UNIX, WINDOWS, system_of

POSIX = ("sh", "cat", "mv", "chmod", "chown", "rm", "wc", "dd", "mkdir", "head", "readlink")

STAT = """\
#!/bin/sh
PATH=ALL
[ "$1" = -L ] && { follow=-L; shift; }
[ "$1" = -f ] || { echo "stat: illegal option -- ${1#-}" >&2; exit 1; }
format=$(printf %s "$2" | sed 's/%z/%s/; s/%Mp%Lp/0%a/; s/%Lp/%a/; s/%m$/%Y/')
shift 2
exec REAL $follow -c "$format" "$@"
"""
TOUCH = """\
#!/bin/sh
PATH=ALL
[ "$1" = -t ] || { echo "touch: illegal option" >&2; exit 1; }
exec REAL "$@"
"""
FIND = """\
#!/bin/sh
PATH=ALL
for word; do [ "$word" = -printf ] && { echo "find: -printf: unknown primary" >&2; exit 1; }; done
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
    stand_ins = (
        ("stat", "stat", STAT),
        ("touch", "touch", TOUCH),
        ("sha256", "sha256sum", SHA256),
        ("find", "find", FIND),
    )
    for name, real, script in stand_ins:
        (tools / name).write_text(script.replace("REAL", str(shutil.which(real))).replace("ALL", os.environ["PATH"]))
        (tools / name).chmod(0o755)


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def test_a_file_takes_anothers_place_and_its_permissions(run: Run, tmp_path: Path) -> None:
    old, new = tmp_path / "-old 'file", tmp_path / "new\nfile-1"
    old.write_text("old")
    old.chmod(0o4751)
    new.write_text("new")
    (tmp_path / "new\nfile-0").write_text("left by an older copy")

    done = run(UNIX.finish(str(new), str(old), digest(b"new"), None, None), b"")

    assert (done.returncode, done.stderr, done.stdout) == (0, b"", b"")
    assert (old.read_text(), old.stat().st_mode & 0o7777) == ("new", 0o4751)
    assert list(tmp_path.iterdir()) == [old]
    assert run(UNIX.finish(str(new), str(old), digest(b"new"), None, None), b"").returncode == 0, "it may run twice"


def test_permissions_and_time_are_set(run: Run, tmp_path: Path) -> None:
    done = run(UNIX.put(str(tmp_path / "a-1"), str(tmp_path / "b"), digest(b"new"), 0o2640, 1_234_567_890), b"new")

    facts = (tmp_path / "b").stat()
    assert (done.returncode, facts.st_mode & 0o7777, facts.st_mtime) == (0, 0o2640, 1_234_567_890)


def test_other_bytes_take_no_place(run: Run, tmp_path: Path) -> None:
    (tmp_path / "b").write_text("old")

    done = run(UNIX.put(str(tmp_path / "a-1"), str(tmp_path / "b"), digest(b"other"), None, None), b"new")

    assert done.returncode == OTHER_BYTES
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"b": "old"}


def test_a_folders_place_is_not_taken(run: Run, tmp_path: Path) -> None:
    (tmp_path / "a-1").write_text("new")
    (tmp_path / "folder").mkdir()

    done = run(UNIX.finish(str(tmp_path / "a-1"), str(tmp_path / "folder"), "", None, None), b"")

    assert (done.returncode, b"is a directory" in done.stderr) == (1, True)
    assert (tmp_path / "a-1").exists()


def test_the_digest_is_found_whatever_the_file_is_called(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "-back\\slash\nnew line"
    path.write_bytes(b"\x00\xff\xff")

    for size, data in ((2, b"\x00\xff"), (3, b"\x00\xff\xff"), (1 << 62, b"\x00\xff\xff")):
        assert digest_in(run(UNIX.prefix(str(path), size), b"").stdout.decode()) == digest(data)


def test_a_guest_without_a_tool_for_it_says_so(tmp_path: Path) -> None:
    command = UNIX.finish(str(tmp_path / "a-1"), str(tmp_path / "b"), digest(b""), None, None)
    (tmp_path / "a-1").touch()
    done = subprocess.run(command, capture_output=True, check=False, env={"PATH": str(tmp_path)}, timeout=30)

    assert done.returncode == NO_TOOL


def test_pieces_come_in_any_order_and_twice(run: Run, tmp_path: Path) -> None:
    path, data = str(tmp_path / "-f"), os.urandom(3 * 65536 + 5)
    assert run(UNIX.begin(path, str(tmp_path / "whole"), keep=False), b"").stdout.split() == [b"0"]

    for number in (2, 0, 0, 3, 1):
        assert run(UNIX.piece(path, number * 65536), data[number * 65536 :][:65536]).returncode == 0

    assert Path(path).read_bytes() == data
    assert run(UNIX.begin(path, str(tmp_path / "whole"), keep=True), b"").stdout.split() == [b"196613"]
    assert int(run(UNIX.size(path), b"").stdout) == len(data)


def test_facts_follow_links(run: Run, tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"abc")
    (tmp_path / "f").chmod(0o640)
    os.utime(tmp_path / "f", (1_500_000_000, 1_500_000_000))
    (tmp_path / "link").symlink_to("f")

    kind, size, mode, time = run(UNIX.stat(str(tmp_path / "link")), b"").stdout.decode().split()

    assert (kind, size, int(mode, 8), time) == ("f", "3", 0o640, "1500000000")
    assert b"No such file" in run(UNIX.stat(str(tmp_path / "none")), b"").stderr


def test_what_is_appended_is_for_its_owner_alone(run: Run, tmp_path: Path) -> None:
    for piece in (b"\x00\xffab", b"cde"):
        assert run(UNIX.append(str(tmp_path / "f")), piece).returncode == 0

    assert (tmp_path / "f").read_bytes() == b"\x00\xffabcde"
    assert (tmp_path / "f").stat().st_mode & 0o777 == 0o600


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
    assert run(UNIX.make_folders([str(tmp_path / "a" / "b c"), str(tmp_path / "-d")]), b"").returncode == 0
    for name in (".hidden", "a/b c/new\nline", "a/quote'\""):
        (tmp_path / name).write_text(name)
        (tmp_path / name).chmod(0o1640)
        os.utime(tmp_path / name, (1_500_000_000, 1_500_000_000))
    (tmp_path / "link").symlink_to("none")

    def told(command: Command) -> dict[str, tuple[str, str, int, str]]:
        texts = iter(run(command, b"").stdout.decode().split("\0")[:-1])
        entries = (entry.split(" ", 4) for entry in texts if entry and " " in entry)
        return {path: (kind, size, int(mode, 8), time) for kind, size, mode, time, path in entries}

    assert told(UNIX.entries(str(tmp_path)))[".hidden"] == ("f", "7", 0o1640, "1500000000")
    assert {path: kind for path, (kind, *_) in told(UNIX.entries(str(tmp_path))).items()} == {
        ".hidden": "f",
        "-d": "d",
        "a": "d",
        "link": "l",
    }
    found = told(UNIX.tree(str(tmp_path)))
    assert found["./a/b c/new\nline"] == ("f", "14", 0o1640, "1500000000")
    assert set(found) == {".", "./-d", "./.hidden", "./a", "./a/b c", "./a/b c/new\nline", "./a/quote'\"", "./link"}


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
