"""`exec -t` and `shell` in a terminal emulator, with the programs in a Debian guest that ask most of a terminal."""

import asyncio
import hashlib
import signal
from collections.abc import AsyncIterator, Callable

import pytest
from emulator import Emulator
from waiting import until_ended

from devtools.guests import Machine
from guestwire import connect
from guestwire.testing import SandboxedAgent

pytestmark = [pytest.mark.guest, pytest.mark.slow]

READY = r"\Aready>\Z"
"""A prompt on a screen that was cleared."""

PASTED = b"".join(b"%05d %s\n" % (number, b"pasted " * 10) for number in range(1330))
"""A little over 100 KB; no line is longer than a terminal takes."""


@pytest.fixture(scope="module")
async def target(debian: Machine) -> str:
    return f"unix:{debian.agent_socket}?qmp={debian.qmp_socket}"


@pytest.fixture(scope="class")
async def opened(target: str) -> AsyncIterator[Emulator]:
    # The size is the terminal's own, whatever variables say.
    async with Emulator.guestwire(target, "shell", "web", env={"COLUMNS": "60", "LINES": "10"}) as terminal:
        await terminal.see(r"[#$]\Z")
        terminal.type("PS1='ready> '; export LANG=C.UTF-8\r")
        await terminal.see(r"^ready>\Z")
        yield terminal
        terminal.type("exit 5\r")
        assert await terminal.ended() == 5
        assert terminal.settings() == terminal.settings_before


@pytest.fixture
async def shell(opened: Emulator) -> Emulator:
    """A login shell in the guest, at its prompt on an empty screen."""
    opened.resize(24, 80)
    # The size and the keys go by different ways.
    opened.type("\x15until [ \"$(stty size)\" = '24 80' ]; do sleep 0.1; done; clear\r")
    await opened.see(READY)
    return opened


class TestShell:
    """All in one, on one screen after the other; while it is open, the agent takes no other client."""

    # Programs

    async def test_vim_edits_a_file(self, shell: Emulator, debian: Machine) -> None:
        await debian.shell("printf 'one\\ntwo\\n' >/root/note")
        shell.type("vim -u NONE note\r")
        await shell.see(r"\Aone\n *two\n~")
        shell.type("Gothrëe\x1b")
        await shell.see(r"^thrëe\n~")
        shell.type("ggdd:wq\r")
        await shell.see(r"written(.|\n)*ready>\Z")

        assert await debian.shell("cat /root/note") == "two\nthrëe"

    async def test_top_draws_itself_again_in_a_larger_window(self, shell: Emulator) -> None:
        shell.type("top\r")
        await shell.see(r"\Atop - .*\n(.*\n){5} +PID USER.*\n( +\d+ \S+ .*(\n|\Z)){17}\Z")
        shell.resize(40, 120)
        await shell.see(r"\Atop - .*\n(.*\n){5} +PID USER.*\n( +\d+ \S+ .*(\n|\Z)){33}\Z")
        shell.type("q")
        await shell.see(r"^ready>\Z")

    async def test_less_turns_pages_and_finds_words(self, shell: Emulator) -> None:
        shell.type("seq 1000 | less\r")
        await shell.see(r"\A1\n2\n(.*\n){21}:\Z")
        shell.type(" ")
        await shell.see(r"\A24\n25\n")
        shell.type("/77[7]\r")
        await shell.see(r"\A777\n778\n")
        assert shell.screen.buffer[0][0].reverse
        shell.type("q")
        await shell.see(r"^ready>\Z")

    async def test_tmux_has_two_panes(self, shell: Emulator) -> None:
        shell.type("tmux -u -f /dev/null new sh\r")
        await shell.see(r"^\[\d\] 0:sh")
        shell.type("\x02%")
        await shell.see(r"│")
        shell.type("stty size; echo right\r")
        await shell.see(r"│23 39$")
        shell.type("\x02oecho left\r")
        await shell.see(r"^left *│(.|\n)*right")
        shell.type("\x02:")
        await shell.see(r"^:\Z")
        shell.type("kill-server\r")
        await shell.see(r"exited\](.|\n)*ready>\Z")

    # Keys, bytes, and the window

    async def test_the_guest_is_told_that_the_window_has_another_size(self, shell: Emulator) -> None:
        shell.type("trap 'echo now $(stty size)' WINCH; stty size\r")
        await shell.see(r"^24 80\nready>\Z")
        shell.resize(33, 111)
        await shell.see(r"now 33 111")
        shell.type("\rtrap - WINCH\r")
        await shell.see(r"WINCH\nready>\Z")

    async def test_colours_are_shown(self, shell: Emulator) -> None:
        shell.type(r"printf '\033[1;31mre\144\033[0;44mblu\145\033[m\n'" + "\r")
        await shell.see(r"^redblue$")
        row = next(row for row, line in enumerate(shell.screen.display) if line.startswith("redblue"))
        red, blue, plain = (shell.screen.buffer[row][column] for column in (0, 3, 7))
        assert (red.fg, red.bold, blue.fg, blue.bg, blue.bold, plain.bg) == (
            "red",
            True,
            "default",
            "blue",
            False,
            "default",
        )

    async def test_a_character_may_come_in_two_halves(self, shell: Emulator) -> None:
        shell.type(r"printf '\342\202'; sleep 0.3; printf '\254 \303'; sleep 0.3; printf '\266\n'" + "\r")
        await shell.see(r"^€ ö\nready>\Z")
        euro = "€".encode()
        shell.type("cat >half\r")
        await shell.see(r"cat >half\Z")
        shell.type(euro[:2])
        await asyncio.sleep(0.3)  # the halves go by themselves
        shell.type(euro[2:] + b"\r")
        await shell.see(r"^€$")
        shell.type("\x04")
        await shell.see(r"ready>\Z")
        shell.type("wc -c half\r")
        await shell.see(r"^4 half$")

    async def test_a_paste_of_100_kb_is_whole(self, shell: Emulator) -> None:
        shell.type("cat >paste; clear; sha256sum paste\r")
        await shell.see(r"sum paste\Z")
        shell.type(PASTED)
        await shell.see(r"^01329 pasted")
        shell.type("\x04")
        found = await shell.see(r"\A(\w{64})  paste\nready>\Z")

        assert found[1] == hashlib.sha256(PASTED).hexdigest()

    async def test_keys_that_are_signals_reach_the_program(self, shell: Emulator) -> None:
        # The one that writes is the one that the key ends: so the key does not come before it.
        shell.type("sleeper='echo sleep\"\"ing; exec sleep 1000'; export sleeper\r")
        shell.type("""sh -c 'trap "echo in""ter" INT; while :; do sh -c "$sleeper"; done'\r""")
        await shell.see(r"^sleeping\Z")
        shell.type("\x03")
        await shell.see(r"inter(.|\n)*sleeping\Z")
        shell.type("\x1c")
        await shell.see(r"Quit(.|\n)*ready>\Z")
        shell.type("sh -c 'echo read\"\"ing; exec cat'\r")
        await shell.see(r"^reading\Z")
        shell.type("\x1a")
        await shell.see(r"Stopped .*\nready>\Z")
        shell.type("fg\r")
        await shell.see(r"^ready> fg\nsh -c .*\Z")
        shell.type("line\r")
        await shell.see(r"^line\nline\Z")
        shell.type("\x03")
        await shell.see(r"ready>\Z")
        shell.type("echo $?\r")
        await shell.see(r"^130$")


# Ends


def answer(line: str) -> Callable[[Emulator], None]:
    return lambda terminal: terminal.type(f"{line}\n")


def send(number: signal.Signals) -> Callable[[Emulator], None]:
    return lambda terminal: terminal.process.send_signal(number)


@pytest.mark.agent
@pytest.mark.parametrize(
    ("end", "code"),
    [
        (answer("exit 42"), 42),
        (answer("kill -9 $$"), 137),
        (answer("\r~."), 129),
        (send(signal.SIGTERM), 129),
        (send(signal.SIGHUP), 129),
    ],
    ids=["exit", "kill", "escape", "SIGTERM", "SIGHUP"],
)
async def test_its_own_terminal_is_as_before_after_every_end(
    agent: SandboxedAgent, end: Callable[[Emulator], None], code: int
) -> None:
    program = "stty raw -echo; echo $$ >/root/pid; printf 'up\\r\\n'; read -r line; stty sane; eval \"$line\""
    target = f"unix:{agent.socket}"

    async with Emulator.guestwire(target, "exec", "-t", "web", "--", "sh", "-c", program) as terminal:
        await terminal.see(r"^up$")
        assert terminal.settings() != terminal.settings_before
        end(terminal)
        assert await terminal.ended() == code, terminal.text
        assert terminal.settings() == terminal.settings_before

    async with await connect(target) as host:
        guest = await host.guest("web")
        await until_ended(guest, (await guest.read_file("/root/pid")).decode().strip())


@pytest.mark.agent
async def test_its_own_terminal_is_as_before_when_the_agent_is_gone(agent: SandboxedAgent) -> None:
    line = ["exec", "-t", "web", "--", "sh", "-c", "echo up; sleep 1000"]
    async with Emulator.guestwire(f"unix:{agent.socket}", *line, columns=200) as terminal:
        await terminal.see(r"^up$")
        await agent.kill()
        assert await terminal.ended() == 69, terminal.text
        assert terminal.settings() == terminal.settings_before
        await terminal.see(r"the stream of process \d+ broke: its agent")


async def test_a_window_that_is_drawn_costs_the_guest_few_changes(target: str) -> None:
    reached = "until [ \"$(stty size)\" = '33 111' ]; do sleep 0.1; done"
    program = f"n=0; trap 'n=$((n + 1))' WINCH; echo up; {reached}; echo $n changes"
    async with Emulator.guestwire(target, "exec", "-t", "web", "--", "sh", "-c", program) as terminal:
        await terminal.see(r"^up$")
        for number in range(50):
            terminal.resize(20 + number % 25, 60 + number)
            await asyncio.sleep(0.01)
        terminal.resize(33, 111)
        changes = await terminal.see(r"^(\d+) changes$")

    assert 1 <= int(changes[1]) <= 10


@pytest.mark.ends_guest
async def test_its_own_terminal_is_as_before_when_the_vm_is_gone(target: str, debian: Machine) -> None:
    line = ["exec", "-t", "web", "--", "sh", "-c", "echo up; sleep 1000"]
    async with Emulator.guestwire(target, *line, columns=200) as terminal:
        await terminal.see(r"^up$")
        await debian.stop()
        assert await terminal.ended() == 69, terminal.text
        assert terminal.settings() == terminal.settings_before
        await terminal.see(r"the stream of process \d+ broke: its port was closed")
