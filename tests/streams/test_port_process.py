"""Programs whose standard streams are one port of our own, in a real guest."""

import asyncio
import contextlib
import errno
import hashlib
import random
import socket
from collections.abc import AsyncIterator
from typing import Any

import pytest
from killed_client import start_and_be_killed
from stopped_writer import WRITES, blocks_when_stopped

from devtools.guests import Machine
from guestwire import Guest, connect
from guestwire.channels.qmp_ports import QmpPorts
from guestwire.client.errors import AgentRefused, CallFailed, StreamEnded
from guestwire.errors import GuestError
from guestwire.streams import port_process
from guestwire.streams.agent_access import start_in_guest
from guestwire.streams.marks import LEAD
from guestwire.streams.remote_process import Exit, StreamRequest

pytestmark = pytest.mark.guest

WITHIN = 60.0


@pytest.fixture
async def guest(debian: Machine) -> AsyncIterator[Guest]:
    async with await connect(f"unix:{debian.agent_socket}?qmp={debian.qmp_socket}") as host:
        yield await host.guest("112")


async def until_nothing_is_left(guest: Guest) -> None:
    looks = (
        "pgrep -f 'sleep 100[0]'; pgrep -f 'org[.]guestwire'; grep -l guestwire. /sys/class/virtio-ports/*/name; true"
    )
    async with asyncio.timeout(WITHIN):
        while (await guest.run(["sh", "-c", looks])).output:
            await asyncio.sleep(0.2)


class TestBytes:
    async def test_many_go_there_and_back_at_once(self, guest: Guest) -> None:
        piece = bytes(range(256)) * 4 + LEAD * 50 + random.Random(1).randbytes(400_000)
        sent, found = hashlib.sha256(), hashlib.sha256()
        async with asyncio.timeout(WITHIN), guest.start(["cat"], connection=True) as process:
            assert process.way == "port"

            async def send() -> None:
                for _ in range(40):
                    sent.update(piece)
                    await process.stdin.write(piece)

            sending = asyncio.create_task(send())
            count = 0
            while count < 40 * len(piece):
                data = await process.stdout.read(65536)
                found.update(data)
                count += len(data)
            await sending
            await process.stdin.close()
            assert await process.stdout.read() == b""
        assert found.digest() == sent.digest()
        await until_nothing_is_left(guest)

    async def test_what_may_be_the_beginning_of_a_mark_is_given_without_more_behind_it(self, guest: Guest) -> None:
        async with asyncio.timeout(WITHIN), guest.start(["cat"], connection=True) as process:
            for data in (LEAD, b"some" + LEAD, LEAD + LEAD):
                await process.stdin.write(data)
                found = b""
                while len(found) < len(data):
                    found += await process.stdout.read(100)
                assert found == data

    async def test_a_reader_that_stops_stops_the_writer(self, guest: Guest) -> None:
        async with asyncio.timeout(WITHIN), guest.start(["sh", "-c", WRITES], connection=True) as process:
            await process.stdout.read(1)
            assert await blocks_when_stopped(guest) * 65536 < 16_000_000
        await until_nothing_is_left(guest)


class TestEnds:
    @pytest.mark.parametrize(
        ("program", "output", "errors", "ended"),
        [
            ("echo out; echo err >&2; exit 3", b"out\n", b"err\n", Exit(code=3)),
            ("kill -KILL $$", b"", b"", Exit(code=137)),
            ("exec <&- >&-; echo err >&2", b"", b"err\n", Exit(code=0)),
            ("head -c 300000 /dev/zero; head -c 400000 /dev/zero >&2", bytes(300000), bytes(400000), Exit(code=0)),
        ],
    )
    async def test_what_it_wrote_and_how_it_ended(
        self, guest: Guest, program: str, output: bytes, errors: bytes, ended: Exit
    ) -> None:
        async with asyncio.timeout(WITHIN), guest.start(["sh", "-c", program], connection=True) as process:
            assert process.stderr
            found = tuple(await asyncio.gather(process.stdout.read(), process.stderr.read(), process.wait()))
            assert found == (output, errors, ended)
            with pytest.raises(BrokenPipeError):
                await process.stdin.write(b"more")
        await until_nothing_is_left(guest)

    @pytest.mark.parametrize(
        ("signal", "ended"), [("TERM", Exit(code=143)), ("INT", Exit(code=130)), (9, Exit(signal=9))]
    )
    async def test_a_signal_reaches_it(self, guest: Guest, signal: str | int, ended: Exit) -> None:
        async with asyncio.timeout(WITHIN), guest.start(["sleep", "1000"], connection=True) as process:
            await process.signal(signal)
            assert await process.stdout.read() == b""
            assert await process.wait() == ended
        await until_nothing_is_left(guest)

    async def test_a_signal_that_it_takes_does_not_end_what_is_around_it(self, debian: Machine) -> None:
        target = f"unix:{debian.agent_socket}?qmp={debian.qmp_socket}"
        program = "trap 'echo hup' HUP; trap 'echo usr' USR1; echo on; while :; do sleep 0.2; done; : sleep 1000"
        async with asyncio.timeout(WITHIN), await connect(target) as host:
            guest = await host.guest("112")
            async with guest.start(["sh", "-c", program], connection=True) as process:
                found = [await process.stdout.readline()]
                for signal in ("HUP", "USR1", "HUP"):
                    await process.signal(signal)
                    found.append(await process.stdout.readline())
                assert found == [b"on\n", b"hup\n", b"usr\n", b"hup\n"]
                await process.signal("KILL")
                assert await process.wait() == Exit(signal=9)
            await until_nothing_is_left(guest)

    async def test_what_was_sent_before_its_input_ended_arrives(self, guest: Guest) -> None:
        program = "sleep 1; wc -c >/run/count"
        async with asyncio.timeout(WITHIN), guest.start(["sh", "-c", program], connection=True) as process:
            await process.stdin.write(bytes(300_000))
            await process.stdin.close()
            assert await process.stdout.read() == b""
            assert await process.wait() == Exit(code=0)
        assert await guest.read_file("/run/count") == b"300000\n"
        await until_nothing_is_left(guest)

    async def test_its_input_ends_with_its_output(self, guest: Guest) -> None:
        async with asyncio.timeout(WITHIN), guest.start(["cat"], connection=True) as process:
            await process.stdin.write(b"some")
            assert await process.stdout.read(10) == b"some"
            await process.stdin.close()
            assert await process.stdout.read() == b""
            assert (await process.wait()).code is not None

    async def test_one_that_does_not_read_ends_with_its_block(self, guest: Guest) -> None:
        async with asyncio.timeout(WITHIN), guest.start(["sh", "-c", "trap '' HUP; sleep 1000"], connection=True):
            pass
        await until_nothing_is_left(guest)

    async def test_one_that_does_not_read_ends_with_its_client(self, debian: Machine) -> None:
        target = f"unix:{debian.agent_socket}?qmp={debian.qmp_socket}"
        async with asyncio.timeout(WITHIN):
            await start_and_be_killed(target, "sh", "-c", "trap '' HUP; sleep 1000", connection=True)
        async with await connect(target) as host:
            await until_nothing_is_left(await host.guest("112"))

    async def test_a_reset_ends_it(self, machine: Machine) -> None:
        async with await connect(f"unix:{machine.agent_socket}?qmp={machine.qmp_socket}") as host:
            guest = await host.guest("guest")
            with contextlib.suppress(StreamEnded):  # and closing it is no second error
                async with guest.start(["cat"], connection=True) as process:
                    await machine.reset()
                    async with asyncio.timeout(15):  # less than an agent is waited for
                        with pytest.raises(StreamEnded, match="its VM was reset") as caught:
                            await process.stdout.read()
            assert caught.value.fate == "it ended with that"
            await guest.wait_ready()
            await until_nothing_is_left(guest)


class TestStarts:
    @pytest.mark.parametrize(
        ("program", "why"),
        [("/no/program", "No such file"), ("no-program", "No such file"), ("/etc/passwd", "Permission")],
    )
    async def test_a_program_that_can_not_be_started(self, guest: Guest, program: str, why: str) -> None:
        with pytest.raises(AgentRefused, match=why):
            async with guest.start([program], connection=True):
                pass
        await until_nothing_is_left(guest)

    @pytest.mark.parametrize(
        "refusal",
        [None, GuestError("there is no room for another port"), OSError(errno.EMFILE, "too many open files")],
        ids=["unseen", "refused", "no room here"],
    )
    async def test_without_a_port_it_goes_another_way(
        self, guest: Guest, monkeypatch: pytest.MonkeyPatch, refusal: Exception | None
    ) -> None:
        ours, other = socket.socketpair()
        ours.setblocking(False)  # noqa: FBT003

        async def plug_in(self: QmpPorts, name: str) -> None:
            if refusal:
                raise refusal
            self._sockets[name] = ours  # and QEMU knows nothing of it

        monkeypatch.setattr(QmpPorts, "plug_in", plug_in)
        async with asyncio.timeout(WITHIN), guest.start(["cat"], connection=True) as process:
            assert process.way == "agent"
            await process.stdin.write(b"some")
            await process.stdin.close()
            assert await process.stdout.read() == b"some"
        ours.close()
        other.close()

    async def test_a_start_that_is_cancelled_leaves_nothing(self, guest: Guest, debian: Machine) -> None:
        carrier: Any = guest._carrier  # a client waits for a start that it cancels; a server does not
        request = StreamRequest(("sleep", "1000"), connection=True)
        for delay in (0.0, 0.02, 0.05, 0.1, 0.2, 0.4, 0.8):
            starting = asyncio.create_task(start_in_guest(carrier._agent, request))
            await asyncio.sleep(delay)
            starting.cancel()
            await asyncio.gather(starting, return_exceptions=True)
            if not starting.cancelled():
                await starting.result().close()
        await until_nothing_is_left(guest)
        assert await debian.plugged_in() == []

    @pytest.mark.parametrize("word", [b"", LEAD + bytes(37), b"x" * 100_000], ids=["nothing", "another", "flood"])
    async def test_a_port_that_does_not_greet(self, guest: Guest, monkeypatch: pytest.MonkeyPatch, word: bytes) -> None:
        """Another program than ours has it."""
        monkeypatch.setattr(port_process, "GREETS_WITHIN", 3.0)
        connect_port = QmpPorts.connect
        others = []

        async def connect_another(self: QmpPorts, name: str) -> socket.socket:
            (await connect_port(self, name)).close()
            ours, other = socket.socketpair()
            ours.setblocking(False)  # noqa: FBT003
            other.setblocking(False)  # noqa: FBT003
            others.append(other)
            other.send(word)
            return ours

        monkeypatch.setattr(QmpPorts, "connect", connect_another)
        with pytest.raises(CallFailed, match=r"did not come up by its port"):
            async with asyncio.timeout(WITHIN), guest.start(["sleep", "1000"], connection=True):
                pass
        for other in others:
            other.close()
        await until_nothing_is_left(guest)


async def test_many_at_once(guest: Guest) -> None:
    async def exchange(number: int) -> bytes:
        async with guest.start(["cat"], connection=True) as process:
            await process.stdin.write(f"{number}\n")
            return await process.stdout.readline()

    async with asyncio.timeout(WITHIN):
        assert await asyncio.gather(*map(exchange, range(20))) == [f"{number}\n".encode() for number in range(20)]
    await until_nothing_is_left(guest)
