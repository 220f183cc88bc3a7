"""Windows guests: command lines that arrive as they are, and what is done with files by PowerShell. No such guest can run here: see `windows.py`."""

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from windows import WindowsGuest, body, c_arguments, powershell_texts, script_in

from guestwire.agent.systems import WINDOWS, CommandSpec, windows_line
from guestwire.client import Guest, Host, connect
from guestwire.client.errors import FileRefused
from guestwire.testing import FakeGuest

NASTY = [
    "", " ", "a b", 'say "hi"', "C:\\Program Files\\", "\\\\server\\share\\", 'ends with "', 'back\\"slash', "\\\\\\",
    "tab\tand\nline", "%PATH%", "^&|<>()!", "$env:X `n $(1)", "it's", "‘curly’ ‚quotes‛", "世😀", "--", "-EncodedCommand", ";exit", '"', '""',
]  # fmt: skip


@pytest.mark.parametrize(
    ("line", "arguments"),
    [
        ('"abc" d e', ["abc", "d", "e"]),
        (r'a\\b d"e f"g h', [r"a\\b", "de fg", "h"]),
        (r"a\\\"b c d", [r"a\"b", "c", "d"]),
        (r'a\\\\"b c" d e', [r"a\\b c", "d", "e"]),
        (r'a"b"" c d', [r'ab" c d']),
    ],
)
def test_the_parser_of_these_tests_reads_the_examples_of_microsofts_page(line: str, arguments: list[str]) -> None:
    assert c_arguments(line) == arguments


def test_nasty_arguments_are_found_again_in_the_command_line() -> None:
    assert c_arguments(windows_line(NASTY)) == NASTY


words = st.text(alphabet=st.sampled_from("a \t\"\\\n'‘%$世")) | st.text(st.characters(codec="utf-8"))


@given(st.lists(words))
def test_any_arguments_are_found_again_in_the_command_line(arguments: list[str]) -> None:
    assert c_arguments(windows_line(arguments)) == arguments


@given(st.lists(words))
def test_any_text_is_found_again_in_a_script(texts: list[str]) -> None:
    assert script_in(WINDOWS.script("stat", *texts)) == (body("stat"), texts)


def test_curly_quotes_end_no_text() -> None:
    assert powershell_texts("'a\u2019\u2019b', '\u2018\u2018'") == ["a\u2019b", "\u2018"]


def test_directory_environment_and_files_are_given_to_the_script() -> None:
    spec = CommandSpec(["prog", *NASTY], {"A": "it's", "B": ""}, cwd="C:\\x y", stdin="C:\\in", stderr="C:\\err")

    _, given = script_in(WINDOWS.command(spec))

    assert given[0] == "prog"
    assert c_arguments(given[1]) == NASTY
    assert given[2:] == ["C:\\x y", "C:\\in", "", "C:\\err", "A", "it's", "B", ""]


def test_what_the_agent_can_start_by_itself_it_is_given_as_it_is() -> None:
    assert WINDOWS.command(CommandSpec(["cmd", "/c", "dir"])) == ["cmd", "/c", "dir"]


# Against a fake guest


@pytest.fixture
async def windows(guest: FakeGuest) -> WindowsGuest:
    return WindowsGuest(guest)


@pytest.fixture(params=["guestwire", "as Proxmox VE"])
async def host(windows: WindowsGuest, request: pytest.FixtureRequest) -> AsyncIterator[Host]:
    async with await connect(f"unix:{windows.fake.path}") as host:
        if request.param == "as Proxmox VE":
            host._only_guest, host._version = None, {"version": "9.2"}
        yield host


@pytest.fixture
async def there(host: Host) -> Guest:
    return await host.guest(100)


async def test_a_plain_command_goes_to_the_agent_itself(there: Guest, windows: WindowsGuest) -> None:
    await there.run(["ipconfig", "/all"])

    assert windows.ran == [["ipconfig", "/all"]]
    assert "guest-get-osinfo" not in windows.fake.names()


async def test_environment_and_directory_go_by_powershell_and_the_system_is_asked_for_once(
    there: Guest, windows: WindowsGuest
) -> None:
    for _ in range(2):
        ended = await there.run(["prog", *NASTY], env={"A": "1"}, cwd="C:\\")
        assert ended.output == "\n".join(["prog", *NASTY])

    assert windows.fake.names().count("guest-get-osinfo") == 1


async def test_arguments_that_proxmox_would_break_go_encoded(there: Guest, windows: WindowsGuest) -> None:
    ended = await there.run(["prog", "世"])

    assert all(word.isascii() for word in windows.ran[0]) == (ended.output == "prog\n世")


async def test_long_input_goes_through_a_file_that_is_gone_then(there: Guest, windows: WindowsGuest) -> None:
    await there.run(["sort"], input=b"x" * 200_000)

    script = next(given for _, given in map(script_in, windows.ran) if given[:1] == ["sort"])
    assert script[3].startswith("C:\\Windows\\TEMP\\guestwire-")
    assert windows.fake.files == {}


async def test_windows_is_known_by_what_its_agent_says(there: Guest) -> None:
    assert await there.is_windows()


# Files: as over Proxmox VE each piece is a process, over guestwire none


@pytest.mark.parametrize("size", [0, 5, 70_000, 400_000])
async def test_files_go_both_ways(there: Guest, windows: WindowsGuest, tmp_path: Path, size: int) -> None:
    data = os.urandom(size)
    (tmp_path / "source").write_bytes(data)
    os.utime(tmp_path / "source", (1_500_000_000, 1_500_000_000))

    await there.upload(tmp_path / "source", "C:\\data\\it's 100%.bin")
    await there.download("C:\\data\\it's 100%.bin", tmp_path / "back")

    assert dict(windows.fake.files) == {"C:\\data\\it's 100%.bin": data}
    assert (tmp_path / "back").read_bytes() == data
    assert (tmp_path / "back").stat().st_mtime == 1_500_000_000


async def test_they_are_written_read_added_to_and_removed(there: Guest, windows: WindowsGuest) -> None:
    await there.write_file("C:\\data\\f", b"one")
    async with there.open("C:\\data\\f", "ab") as stream:
        await stream.write(b"two")
    async with there.open("C:\\data\\f") as stream:
        assert await stream.seek(-3, os.SEEK_END) == 3
        assert await stream.read() == b"two"
    assert await there.read_file("C:\\data\\f") == b"onetwo"
    await there.files.remove("C:\\data\\f")

    assert windows.fake.files == {}


async def test_folders_are_made_listed_and_copied(there: Guest, windows: WindowsGuest, tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "sub").mkdir(parents=True)
    (source / "sub" / "f").write_bytes(b"deep")
    (source / "link").symlink_to("sub")
    os.utime(source / "sub" / "f", (1_500_000_000, 1_500_000_000))

    copied = await there.folders.upload(source, "C:\\data\\tree")
    entries = await there.folders.listdir("C:\\data\\tree")
    await there.folders.download("C:\\data\\tree\\sub", tmp_path / "back")

    assert windows.folders[1:] == ["C:\\data\\tree", "C:\\data\\tree\\sub"]
    assert copied.left_out == [("C:\\data\\tree\\link", "Windows takes no links of a Unix")]
    assert (copied.files, copied.failed) == (1, 1)
    assert [(entry.kind, entry.path, entry.size) for entry in entries] == [("f", "sub/f", 4)]
    assert (tmp_path / "back" / "f").read_bytes() == b"deep"


async def test_where_there_is_no_folder_the_error_says_what_to_do(there: Guest, windows: WindowsGuest) -> None:
    for call in (there.write_file("C:\\none\\f", b"x"), there.folders.listdir("C:\\none")):
        with pytest.raises(FileRefused, match=r"C:\\none: No such file or directory; `guestwire ls GUEST:FOLDER`"):
            await call

    assert windows.fake.files == {}


async def test_names_that_proxmox_would_break_are_reached(there: Guest, windows: WindowsGuest) -> None:
    await there.write_file("C:\\data\\世", b"world")

    assert await there.read_file("C:\\data\\世") == b"world"
    assert [*windows.fake.files] == ["C:\\data\\世"]
