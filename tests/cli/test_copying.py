"""`guestwire cp` and `edit`, over an agent's own socket and over HTTPS."""

import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from reaching import WAYS, Lab, guestwire

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
        (("here", "there"), "One of SRC and DST is GUEST:PATH"),
        (("web:/a", "web:/b"), "One of SRC and DST is GUEST:PATH"),
        (("/no/such/file", "web:/root/x"), "/no/such/file: No such file or directory"),
        (("web:/no/such/file", "/tmp/x"), "No such file or directory"),
        (("/etc/hostname", "web:/no/such/folder/x"), "No such file or directory"),
    ],
)
async def test_what_can_not_be_copied_is_one_line(lab: Lab, arguments: tuple[str, str], words: str) -> None:
    assert words in (await lab("web", "cp", *arguments)).line


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
