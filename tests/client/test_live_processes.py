"""Programs that run in a guest, with their bytes both ways, over every way."""

import asyncio
import contextlib
import hashlib
import random

import pytest
from waiting import until_ended
from ways import Way

from guestwire import Guest, connect
from guestwire.client.errors import AgentRefused, StreamEnded, WrongParameters
from guestwire.client.live_processes import LiveProcess, OutputStream
from guestwire.client.processes import ProcessFailed
from guestwire.streams import relay_process
from guestwire.streams.remote_process import Exit, WindowSize
from guestwire.testing import SandboxedAgent

pytestmark = pytest.mark.agent

without_libvirt = pytest.mark.parametrize("way", ["unix", "guestwire", "limited"], indirect=True)
"""For what does not depend on the carrier below the relay: libvirt's is slow, and has its own tests here."""


def some_bytes(size: int) -> bytes:
    """All values, in no order."""
    return bytes(range(256)) + random.Random(size).randbytes(size - 256)


def amount(way: Way) -> int:
    """Bytes that take a second or two that way."""
    return 150_000 if way.server and way.server.limited else 2_500_000


async def both_ways(process: LiveProcess, data: bytes) -> bytes:
    async def send() -> None:
        await process.stdin.write(data)
        await process.stdin.close()

    found, _ = await asyncio.gather(process.stdout.read(), send())
    return found


async def read_until(stream: OutputStream, wanted: bytes, within: float = 20.0) -> bytes:
    """What is read until that is in it."""
    found = b""
    async with asyncio.timeout(within):
        while wanted not in found:
            data = await stream.read(65536)
            assert data, f"it ended with {found!r}"
            found += data
    return found


async def write_until_refused(process: LiveProcess) -> None:
    async with asyncio.timeout(30):
        while True:
            await process.stdin.write(b"x" * 20_000)


async def streams_left(guest: Guest) -> str:
    """What streams have left in the guest: their folders, and their processes."""
    found = await guest.run(["sh", "-c", "ls -d /run/guestwire-stream-* 2>/dev/null; pgrep -fa relay[.]sh; true"])
    return found.output


async def until_nothing_is_left(guest: Guest) -> None:
    left = ""
    try:
        async with asyncio.timeout(25):
            while left := await streams_left(guest):
                await asyncio.sleep(0.2)
    except TimeoutError:
        raise AssertionError(f"streams have left {left}") from None


async def test_every_byte_goes_there_and_back(way: Way) -> None:
    data = some_bytes(amount(way))

    async with way.guest.start(["cat"]) as process:
        found = await both_ways(process, data)
        ended = await process.wait()

    assert hashlib.sha256(found).digest() == hashlib.sha256(data).digest()
    assert ended == Exit(code=0)
    await until_nothing_is_left(way.guest)


async def test_outputs_are_apart_and_lines_come_as_they_are_written(way: Way) -> None:
    program = 'read -r first; echo "got $first"; echo odd >&2; read -r second; printf "%s" "$second"; exit 7'

    async with way.guest.start(["sh", "-c", program]) as process:
        assert process.stderr
        await process.stdin.write("one\n")
        assert await process.stdout.readline() == b"got one\n"  # before the program goes on
        assert await process.stderr.readline() == b"odd\n"
        await process.stdin.write("twö\n")
        assert [line async for line in process.stdout] == ["twö".encode()]
        assert await process.stderr.read() == b""
        assert await process.wait() == Exit(code=7)


@without_libvirt
async def test_merged_outputs_keep_their_order(way: Way) -> None:
    program = "for n in 1 2 3 4 5 6 7 8 9; do echo $n; echo e$n >&2; done"

    async with way.guest.start(["sh", "-c", program], merge=True) as process:
        assert process.stderr is None
        assert (await process.stdout.read()).split() == [b"%s%d" % (e, n) for n in range(1, 10) for e in (b"", b"e")]


@without_libvirt
async def test_variables_and_folder_are_those_that_were_given(way: Way) -> None:
    odd = {"A": "1 2'\"$x\n3", "user": "labuser", "d": "/nope"}  # names that the relay's script has, too

    async with way.guest.start(["sh", "-c", 'pwd; printf "%s|" "$A" "$user" "$d"'], env=odd, cwd="/usr/lib") as process:
        assert (await process.stdout.read()).decode() == "/usr/lib\n" + "".join(f"{value}|" for value in odd.values())


@without_libvirt
async def test_signals_reach_it_and_what_it_started(way: Way) -> None:
    async with way.guest.start(["sh", "-c", "sleep 1000 & echo $!; wait"]) as process:
        child = (await process.stdout.readline()).decode().strip()
        await process.signal("TERM")
        assert await process.wait() == Exit(signal=15)

    assert not (await way.guest.run(["kill", "-0", child])).ok


@without_libvirt
async def test_the_end_of_a_program_is_not_that_of_its_outputs(way: Way) -> None:
    async with way.guest.start(["sh", "-c", "(sleep 2; echo late) & echo early"]) as process:
        assert await process.stdout.readline() == b"early\n"
        assert await process.wait() == Exit(code=0)
        assert await process.stdout.readline() == b"late\n"


@without_libvirt
async def test_who_reads_no_more_says_so(way: Way) -> None:
    async with way.guest.start(["sh", "-c", "exec <&-; echo deaf; sleep 1000"]) as process:
        await process.stdout.readline()
        with pytest.raises(BrokenPipeError):
            await write_until_refused(process)


async def test_leaving_the_block_ends_it(way: Way) -> None:
    async with way.guest.start(["sh", "-c", "trap '' HUP; echo $$; sleep 1000"]) as process:
        pid = (await process.stdout.readline()).decode().strip()

    await until_nothing_is_left(way.guest)
    await until_ended(way.guest, pid)


async def test_a_reader_that_stops_stops_the_writer(way: Way) -> None:
    counter = way.agent.home / "blocks"
    program = "n=0; while head -c 65536 /dev/zero; do n=$((n + 1)); echo $n >/root/blocks; done"

    async with way.guest.start(["sh", "-c", program]) as process:
        await process.stdout.read(1)
        before, now = -1, 0
        async with asyncio.timeout(40):
            while before != now:
                before = now
                await asyncio.sleep(1.5)
                now = int(counter.read_text() or 0)
        assert 0 < now * 65536 < 40_000_000
        await read_until(process.stdout, b"\0" * 65536)  # and it goes on
    counter.unlink()


@without_libvirt
async def test_a_run_that_is_large_is_whole(way: Way) -> None:
    is_quick = way.server is None or not way.server.limited
    size = 18 * 1024 * 1024 if is_quick and "qemu" not in way.options[1] else 200_000
    data = some_bytes(amount(way) // 4)

    many = await way.guest.run(["head", "-c", str(size), "/dev/zero"], large=True)
    back = await way.guest.run(["sh", "-c", "cat; echo odd >&2; exit 3"], input=data, large=True)

    assert (len(many.stdout), many.stdout_truncated, many.code) == (size, False, 0)
    assert (back.stdout, back.stderr, back.code) == (data, b"odd\n", 3)
    with pytest.raises(ProcessFailed, match="odd"):
        await way.guest.run(["sh", "-c", "echo odd >&2; exit 3"], large=True, check=True)


@pytest.mark.parametrize("way", ["unix", "guestwire"], indirect=True)
async def test_what_it_wrote_is_all_to_be_read_behind_its_end(way: Way) -> None:
    async with asyncio.timeout(40), way.guest.start(["head", "-c", "3000000", "/dev/zero"]) as process:
        assert await process.wait() == Exit(code=0)
        assert await process.stdout.read() == bytes(3_000_000)


@without_libvirt
async def test_variables_stand_in_no_command_line(way: Way) -> None:
    """Each user of the guest may read them all."""
    secret = "s3cr3t-value"
    look = "cat /proc/[0-9]*/cmdline | tr '\\0' ' '"

    async with way.guest.start(["sh", "-c", "echo $PASSWORD; read _"], tty=True, env={"PASSWORD": secret}) as process:
        await read_until(process.stdout, secret.encode())
        assert secret not in (await way.guest.run(["sh", "-c", look])).output
        await process.stdin.write("\n")


@without_libvirt
async def test_no_handle_stays_open_in_the_agent(way: Way) -> None:
    for end in ("leave", "close"):
        async with way.guest.start(["sh", "-c", "yes | head -c 3000000; sleep 2"]) as process:
            await process.stdout.read(1)
            if end == "leave":
                await process.leave()
    look = "ls -l /proc/$(pgrep -o qemu-ga)/fd | grep guestwire-strea[m]; true"
    async with asyncio.timeout(10):
        while (await way.guest.run(["sh", "-c", look])).output:
            await asyncio.sleep(0.1)


@pytest.mark.parametrize(
    ("argv", "options", "words"),
    [
        (["/nowhere/program"], {}, "No such file"),
        (["/etc/passwd"], {}, "Permission denied"),
        (["true"], {"cwd": "/nowhere"}, "/nowhere"),
        (["true"], {"user": "nobody-here"}, "nobody-here"),
    ],
)
async def test_what_can_not_be_started_is_one_sentence(
    way: Way, argv: list[str], options: dict[str, str], words: str
) -> None:
    with pytest.raises(AgentRefused, match=words):
        async with way.guest.start(argv, cwd=options.get("cwd"), user=options.get("user")):
            pass


@without_libvirt
async def test_nonsense_is_refused_before_it_is_sent(way: Way) -> None:
    for argv, env in ([], {}), (["a\0b"], {}), (["true"], {"A=B": "x"}):
        with pytest.raises(WrongParameters):
            async with way.guest.start(argv, env=env):
                pass


async def test_a_terminal_is_one(way: Way) -> None:
    async with way.guest.start(["sh"], tty=WindowSize(33, 99), env={"TERM": "vt100", "PS1": "$ "}) as process:
        assert process.stderr is None
        await process.stdin.write("stty size; echo $TERM; [ -t 0 ] && [ -t 2 ] && echo is a $((40+2)) terminal\n")
        assert b"33 99" in (said := await read_until(process.stdout, b"is a 42 terminal"))
        assert b"vt100" in said
        await process.resize(50, 132)
        async with asyncio.timeout(20):
            while True:  # the two go by different ways
                await process.stdin.write("stty size; echo d''one\n")
                if b"50 132" in await read_until(process.stdout, b"done"):
                    break
        await process.stdin.write("sleep 1000\n")
        await read_until(process.stdout, b"sleep 1000")
        await asyncio.sleep(0.2)  # typed ahead of the program, Ctrl-C would be the shell's
        await process.stdin.write(b"\x03")
        await process.stdin.write("echo a''gain; exit 5\n")
        assert b"again" in await process.stdout.read()
        assert await process.wait() == Exit(code=5)


@without_libvirt
async def test_a_terminal_can_not_be_left(way: Way) -> None:
    async with way.guest.start(["sh", "-c", "echo $$; exec sleep 1000"], tty=True) as process:
        pid = (await process.stdout.readline()).decode().strip()
        await process.leave()

    await until_nothing_is_left(way.guest)
    await until_ended(way.guest, pid)


@without_libvirt
async def test_end_of_input_on_a_terminal_is_ctrl_d(way: Way) -> None:
    async with way.guest.start(["cat"], tty=True) as process:
        await process.stdin.write("line\n")
        await read_until(process.stdout, b"line\r\nline\r\n")
        await process.stdin.close()
        assert await process.wait() == Exit(code=0)


@without_libvirt
async def test_several_at_once_are_not_mixed(way: Way) -> None:
    async def echo(number: int) -> bool:
        data = f"{number};".encode() * 5000
        async with way.guest.start(["cat"]) as process:
            return await both_ways(process, data) == data

    assert await asyncio.gather(*map(echo, range(6))) == [True] * 6


async def test_a_stream_that_breaks_says_what_became_of_the_program(agent: SandboxedAgent) -> None:
    async with await connect(f"unix:{agent.socket}") as host:
        guest = await host.guest("web")
        with contextlib.suppress(StreamEnded):  # and closing it is no second error
            async with guest.start(["sh", "-c", "echo up; sleep 1000"]) as process:
                await process.stdout.readline()
                await agent.kill()
                with pytest.raises(StreamEnded) as caught:
                    await process.stdout.read()
                assert str(process.pid) in caught.value.message
                assert caught.value.fate
                with pytest.raises(StreamEnded):
                    await process.wait()
        await guest.wait_ready()


async def test_who_ends_its_relay_loses_its_own_stream_alone(
    agent: SandboxedAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relay_process, "PATIENCE", 2.0)
    monkeypatch.setattr(relay_process, "KEEPALIVE", 0.5)
    monkeypatch.setattr(relay_process, "ENDS_WITHIN", 1.0)  # the relay that would end it is gone
    async with await connect(f"unix:{agent.socket}") as host:
        guest = await host.guest("web")
        async with guest.start(["cat"]) as other:
            end = "echo $$; kill -9 $(cat $(ls -td /run/guestwire-stream-*/relay | head -1)); sleep 1000"
            async with asyncio.timeout(30), guest.start(["sh", "-c", end]) as process:
                pid = (await process.stdout.readline()).decode().strip()
                with pytest.raises(StreamEnded, match="relay"):
                    await process.stdout.read()
            assert await both_ways(other, b"well") == b"well"
        await until_ended(guest, pid)
