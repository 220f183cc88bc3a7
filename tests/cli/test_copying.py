"""`guestwire cp` and `edit`, over an agent's own socket and over HTTPS."""

import asyncio
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from reaching import WAYS, Lab, guestwire

from guestwire.cli.copying import _name

pytestmark = pytest.mark.agent

DATA = bytes(range(256)) * 2000


@pytest.fixture(scope="module", params=WAYS.values(), ids=list(WAYS))
async def lab(request: pytest.FixtureRequest) -> AsyncIterator[Lab]:
    async with request.param() as lab:
        yield lab


async def test_a_file_goes_there_and_back(lab: Lab, tmp_path: Path) -> None:
    (tmp_path / "a file").write_bytes(DATA)

    there = await lab("web", "cp", str(tmp_path / "a file"), "web:/root/copy", "--json")
    back = await lab("web", "cp", "web:/root/copy", str(tmp_path / "back"))

    assert there.json == {"files": 1, "bytes": len(DATA), "left_out": []}
    assert (back.code, back.output, back.errors) == (0, b"", "")
    assert (lab.agent.home / "copy").read_bytes() == (tmp_path / "back").read_bytes() == DATA


async def test_a_folder_as_the_other_side_takes_the_files_name(lab: Lab, tmp_path: Path) -> None:
    (tmp_path / "name").write_bytes(b"x")

    assert (await lab("web", "cp", str(tmp_path / "name"), "web:/root/")).code == 0
    (tmp_path / "name").unlink()
    assert (await lab("web", "cp", "web:/root/name", str(tmp_path))).code == 0

    assert (tmp_path / "name").read_bytes() == b"x"


@pytest.mark.parametrize(
    ("path", "name"), [("/a/b c", "b c"), ("/a/", ""), ("C:\\x\\y.txt", "y.txt"), ("C:\\x\\", ""), ("/a\\b", "a\\b")]
)
def test_the_name_of_a_file_is_its_guests(path: str, name: str) -> None:
    assert _name(path) == name


async def test_standard_streams_are_files_too(lab: Lab) -> None:
    assert (await lab("web", "cp", "-", "web:/root/piped", stdin=DATA)).code == 0
    assert (await lab("web", "cp", "web:/root/piped", "-")).output == DATA


async def test_folders_go_with_what_is_in_them(lab: Lab, tmp_path: Path) -> None:
    (tmp_path / "tree" / "sub").mkdir(parents=True)
    (tmp_path / "tree" / "sub" / "x y").write_text("deep")

    assert (await lab("web", "cp", "-r", str(tmp_path / "tree"), "web:/root/tree", "--json")).json["files"] == 1
    assert (await lab("web", "cp", "-r", "web:/root/tree", str(tmp_path / "back"))).code == 0

    assert (tmp_path / "back" / "sub" / "x y").read_text() == "deep"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("here", "there"), "SRC or DST must be GUEST:PATH"),
        (("/no/such/file", "web:/root/x"), "/no/such/file: No such file or directory"),
        (("web:/no/such/file", "/tmp/x"), "No such file or directory"),
        (("/etc/hostname", "web:/no/such/folder/x"), "No such file or directory"),
        (("web:/etc/passwd", "/no/such/folder/"), "no such folder on this machine"),
        (("web:/etc/passwd", "-", "--json"), "either for the file or for JSON"),
        (("web:/etc/passwd", ""), "SRC or DST must be GUEST:PATH"),
        (("", "web:/root/x", "-r"), "SRC or DST must be GUEST:PATH"),
        (("-r", "web:/etc/security", "/etc/hostname"), "/etc/hostname: File exists"),
        (("/etc/hostname", "web:/dev/null"), "is no regular file"),
    ],
)
async def test_what_can_not_be_copied_is_one_line(lab: Lab, arguments: tuple[str, ...], words: str) -> None:
    assert words in (await lab("web", "cp", *arguments)).line


async def test_several_go_into_a_folder_each_under_its_name(lab: Lab, tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).write_text(name)
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "leaf").write_text("green")
    (lab.agent.home / "several").mkdir()
    back = tmp_path / "back"
    back.mkdir()
    words = [str(tmp_path / name) for name in ("one", "two", "tree")]

    there = await lab("web", "cp", "-r", *words, "web:/root/several", "--json")
    home = await lab("web", "cp", "web:/root/several/one", "web:/root/several/tree/leaf", str(back))

    assert there.json == {"files": 3, "bytes": len("onetwogreen"), "left_out": []}
    assert (home.code, home.errors) == (0, "")
    assert {path.name: path.read_text() for path in back.iterdir()} == {"one": "one", "leaf": "green"}
    assert (lab.agent.home / "several" / "two").read_text() == "two"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("/etc/hostname", "/etc/passwd", "web:"), "'web:' is not GUEST:PATH, for example web:/etc"),
        (("/etc/hostname", "/etc/passwd", "/tmp"), "SRC or DST must be GUEST:PATH"),
        (("web:/etc/hostname", "web:/etc/passwd", "/no/such"), "Several SRC need a folder as DST: '/no/such' is none"),
        (("/etc/hostname", "-", "web:/root"), "'-' can't be one of several SRC"),
        (("/etc/hostname", "/", "web:/root"), "'/' can't be one of several SRC"),
        (("/etc/hostname", "/etc/passwd", "web:/no/such"), "No such file or directory"),
    ],
)
async def test_several_that_can_not_be_copied_are_one_line(lab: Lab, arguments: tuple[str, ...], words: str) -> None:
    assert words in (await lab("web", "cp", *arguments)).line


async def test_one_file_is_copied_with_r_too(lab: Lab, tmp_path: Path) -> None:
    assert (await lab("web", "cp", "-r", "web:/etc/passwd", str(tmp_path))).code == 0

    assert (tmp_path / "passwd").exists()


async def test_a_guest_named_with_its_node_is_one(lab: Lab, tmp_path: Path) -> None:
    assert (await lab("web", "cp", "pve1/100:/etc/passwd", str(tmp_path / "there"))).code == 0

    assert (tmp_path / "there").read_bytes().startswith(b"root:")


async def test_ctrl_c_does_not_wait_for_standard_input(lab: Lab) -> None:
    process = await lab.start("web", "cp", "-", "web:/root/endless")
    assert process.stdin
    process.stdin.write(DATA)
    async with asyncio.timeout(30):
        while not any("guestwire" in path.name for path in lab.agent.home.iterdir()):
            await asyncio.sleep(0.02)
        process.send_signal(signal.SIGINT)
        assert await process.wait() == 130

    assert [path.name for path in lab.agent.home.iterdir() if "guestwire" in path.name or path.name == "endless"] == []


async def test_a_full_disk_on_this_side_is_one_line(lab: Lab) -> None:
    for words in (
        ["cat", "web:/etc/passwd"],
        ["osinfo", "web"],
        ["hostname", "web", "--json"],
        ["exec", "web", "--", "id"],
    ):
        with open("/dev/full", "wb") as full:  # noqa: PTH123, ASYNC230  # a device
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "guestwire", *lab.options["web"], *words, env=lab.env, stdout=full, stderr=subprocess.PIPE
            )  # fmt: skip
            _, errors = await process.communicate()

        assert process.returncode == 74
        assert errors.startswith(b"guestwire: No space left on device")
        assert errors.count(b"\n") == 1


def editor(folder: Path, code: str) -> str:
    """An editor that does one thing to the file that it is given."""
    script = folder / "editor.py"
    script.write_text(f"import sys, pathlib\nfile = pathlib.Path(sys.argv[1])\n{code}\n")
    return f"{sys.executable} {script}"


async def edited(lab: Lab, folder: Path, code: str, *more: str) -> tuple[int, str]:
    env = {**lab.env, "VISUAL": editor(folder, code)}
    done = await guestwire(*lab.options["web"], "edit", "web:/root/motd", *more, env=env)
    return done.code, done.errors


async def test_a_file_is_edited(lab: Lab, tmp_path: Path) -> None:
    (lab.agent.home / "motd").write_text("hello\n")
    os.chmod(lab.agent.home / "motd", 0o640)  # noqa: PTH101  # the bits alone

    code, _ = await edited(lab, tmp_path, "file.write_text(file.read_text() + 'world\\n')")

    assert code == 0
    assert (lab.agent.home / "motd").read_text() == "hello\nworld\n"
    assert (lab.agent.home / "motd").stat().st_mode & 0o777 == 0o640


async def test_a_file_is_edited_behind_its_link(lab: Lab, tmp_path: Path) -> None:
    (lab.agent.home / "real").write_text("hello\n")
    (lab.agent.home / "motd").unlink(missing_ok=True)
    (lab.agent.home / "motd").symlink_to("real")

    code, _ = await edited(lab, tmp_path, "file.write_text('changed')")

    assert code == 0
    assert (lab.agent.home / "motd").is_symlink()
    assert (lab.agent.home / "real").read_text() == "changed"
    (lab.agent.home / "motd").unlink()


async def test_what_was_written_and_can_not_be_put_back_is_kept(lab: Lab, tmp_path: Path) -> None:
    (lab.agent.home / "motd").write_text("as it was\n")

    code, errors = await edited(
        lab, tmp_path, f"file.write_text('much work'); pathlib.Path({str(lab.agent.home / 'motd')!r}).unlink()"
    )

    assert code != 0
    kept = re.search(r"what you wrote is kept in (\S+/motd)\n", errors)
    assert kept
    assert Path(kept[1]).read_text() == "much work"
    shutil.rmtree(Path(kept[1]).parent)


async def test_an_editor_that_removes_the_file_failed(lab: Lab, tmp_path: Path) -> None:
    (lab.agent.home / "motd").write_text("as it was\n")

    code, errors = await edited(lab, tmp_path, "file.unlink()")

    assert (code, "nothing was changed in the guest" in errors) == (1, True)
    assert errors.count("\n") == 1


@pytest.mark.parametrize(
    ("editor", "why"),
    [
        ("/nonexistent", "can't be started: No such file or directory; name another in EDITOR"),
        ("/etc", "can't be started: Permission denied; name another in EDITOR"),
        ("'", "is no command line: a quotation mark is left open, or a \\ ends it"),
        ("vi \\", "is no command line: a quotation mark is left open, or a \\ ends it"),
        (" ", "is no command line: it names no program; name one in EDITOR"),
        ("''", "is no command line: it names no program; name one in EDITOR"),
        ("false", "ended with exit status 1"),
        ("sh -c 'kill -9 $$'", "was ended by signal 9"),
        ("rm", "left no file behind"),
    ],
)
async def test_an_editor_that_fails_is_said_in_one_sentence(lab: Lab, editor: str, why: str) -> None:
    (lab.agent.home / "motd").write_text("as it was\n")

    done = await guestwire(*lab.options["web"], "edit", "web:/root/motd", env={**lab.env, "VISUAL": editor})

    assert (done.code, done.line) == (1, f"the editor '{editor}' {why}; nothing was changed in the guest")


async def test_an_editor_that_changes_nothing_or_fails_leaves_the_file(lab: Lab, tmp_path: Path) -> None:
    (lab.agent.home / "motd").write_text("as it was\n")

    unchanged = await edited(lab, tmp_path, "pass")
    failed = await edited(lab, tmp_path, "file.write_text('half'); sys.exit(3)")

    assert unchanged == (0, "nothing was changed\n")
    assert failed[0] != 0
    assert "nothing was changed in the guest" in failed[1]
    assert (lab.agent.home / "motd").read_text() == "as it was\n"


async def test_a_file_that_changed_meanwhile_is_not_written_over_unasked(lab: Lab, tmp_path: Path) -> None:
    motd = lab.agent.home / "motd"
    motd.write_text("one\n")
    meanwhile = f"file.write_text('mine'); pathlib.Path({str(motd)!r}).write_text('theirs')"

    code, errors = await edited(lab, tmp_path, meanwhile)
    assert code != 0
    assert "changed in the guest meanwhile" in errors
    assert motd.read_text() == "theirs"

    code, _ = await edited(lab, tmp_path, meanwhile.replace("theirs", "theirs again"), "--yes")
    assert (code, motd.read_text()) == (0, "mine")
