"""What a guest's output may do to a terminal: nothing that the terminal answers."""

import re

import pytest
from commands import on_terminal
from hypothesis import given
from hypothesis import strategies as st
from reaching import environment, over_sockets

from guestwire.cli.terminal import TerminalFilter

ANSWERED = [
    b"\x05", b"\x1b[6n", b"\x1b[5n", b"\x1b[?6n", b"\x1b[?996n", b"\x1b[c", b"\x1b[0c", b"\x1b[>c", b"\x1b[=c", b"\x1bZ",
    b"\x1b[21t", b"\x1b[14t", b"\x1b[18t", b"\x1b[x", b"\x1b[?2026$p", b"\x1b[4$p", b"\x1b[>q", b"\x1b[>0q", b"\x1b[?u",
    b"\x1b[?1;1;0S", b"\x1b[1;1;1;1;1;1*y", b"\x1b[1$w", b"\x1b[&u", b"\x1b['|", b"\x1b[#R", b"\x1b[?4m", b"\x1b[>4;2m",
    b"\x1b]10;?\x07", b"\x1b]11;?\x1b\\", b"\x1b]4;1;?\x07", b"\x1b]52;c;?\x07", b"\x1b]52;c;eA==\x07",
    b"\x1b]1337;ReportCellSize\x07", b"\x1bP$qm\x1b\\", b"\x1bP+q544e\x1b\\", b"\x1b_Gi=1,a=q;AAAA\x1b\\", b"\x1b^x\x1b\\",
    b"\x1bXx\x1b\\", b"\x1b[?1000h", b"\x1b[?1004h", b"\x1b[?2004h", b"\x1b[?2048h", b"\x1b[5i", b"\x1b[2h",
    b"\xc2\x9b6n", b"\xc2\x9b0c", b"\xc2\x90$qm\xc2\x9c", b"\xc2\x9a", b"\x9b6n", b"\x1b[6\nn", b"\x1b[\x056n", b"\x1b[6\x7fn",
    b"\x1b\x1b[6n", b"\x1b[1\x1b[6n", b"\x1b]0;x\x1b[6n", b"\x1b[m\x1b[6n\x1b[m", b"\x1b]0;a\xc2\x9b6n\x07",
]  # fmt: skip

HARMLESS = [
    b"plain \xc3\xa9 \xe2\x82\xac \xc4\x9b\n\ttext\r\n", b"\x1b[1;31mred\x1b[0m", b"\x1b[38:2::255:0:0m", b"\x1b[2J\x1b[H",
    b"\x1b[10;20H", b"\x1b[3A", b"\x1b[K", b"\x1b[?25l\x1b[?25h", b"\x1b[?1049h", b"\x1b[4 q", b"\x1b7\x1b8", b"\x1b(B",
    b"\x1b]0;title?\x07", b"\x1b]8;;http://x/?a\x1b\\link\x1b]8;;\x1b\\", b"\x1b]11;#000000\x07", b"\x1b]104\x07", b"a\x07b\x08c",
    b"\xff\xfe",
]  # fmt: skip

ANSWERS = re.compile(rb"[\x05]|\x1b|\xc2[\x80-\x9f]")


def filtered(*pieces: bytes, encoding: str = "utf-8") -> bytes:
    found = TerminalFilter(encoding)
    return b"".join([*map(found.feed, pieces), found.end()])


@pytest.mark.parametrize("data", ANSWERED)
def test_what_a_terminal_answers_does_not_reach_it(data: bytes) -> None:
    without_colours = filtered(b"before" + data + b"after").replace(b"\x1b[m", b"")

    assert not ANSWERS.search(without_colours)
    assert without_colours.startswith(b"before")
    assert without_colours.endswith(b"after")
    assert not ANSWERS.search(filtered(b"before" + data).replace(b"\x1b[m", b""))


@pytest.mark.parametrize("data", [b"\x1b", b"\x1b[", b"\x1b[6", b"\x1b]11;?", b"\x1bP$q", b"\xc2"])
def test_a_sequence_that_is_not_whole_has_no_end_in_what_comes_next(data: bytes) -> None:
    assert b"\x1b" not in filtered(b"x" + data)
    assert not ANSWERS.search(filtered(b"x" + data) + b"n\x07")


@pytest.mark.parametrize("data", HARMLESS)
def test_text_colours_and_cursor_go_through_as_they_are_also_in_pieces(data: bytes) -> None:
    assert filtered(data) == data
    assert filtered(*(data[at : at + 1] for at in range(len(data)))) == data


def test_in_another_encoding_than_utf_8_a_byte_may_be_a_control_character() -> None:
    assert filtered("ě".encode() + b"6n \xe9", encoding="iso-8859-1") == b"\xc46n \xe9"


@given(
    st.lists(st.sampled_from([*ANSWERED, *HARMLESS, b"\x1b[", b"?", b"6", b"n", b"c", b";", b"\\", b"]", b"\n"])),
    st.data(),
)
def test_however_it_comes_nothing_is_left_for_a_second_filter(parts: list[bytes], data: st.DataObject) -> None:
    whole = b"".join(parts)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=5)))
    pieces = [whole[start:end] for start, end in zip([0, *cuts], [*cuts, len(whole)], strict=True)]

    shown = filtered(*pieces)

    assert filtered(shown) == shown
    assert b"\x05" not in shown


@pytest.mark.agent
async def test_on_a_terminal_shell_and_cat_are_filtered_and_in_a_pipe_they_are_not() -> None:
    async with over_sockets() as lab:
        (lab.agent.home / "hostile").write_bytes(b"a\x1b[6nb\x05c\x1b[31md\x1b[m\x1b]11;?\x07e\n")
        env = environment(lab.home)
        line = "cat /root/hostile; cat /root/hostile >&2\n"

        shell = await on_terminal(
            *lab.options["web"], "shell", "--lines", "web", answers=(("$ ", line), ("$ ", "exit\n")), environment=env
        )
        cat = await on_terminal(*lab.options["web"], "cat", "web:/root/hostile", environment=env)
        piped = await lab("web", "cat", "web:/root/hostile")

    shown = "abc\x1b[31md\x1b[me\r\n"
    assert shell.output.count(shown) == 2
    assert "\x1b[6n" not in shell.output
    assert cat.output == shown
    assert piped.output == b"a\x1b[6nb\x05c\x1b[31md\x1b[m\x1b]11;?\x07e\n"
