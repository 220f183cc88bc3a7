"""The command `guestwire`."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from calling import Ended, guestwire
from click import Command, Context, Group
from in_process import run

import guestwire as package
from guestwire import errors
from guestwire.cli.program import COMMANDS, SELDOM
from guestwire.cli.program import guestwire as guestwire_group
from guestwire.cli.view_names import VIEWS


async def test_the_version_is_one_line() -> None:
    assert await guestwire("--version") == Ended(0, f"guestwire {package.__version__}\n", "")


async def test_without_arguments_it_helps() -> None:
    for words in ((), ("access",), ("access", "user")):
        ended = await guestwire(*words)

        assert (ended.code, ended.output) == (2, "")
        assert ended.errors.startswith(f"Usage: {' '.join(('guestwire', *words))} [OPTIONS] COMMAND")
        assert "\n  Example" in ended.errors


def _all(command: Command, *names: str) -> Iterator[tuple[str, ...]]:
    """The words of every command and of every group of commands."""
    yield names
    if isinstance(command, Group):
        context = Context(command)
        for name in command.list_commands(context):
            found = command.get_command(context, name)
            assert found
            yield from _all(found, *names, name)


async def _help(*words: str, columns: int) -> str:
    return (await run((*words, "--help"), env={**os.environ, "COLUMNS": str(columns)})).output.decode()


async def test_the_help_of_all_commands_is_one_page_and_each_is_a_whole_sentence_below_one_heading() -> None:
    text = await _help(columns=80)

    assert len(text.splitlines()) <= 61
    assert "..." not in text.partition("\n")[2]
    named = [
        name
        for names in re.findall(r"^  and ((?:.+\n)+?)(?=\S|\n)", text, re.MULTILINE)
        for name in re.split(r",\s+", names.strip())
    ]
    assert set(named) == SELDOM
    for name in guestwire_group.list_commands(Context(guestwire_group)):
        lines = len(re.findall(rf"^  {name} +[A-Z].*\.$", text, re.MULTILINE))
        assert (lines, named.count(name)) == ((0, 1) if name in SELDOM else (1, 0)), name
    assert {heading for heading, _ in VIEWS.values()} <= COMMANDS.keys()


@pytest.mark.parametrize("columns", [40, 60, 200])
async def test_every_help_fits_the_terminal_and_cuts_no_word(columns: int) -> None:
    for words in _all(guestwire_group):
        text = await _help(*words, columns=columns)
        # Examples and the table of exit codes stay as they are: lines to copy and to find.
        wrapped = text.partition("\n  Example")[0]
        assert max(map(len, wrapped.splitlines())) <= min(columns, 120), words
        whole = (await _help(*words, columns=120)).partition("\n  Example")[0]
        # A word may be parted behind its own hyphen.
        assert set(re.split(r"\s+|(?<=-)", whole)) == set(re.split(r"\s+|(?<=-)", wrapped)), words


async def test_help_names_arguments_as_they_are_written() -> None:
    for words in _all(guestwire_group):
        assert not re.search(r"<(str|int|float|path)\b|\{[A-Z]+\}", await _help(*words, columns=120)), words
    warning = r"--insecure +Accept any certificate \(insecure: a man in the middle can read and change everything\)"
    assert re.search(warning, await _help(columns=200))


async def test_help_is_asked_for_with_success() -> None:
    ended = await guestwire("--help")

    assert (ended.code, ended.errors) == (0, "")
    assert "Reach inside QEMU virtual machines through their guest agents." in ended.output


@pytest.mark.parametrize(
    "arguments",
    [("serve", "--none"), ("none",), ("--none",), ("serve", "--config"), ("serve", "--config", "x", "more")],
)
async def test_a_wrong_use_is_one_line_that_leads_to_help_and_is_exit_code_2(arguments: tuple[str, ...]) -> None:
    ended = await guestwire(*arguments)

    assert (ended.code, ended.output, ended.errors.count("\n")) == (2, "", 1)
    assert ended.errors.startswith("guestwire: ")
    assert re.search(r"See '.*guestwire( serve)? --help'\.$", ended.errors)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("ls", "--host", "x"), "--host stands before the command: guestwire --host … ls."),
        (("osinfo", "web", "--insecure"), "--insecure stands before the command: guestwire --insecure … osinfo."),
        (("--json", "ls"), "--json stands behind the command: guestwire ls --json."),
        (("channel", "add", "--ca", "x", "web"), "guestwire --ca … channel add."),
        (("audit", "--limit", "all"), "'all' is not a valid integer."),
        (("serve", "--host", "0.0.0.0"), "No such option '--host'."),
        (("exec", "--timeout", "soon", "web", "--", "id"), "'soon' is not a number."),
    ],
)
async def test_an_option_in_the_wrong_place_is_told_the_right_one(arguments: tuple[str, ...], says: str) -> None:
    ended = await guestwire(*arguments)

    assert (ended.code, says in ended.errors) == (2, True), ended.errors


async def test_an_error_is_one_line_and_the_exit_code_of_its_kind(folder: Path) -> None:
    ended = await guestwire("serve", "--config", str(folder))

    assert ended.code == errors.ConfigurationError.exit_code == 78
    assert ended.errors == f"guestwire: {folder}: Is a directory; name a file in TOML that you may read\n"


def kinds(base: type[errors.GuestwireError] = errors.GuestwireError) -> list[type[errors.GuestwireError]]:
    return [
        base,
        *(kind for below in base.__subclasses__() if below.__module__ == base.__module__ for kind in kinds(below)),
    ]


def test_every_error_stands_in_the_tree_at_the_top_of_its_file() -> None:
    tree = errors.__doc__ or ""

    assert [kind.__name__ for kind in kinds() if kind.__name__ not in tree] == []
    assert sum("Error" in line or "──" in line for line in tree.splitlines() if line.startswith("    ")) == len(kinds())


@pytest.mark.parametrize("kind", kinds())
def test_every_error_has_an_exit_code_that_a_shell_can_see_and_a_status(kind: type[errors.GuestwireError]) -> None:
    assert 0 < kind.exit_code < 126
    assert 400 <= kind.status < 600


def test_the_command_loads_neither_server_nor_store_nor_tables_before_it_knows_what_is_wanted() -> None:
    heavy = {"aiohttp", "cryptography", "msgspec", "rich", "sqlite3"}
    code = "import sys, guestwire.cli; print(*{name.partition('.')[0] for name in sys.modules})"

    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True).stdout

    assert set(loaded.split()) & heavy == set()


@pytest.mark.parametrize(
    ("line", "code", "words"),
    [("freeze web <&-", 2, "There is no terminal to ask on"), ("api >&- <&-", 74, "standard output is closed")],
)
def test_closed_standard_streams_are_as_empty_ones(line: str, code: int, words: str) -> None:
    done = subprocess.run(
        ["sh", "-c", f"exec '{sys.executable}' -m guestwire {line}"], stderr=subprocess.PIPE, check=False, timeout=60
    )

    assert (done.returncode, words in done.stderr.decode(), done.stderr.count(b"\n")) == (code, True, bool(words))
