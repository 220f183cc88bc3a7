"""The guest scripts, without a guest: shellcheck and a PowerShell grammar read all of them, and those of a Unix are run here.

They are run by dash and bash with this machine's tools, by dash with none but the BSDs', and by busybox with its own. No BSD can run here: its tools
are stand-ins, which know no option that those don't.
"""

import base64
import contextlib
import grp
import hashlib
import os
import pwd
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import tree_sitter_powershell
from tree_sitter import Language, Parser

from guestwire.agent import systems
from guestwire.agent.systems import (
    CAN_NOT_START,
    NO_TOOL,
    OTHER_BYTES,
    UNIX,
    WINDOWS,
    Attributes,
    Command,
    CommandSpec,
    assemble,
    digest_in,
    script_text,
)
from guestwire.streams.port_process import NO_PORT

POSIX = ("sh", "cat", "mv", "chmod", "chown", "rm", "wc", "dd", "mkdir", "head", "readlink", "ln", "printf")

STAT = """\
#!/bin/sh
PATH=ALL
[ "$1" = -L ] && { follow=-L; shift; }
[ "$1" = -f ] || { echo "stat: illegal option -- ${1#-}" >&2; exit 1; }
format=$(printf %s "$2" | sed 's/%z/%s/; s/%Mp%Lp/0%a/; s/%Lp/%a/; s/%m/%Y/; s/%Su/%U/; s/%Sg/%G/')
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

Run = Callable[..., "subprocess.CompletedProcess[bytes]"]

NAMES = ["plain", "with space", "new\nline", "-dash", "quote'\"", "*", "back\\slash", "$(id)", "-n", "é世"]

any_name = pytest.mark.parametrize("name", NAMES)


@pytest.fixture(params=["dash", "bash", "busybox", "dash with the BSDs' tools"])
def system(request: pytest.FixtureRequest) -> str:
    """A shell, and whose tools it has."""
    return str(request.param)


@pytest.fixture
def run(system: str, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Runs a command of a Unix guest, in the folder of its last argument `folder`."""
    shell, _, bsd = system.partition(" ")
    interpreter = shutil.which(shell)
    assert interpreter, f"{shell} is not there: ./dev setup installs it"
    path = os.environ["PATH"]
    if bsd:
        path = str(furnish(tmp_path_factory.mktemp("tools")))
    elif shell == "busybox":
        path = str(tmp_path_factory.mktemp("tools"))
        subprocess.run([interpreter, "--install", "-s", path], check=True, timeout=30)

    def run(
        command: Command, given: bytes = b"", *, folder: Path | None = None
    ) -> "subprocess.CompletedProcess[bytes]":
        assert command[0] == "/bin/sh", command
        own = [interpreter, "sh"] if shell == "busybox" else [interpreter]
        return subprocess.run(
            [*own, *command[1:]], input=given, capture_output=True, check=False, timeout=30, env={"PATH": path}, cwd=folder,
        )  # fmt: skip

    return run


def furnish(tools: Path) -> Path:
    """The tools of a BSD."""
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
    return tools


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def test_a_file_takes_anothers_place_and_its_permissions(run: Run, tmp_path: Path) -> None:
    old, new = tmp_path / "-old 'file", tmp_path / "new\nfile-1"
    old.write_text("old")
    old.chmod(0o4751)
    new.write_text("new")
    (tmp_path / "new\nfile-0").write_text("left by an older copy")

    done = run(UNIX.finish(str(new), str(old), digest(b"new"), Attributes()))

    assert (done.returncode, done.stderr, done.stdout) == (0, b"", b"")
    assert (old.read_text(), old.stat().st_mode & 0o7777) == ("new", 0o4751)
    assert list(tmp_path.iterdir()) == [old]
    assert run(UNIX.finish(str(new), str(old), digest(b"new"), Attributes())).returncode == 0, "it may run twice"


POSIX_ACL = "system.posix_acl_access"
LABUSER_READS = bytes.fromhex(
    "0200000001000600ffffffff02000400e803000004000400ffffffff10000400ffffffff20000000ffffffff"
)
"""user::rw-, user:1000:r--, group::r--, mask::r--, other::---"""


def test_a_file_that_replaces_another_keeps_all_of_it_but_its_content(run: Run, tmp_path: Path, system: str) -> None:
    old = tmp_path / "old"
    old.write_text("old")
    owner = (33, 34) if os.getuid() == 0 else (os.getuid(), os.getgid())
    os.chown(old, *owner)
    os.setxattr(old, "user.kept", b"yes")
    os.setxattr(old, POSIX_ACL, LABUSER_READS)
    os.utime(old, (1, 1))

    for attributes, data in ((Attributes(), b"new"), (Attributes(0o755, for_new=True), b"newer")):
        assert run(UNIX.put(str(tmp_path / "a-1"), str(old), digest(data), attributes), data).returncode == 0
        facts = old.stat()
        assert (old.read_bytes(), facts.st_uid, facts.st_gid, facts.st_mode & 0o777) == (data, *owner, 0o640)
        assert facts.st_mtime > 1
        if system in ("dash", "bash"):  # the others stand for systems without GNU's tools
            assert os.getxattr(old, "user.kept") == b"yes"
            assert os.getxattr(old, POSIX_ACL) == LABUSER_READS


def test_where_the_owner_can_not_be_kept_the_rest_is(tmp_path: Path) -> None:
    """As where an agent is root of its user namespace alone."""
    old = tmp_path / "old"
    old.write_text("old")
    os.setxattr(old, "user.kept", b"yes")
    if os.getuid() == 0:
        os.chown(old, 33, 34)
    old.chmod(0o4755)
    put = UNIX.put(str(tmp_path / "a-1"), str(old), digest(b"new"), Attributes())
    alone = ["bwrap", "--bind", "/", "/", "--dev", "/dev", "--unshare-user", "--uid", "0", "--gid", "0"]

    done = subprocess.run([*alone, "dash", *put[1:]], input=b"new", capture_output=True, check=False, timeout=30)

    assert (done.returncode, done.stderr) == (0, b"")
    assert (old.read_bytes(), old.stat().st_uid, old.stat().st_mode & 0o7777) == (b"new", os.getuid(), 0o4755)
    assert os.getxattr(old, "user.kept") == b"yes"


def test_permissions_that_are_for_a_new_file_are_given_to_one(run: Run, tmp_path: Path) -> None:
    attributes = Attributes(0o750, for_new=True)
    assert run(UNIX.put(str(tmp_path / "a-1"), str(tmp_path / "b"), digest(b"x"), attributes), b"x").returncode == 0

    assert (tmp_path / "b").stat().st_mode & 0o777 == 0o750


@pytest.mark.parametrize("shell", ["dash", "busybox"])
def test_a_file_that_is_mounted_is_written_in_its_place(tmp_path: Path, shell: str) -> None:
    for name in ("mounted", "below"):
        (tmp_path / name).write_text("old")
    put = UNIX.put(str(tmp_path / "a-1"), str(tmp_path / "mounted"), digest(b"new"), Attributes())
    own = ["busybox", "sh"] if shell == "busybox" else ["dash"]
    mount = ["bwrap", "--bind", "/", "/", "--dev", "/dev", "--bind", f"{tmp_path}/below", f"{tmp_path}/mounted"]

    done = subprocess.run([*mount, *own, *put[1:]], input=b"new", capture_output=True, check=False, timeout=30)

    assert (done.returncode, done.stderr) == (0, b"")
    assert ((tmp_path / "below").read_text(), (tmp_path / "mounted").read_text()) == ("new", "old")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["below", "mounted"]


def test_permissions_and_time_are_set(run: Run, tmp_path: Path) -> None:
    done = run(
        UNIX.put(str(tmp_path / "a-1"), str(tmp_path / "b"), digest(b"new"), Attributes(0o2640, 1_234_567_890)), b"new"
    )

    facts = (tmp_path / "b").stat()
    assert (done.returncode, facts.st_mode & 0o7777, facts.st_mtime) == (0, 0o2640, 1_234_567_890)


def test_other_bytes_take_no_place(run: Run, tmp_path: Path) -> None:
    (tmp_path / "b").write_text("old")

    done = run(UNIX.put(str(tmp_path / "a-1"), str(tmp_path / "b"), digest(b"other"), Attributes()), b"new")

    assert done.returncode == OTHER_BYTES
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"b": "old"}


def test_a_folders_place_is_not_taken(run: Run, tmp_path: Path) -> None:
    (tmp_path / "a-1").write_text("new")
    (tmp_path / "folder").mkdir()

    done = run(UNIX.finish(str(tmp_path / "a-1"), str(tmp_path / "folder"), "", Attributes()))

    assert (done.returncode, b"is a directory" in done.stderr) == (1, True)
    assert (tmp_path / "a-1").exists()


def test_the_digest_is_found_whatever_the_file_is_called(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "-back\\slash\nnew line"
    path.write_bytes(b"\x00\xff\xff")

    for size, data in ((2, b"\x00\xff"), (3, b"\x00\xff\xff"), (1 << 62, b"\x00\xff\xff")):
        assert digest_in(run(UNIX.sha256(str(path), size)).stdout.decode()) == digest(data)


def test_a_guest_without_a_tool_for_it_says_so(tmp_path: Path) -> None:
    command = UNIX.finish(str(tmp_path / "a-1"), str(tmp_path / "b"), digest(b""), Attributes())
    (tmp_path / "a-1").touch()
    done = subprocess.run(command, capture_output=True, check=False, env={"PATH": str(tmp_path)}, timeout=30)

    assert done.returncode == NO_TOOL


def test_pieces_come_in_any_order_and_twice(run: Run, tmp_path: Path) -> None:
    path, data = str(tmp_path / "-f"), os.urandom(3 * 65536 + 5)
    assert run(UNIX.create(path, str(tmp_path / "whole"), keep=False)).stdout.split() == [b"0"]

    for number in (2, 0, 0, 3, 1):
        assert run(UNIX.write(path, number * 65536), data[number * 65536 :][:65536]).returncode == 0

    assert Path(path).read_bytes() == data
    assert run(UNIX.create(path, str(tmp_path / "whole"), keep=True)).stdout.split() == [b"196613"]
    assert int(run(UNIX.size(path)).stdout) == len(data)


def test_facts_follow_links(run: Run, tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"abc")
    (tmp_path / "f").chmod(0o640)
    os.utime(tmp_path / "f", (1_500_000_000, 1_500_000_000))
    (tmp_path / "link").symlink_to("f")

    kind, size, mode, time = run(UNIX.stat(str(tmp_path / "link"))).stdout.decode().split()

    assert (kind, size, int(mode, 8), time) == ("f", "3", 0o640, "1500000000")
    assert b"No such file" in run(UNIX.stat(str(tmp_path / "none"))).stderr


def test_what_is_appended_is_for_its_owner_alone(run: Run, tmp_path: Path) -> None:
    for piece in (b"\x00\xffab", b"cde"):
        assert run(UNIX.append(str(tmp_path / "f")), piece).returncode == 0

    assert (tmp_path / "f").read_bytes() == b"\x00\xffabcde"
    assert (tmp_path / "f").stat().st_mode & 0o777 == 0o600


def test_a_file_is_added_to_another_and_gone(run: Run, tmp_path: Path) -> None:
    part, whole = tmp_path / "part", tmp_path / "whole"
    for expected in (b"x", b"xx"):
        part.write_bytes(b"x")
        assert run(UNIX.concat(str(part), str(whole))).returncode == 0
        assert (whole.read_bytes(), part.exists()) == (expected, False)


def test_what_can_not_be_added_leaves_the_file_as_it_was(run: Run, tmp_path: Path) -> None:
    (tmp_path / "whole").write_bytes(b"old")

    for whole in ("whole", "none"):
        assert run(UNIX.concat(str(tmp_path / "no part"), str(tmp_path / whole))).returncode

    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"whole": b"old"}


def test_a_folder_and_a_tree_are_listed(run: Run, tmp_path: Path) -> None:
    assert run(UNIX.makedirs([str(tmp_path / "a" / "b c"), str(tmp_path / "-d")])).returncode == 0
    for name in (".hidden", "a/b c/new\nline", "a/quote'\""):
        (tmp_path / name).write_text(name)
        (tmp_path / name).chmod(0o1640)
        os.utime(tmp_path / name, (1_500_000_000, 1_500_000_000))
    (tmp_path / "link").symlink_to("none")

    def told(command: Command) -> dict[str, tuple[str, str, int, str]]:
        texts = iter(run(command).stdout.decode().split("\0")[:-1])
        entries = [(entry.split(" ", 4), next(texts).split(":")) for entry in texts]
        me = (str(os.getuid()), str(os.getgid()))
        assert {(uid, gid) for _, (uid, gid, *_) in entries} == {me}
        return {path: (kind, size, int(mode, 8), time) for (kind, size, mode, time, path), _ in entries}

    assert told(UNIX.listdir(str(tmp_path)))[".hidden"] == ("f", "7", 0o1640, "1500000000")
    assert {path: kind for path, (kind, *_) in told(UNIX.listdir(str(tmp_path))).items()} == {
        ".hidden": "f",
        "-d": "d",
        "a": "d",
        "link": "l",
    }
    found = told(UNIX.walk(str(tmp_path)))
    assert found["./a/b c/new\nline"] == ("f", "14", 0o1640, "1500000000")
    assert set(found) == {".", "./-d", "./.hidden", "./a", "./a/b c", "./a/b c/new\nline", "./a/quote'\"", "./link"}


def test_removing_what_is_not_there_is_no_error(run: Run, tmp_path: Path) -> None:
    (tmp_path / "-x").write_text("x")

    for _ in range(2):
        assert run(UNIX.remove(str(tmp_path / "-x"))).returncode == 0
    assert list(tmp_path.iterdir()) == []


# More of what they promise, whatever files are called


@any_name
def test_what_is_put_is_there_as_often_as_it_is_put(run: Run, tmp_path: Path, name: str) -> None:
    for data in (b"one", b"two", b"two"):
        done = run(UNIX.put("new-1", f"./{name}", digest(data), Attributes()), data, folder=tmp_path)

        assert (done.returncode, done.stderr) == (0, b"")
        assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {name: data}


@any_name
def test_a_copy_in_pieces_by_any_name(run: Run, tmp_path: Path, name: str) -> None:
    path, unfinished = f"{tmp_path}/{name}", f"{tmp_path}/-{name}-1"
    (tmp_path / name).write_bytes(b"old")
    (tmp_path / name).chmod(0o604)
    for command, data in (
        (UNIX.create(unfinished, path, keep=False), b""),
        (UNIX.write(unfinished, 0), b"new"),
        (UNIX.write(unfinished, 0), b"new"),
        (UNIX.finish(unfinished, path, digest(b"new"), Attributes(mtime=1_500_000_000)), b""),
        (UNIX.finish(unfinished, path, digest(b"new"), Attributes(mtime=1_500_000_000)), b""),
    ):
        done = run(command, data)
        assert done.returncode == 0, done.stderr

    facts = (tmp_path / name).stat()
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {name: b"new"}
    assert (facts.st_mode & 0o777, facts.st_mtime) == (0o604, 1_500_000_000)


def test_a_new_file_has_the_permissions_that_the_guest_gives_to_new_ones(run: Run, tmp_path: Path) -> None:
    mask = os.umask(0o027)
    try:
        run(UNIX.put(f"{tmp_path}/new-1", f"{tmp_path}/new", digest(b"x"), Attributes()), b"x")
    finally:
        os.umask(mask)

    assert (tmp_path / "new").stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize("name", ["folder", "pipe", "none/file"])
def test_what_can_be_no_file_is_refused_and_nothing_is_left(run: Run, tmp_path: Path, name: str) -> None:
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    unfinished, path = f"{tmp_path}/new-1", f"{tmp_path}/{name}"

    assert run(UNIX.put(unfinished, path, digest(b"x"), Attributes()), b"x").returncode == 1
    assert run(UNIX.create(unfinished, path, keep=False)).returncode == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder", "pipe"]


def test_what_another_user_may_have_laid_in_its_place_is_not_continued(run: Run, tmp_path: Path) -> None:
    (tmp_path / "precious").write_bytes(b"precious")
    (tmp_path / "new-1").symlink_to("precious")

    done = run(UNIX.create(f"{tmp_path}/new-1", f"{tmp_path}/new", keep=True))

    assert done.stdout == b"0\n"
    assert not (tmp_path / "new-1").is_symlink()
    assert (tmp_path / "new-1").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "precious").read_bytes() == b"precious"


def test_a_piece_makes_no_file_of_its_own(run: Run, tmp_path: Path) -> None:
    done = run(UNIX.write(f"{tmp_path}/gone", 0), b"x")

    assert (done.returncode, b"another copy" in done.stderr, list(tmp_path.iterdir())) == (1, True, [])


def test_folder_environment_and_files_of_a_process(run: Run, tmp_path: Path) -> None:
    (tmp_path / "-").mkdir()
    (tmp_path / "-" / "-in").write_bytes(b"in")
    spec = CommandSpec(["sh", "-c", 'cat; echo "$A" >&2'], {"A": "it's\n"}, "-", "-in", "-out", "-err")

    assert run(UNIX.command(spec), folder=tmp_path).returncode == 0
    assert {path.name: path.read_bytes() for path in (tmp_path / "-").iterdir()} == {
        "-in": b"in",
        "-out": b"in",
        "-err": b"it's\n\n",
    }


@pytest.mark.parametrize(
    "spec",
    [
        CommandSpec(["true"], cwd="/no/such"), CommandSpec(["true"], stdin="/no/such"), CommandSpec(["true"], stdout="/no/such/file"),
        CommandSpec(["true"], stderr="/no/such/file"),
    ],
)  # fmt: skip
def test_a_process_whose_surroundings_are_not_there_does_not_start(run: Run, spec: CommandSpec) -> None:
    assert run(UNIX.command(spec)).returncode != 0


def test_the_exit_code_of_a_process_that_can_not_begin(run: Run, tmp_path: Path) -> None:
    assert run(UNIX.command(CommandSpec(["true"], cwd=str(tmp_path / "none")))).returncode == CAN_NOT_START


def test_links_are_made_as_often_as_one_likes_but_not_in_place_of_a_folder(run: Run, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "to").symlink_to("folder")
    links = [("-x\n", "-link"), ("elsewhere", "to")]

    for _ in range(2):
        assert run(UNIX.symlinks(links), folder=tmp_path).returncode == 0
    refused = run(UNIX.symlinks([("x", "folder")]), folder=tmp_path)

    assert {path.name: str(path.readlink()) for path in tmp_path.iterdir() if path.is_symlink()} == {
        "-link": "-x\n",
        "to": "elsewhere",
    }
    assert (refused.returncode, b"is a directory" in refused.stderr) == (1, True)


def test_permissions_and_times_of_a_tree(run: Run, tmp_path: Path) -> None:
    (tmp_path / "-d").mkdir()

    assert run(UNIX.attributes([("1751", UNIX.timestamp(1_234_567_890), f"{tmp_path}/-d")])).returncode == 0

    facts = (tmp_path / "-d").stat()
    assert (facts.st_mode & 0o7777, facts.st_mtime) == (0o1751, 1_234_567_890)


def test_where_links_of_a_tree_lead(run: Run, tmp_path: Path) -> None:
    for name, target in (("a", "no\nwhere\n"), ("b", "/etc"), ("-c", "-x")):
        (tmp_path / name).symlink_to(target)

    texts = run(UNIX.walk(str(tmp_path))).stdout.decode().split("\0")
    found = {
        entry.split(" ", 4)[4]: rest.split(":", 4)[4] for entry, rest in zip(texts[::2], texts[1::2], strict=False)
    }

    assert found == {".": "", "./a": "no\nwhere\n", "./b": "/etc", "./-c": "-x"}


def test_whose_the_entries_of_a_folder_are(run: Run, tmp_path: Path) -> None:
    if os.getuid():
        pytest.skip("only root gives files away")
    (tmp_path / "known").touch()
    (tmp_path / "unknown").touch()
    os.chown(tmp_path / "known", pwd.getpwnam("daemon").pw_uid, grp.getgrnam("daemon").gr_gid)
    os.chown(tmp_path / "unknown", 4_000_001, 4_000_002)

    for command in (UNIX.listdir(str(tmp_path)), UNIX.walk(str(tmp_path))):
        texts = run(command).stdout.decode().split("\0")
        found = {
            entry.rpartition(" ")[2].removeprefix("./"): rest
            for entry, rest in zip(texts[::2], texts[1::2], strict=False)
        }
        assert found["known"].split(":")[2:] == ["daemon", "daemon", ""]
        uid, gid, *names, target = found["unknown"].split(":")
        assert (uid, gid, target) == ("4000001", "4000002", "")
        assert names in (["UNKNOWN", "UNKNOWN"], [uid, gid])


def test_an_empty_folder_has_no_entries_and_a_missing_one_is_an_error(run: Run, tmp_path: Path) -> None:
    (tmp_path / "-").mkdir()

    assert run(UNIX.listdir("-"), folder=tmp_path).stdout == b""
    assert run(UNIX.listdir("none"), folder=tmp_path).returncode == 1
    assert run(UNIX.walk("none"), folder=tmp_path).returncode == 1


def test_a_link_reaches_the_file_from_anywhere(run: Run, tmp_path: Path) -> None:
    (tmp_path / "-f").write_bytes(b"data")
    (tmp_path / "elsewhere").mkdir()

    assert run(UNIX.link("-f", "elsewhere/link"), folder=tmp_path).returncode == 0

    assert (tmp_path / "elsewhere" / "link").read_bytes() == b"data"


def test_output_becomes_a_file_for_its_owner_alone(run: Run, tmp_path: Path) -> None:
    assert run(UNIX.redirect(f"{tmp_path}/out", ["printf", "%s", "a b"])).returncode == 0

    assert (tmp_path / "out").read_bytes() == b"a b"
    assert (tmp_path / "out").stat().st_mode & 0o777 == 0o600


def test_a_process_and_those_below_it_are_interrupted(run: Run, tmp_path: Path) -> None:
    # The child says itself that it is there: one that is just being made would be missed.
    script = """sh -c 'echo > "$0"; exec sleep 60' "$0"; echo never"""
    with subprocess.Popen(["sh", "-c", script, str(tmp_path / "runs")], stdout=subprocess.PIPE) as process:
        try:
            waited_until = time.monotonic() + 30
            while not (tmp_path / "runs").exists() and time.monotonic() < waited_until:
                time.sleep(0.01)
            done = run(UNIX.interrupt(process.pid))
            output, _ = process.communicate(timeout=30)
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.kill()

    assert (done.returncode, process.returncode, output) == (0, -signal.SIGINT, b"")


# All scripts are right as far as can be seen without a guest

SCRIPTS = Path(str(systems.__file__)).parent / "scripts"


def scripts(folder: str) -> list[str]:
    """All that are sent: those that none includes."""
    texts = {path.name: path.read_text() for path in (SCRIPTS / folder).iterdir()}
    included = {name for text in texts.values() for name in re.findall(r"# include: (\S+)", text)}
    assert included <= texts.keys()
    return [f"{folder}/{name}" for name in sorted(texts.keys() - included)]


@pytest.mark.parametrize("name", scripts("unix"))
def test_shellcheck_finds_nothing(name: str) -> None:
    shellcheck = shutil.which("shellcheck")
    assert shellcheck, "shellcheck is not there: ./dev setup installs it"

    done = subprocess.run(
        [shellcheck, "--shell=sh", "-"], input=assemble(name), capture_output=True, text=True, check=False, timeout=60
    )

    assert done.stdout == ""


def powershell_errors(script: str) -> list[str]:
    """What the grammar can't read."""
    parser = Parser(Language(tree_sitter_powershell.language()))
    nodes, errors = [parser.parse(script.encode()).root_node], []
    while nodes:
        node = nodes.pop()
        nodes += node.children
        if node.is_error or node.is_missing:
            errors.append(f"line {node.start_point[0] + 1}: {(node.text or b'').decode()[:100]!r}")
    return errors


@pytest.mark.parametrize("name", [name for name in scripts("windows") if not name.endswith("frame.ps1")])
def test_the_grammar_of_powershell_reads_the_whole(name: str) -> None:
    command = WINDOWS.script(name.removeprefix("windows/").removesuffix(".ps1"), "it's", "C:\\x y")
    script = base64.b64decode(command[-1]).decode("utf-16-le")

    assert script.startswith("$a = @('it''s', 'C:\\x y')\n$failing = 1\n")
    assert powershell_errors(script) == []


@pytest.mark.parametrize("wrong", ["if ($x { }", "try { 1 ", "'no end", "$a | % { [IO.File]::Delete($_ }", "} x"])
def test_the_grammar_of_powershell_finds_errors(wrong: str) -> None:
    assert powershell_errors(f"{wrong}\nexit 0\n")


def test_both_systems_have_the_scripts_that_both_need() -> None:
    unix, windows = (
        {name.partition("/")[2].partition(".")[0] for name in scripts(folder)} for folder in ("unix", "windows")
    )

    assert unix - windows == {
        "attributes", "connect", "disarm", "end_relay", "logs", "on_port", "redirect", "relay", "signal", "sshd", "stream", "symlinks", "walk_entries",
        "watchdog",
    }  # fmt: skip
    assert windows - unix == {"frame", "temporary"}


@pytest.mark.parametrize("name", [*scripts("unix"), *scripts("windows")])
def test_a_script_says_what_it_is_for_and_is_sent_without_that(name: str) -> None:
    assert assemble(name).startswith("# ")
    assert "# include" not in assemble(name)
    assert [line for line in script_text(name).splitlines() if not line.strip() or line.strip().startswith("#")] == []


def test_exit_codes_of_the_scripts_are_those_that_the_client_knows() -> None:
    assert f"exit {OTHER_BYTES}; fi" in assemble("unix/put.sh")
    assert f"|| exit {NO_TOOL};" in assemble("unix/finish.sh")
    assert f"$code = {OTHER_BYTES} }}" in assemble("windows/finish.ps1")
    assert f"|| exit {CAN_NOT_START}; fi" in assemble("unix/start.sh")
    assert f"|| exit {NO_PORT}\n" in assemble("unix/on_port.sh")
