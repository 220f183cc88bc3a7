"""Streams over ports of our own, into a real guest: every byte, every order of ends, and ports that come late or misbehave."""

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator

import pytest
from killed_client import start_and_be_killed
from stopped_writer import WRITES, blocks_when_stopped
from waiting import until

from devtools.guests import Machine
from devtools.streams import comes_back
from guestwire import Guest, connect
from guestwire.channels.qmp_ports import QmpPorts
from guestwire.client.errors import CallFailed, StreamEnded
from guestwire.client.live_processes import LiveProcess, OutputStream
from guestwire.errors import GuestError
from guestwire.streams import relay_process
from guestwire.streams.marks import LEAD
from guestwire.streams.remote_process import Exit

pytestmark = pytest.mark.guest

WITHIN = 60.0
MANY = 24 * 1024 * 1024


@pytest.fixture
async def guest(debian: Machine) -> AsyncIterator[Guest]:
    async with await connect(f"unix:{debian.agent_socket}?qmp={debian.qmp_socket}") as host:
        yield await host.guest("112")


@pytest.fixture(autouse=True)
def ports_come_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay_process, "PORTS_AFTER", 0.3)


async def until_by_port(process: LiveProcess) -> None:
    await until(lambda: process.way == "port", within=WITHIN)


async def read_exactly(stream: OutputStream, count: int) -> bytes:
    found = b""
    while len(found) < count:
        data = await stream.read(count - len(found))
        assert data, f"it ended after {len(found)} bytes"
        found += data
    return found


async def until_nothing_is_left(guest: Guest) -> None:
    looks = "ls -d /run/guestwire-stream-* 2>/dev/null; pgrep -f relay[.]sh; grep -l guestwire. /sys/class/virtio-ports/*/name; true"
    async with asyncio.timeout(WITHIN):
        while (await guest.run(["sh", "-c", looks])).output:
            await asyncio.sleep(0.2)


class TestBytes:
    async def test_many_go_there_and_back_at_once(self, guest: Guest) -> None:
        piece = bytes(range(256)) * 4 + random.Random(1).randbytes(MANY // 64 - 1024)
        async with asyncio.timeout(WITHIN), guest.start(["cat"]) as process:
            await until_by_port(process)
            assert await comes_back(process, [piece] * 64)
            assert await process.wait() == Exit(code=0)
        await until_nothing_is_left(guest)

    async def test_none_are_lost_or_doubled_where_they_go_over_to_ports(self, guest: Guest) -> None:
        program = "i=0; while [ $i -lt 3000 ]; do echo line $i; echo error $i >&2; i=$((i + 1)); done; cat"
        numbers = "".join(f"{number}\n" for number in range(4000)).encode()
        async with asyncio.timeout(WITHIN), guest.start(["sh", "-c", program]) as process:
            assert process.stderr

            async def send() -> None:
                for start in range(0, len(numbers), 100):
                    await process.stdin.write(numbers[start : start + 100])
                    await asyncio.sleep(0.005)
                await process.stdin.close()

            output, errors, _ = await asyncio.gather(process.stdout.read(), process.stderr.read(), send())
            assert process.way == "port"
        assert output == "".join(f"line {number}\n" for number in range(3000)).encode() + numbers
        assert errors == "".join(f"error {number}\n" for number in range(3000)).encode()

    async def test_what_looks_like_a_mark_is_the_programs_own(self, guest: Guest) -> None:
        almost = LEAD + b"01234567-89ab-cdef-0123-456789abcdefe"
        async with asyncio.timeout(WITHIN), guest.start(["cat"]) as process:
            await until_by_port(process)
            await process.stdin.write(almost * 50 + LEAD)
            await process.stdin.close()
            assert await process.stdout.read() == almost * 50 + LEAD

    async def test_a_reader_that_stops_stops_the_writer(self, guest: Guest) -> None:
        async with asyncio.timeout(WITHIN), guest.start(["sh", "-c", f"read -r _; {WRITES}"]) as process:
            await until_by_port(process)
            await process.stdin.write(b"\n")
            await process.stdout.read(1)
            now = await blocks_when_stopped(guest)
            assert now * 65536 < 16_000_000
            for _ in range(now + 100):
                assert await read_exactly(process.stdout, 65536) == bytes(65536)


class TestWhoGetsPorts:
    """With the real time, and the real number of bytes."""

    @pytest.fixture(autouse=True)
    def ports_come_soon(self) -> None:
        """They do not."""

    @pytest.fixture
    def only_bytes_get_them(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(relay_process, "PORTS_AFTER", 3600.0)

    async def test_one_that_runs_on_with_few_bytes_goes_over_after_its_time(self, guest: Guest) -> None:
        async with asyncio.timeout(WITHIN), guest.start(["cat"]) as process:
            assert process.way == "agent"
            await process.stdin.write(b"one\n")
            assert await process.stdout.readline() == b"one\n"
            await until_by_port(process)
            await process.stdin.write(b"two\n")
            await process.stdin.close()
            assert await process.stdout.read() == b"two\n"
            assert await process.wait() == Exit(code=0)
        await until_nothing_is_left(guest)

    @pytest.mark.usefixtures("only_bytes_get_them")
    async def test_one_byte_of_input_too_many_gets_them(self, guest: Guest, debian: Machine) -> None:
        async with asyncio.timeout(WITHIN), guest.start(["wc", "-c"]) as process:
            await process.stdin.write(bytes(relay_process.MANY))
            assert (process.way, await debian.plugged_in()) == ("agent", [])
            await process.stdin.write(b"x")
            await until_by_port(process)
            await process.stdin.write(bytes(relay_process.MANY))
            await process.stdin.close()
            assert await process.stdout.read() == b"%d\n" % (2 * relay_process.MANY + 1)
        await until_nothing_is_left(guest)

    @pytest.mark.usefixtures("only_bytes_get_them")
    async def test_one_byte_of_output_too_many_gets_them(self, guest: Guest, debian: Machine) -> None:
        program = f"head -c {relay_process.MANY - 1} /dev/zero; read -r _; echo; cat"
        async with asyncio.timeout(WITHIN), guest.start(["sh", "-c", program]) as process:
            assert await read_exactly(process.stdout, relay_process.MANY - 1) == bytes(relay_process.MANY - 1)
            assert (process.way, await debian.plugged_in()) == ("agent", [])
            await process.stdin.write(b"\n")
            assert await process.stdout.readline() == b"\n"
            await until_by_port(process)
            await process.stdin.write(b"more")
            await process.stdin.close()
            assert await process.stdout.read() == b"more"
        await until_nothing_is_left(guest)


@pytest.mark.parametrize(("size", "has_qmp", "streams"), [(262_144, True, 0), (262_145, True, 1), (300_000, False, 0)])
async def test_a_run_has_a_large_input_go_by_a_stream_where_a_port_may_be_had(
    debian: Machine, size: int, *, has_qmp: bool, streams: int
) -> None:
    async with await connect(f"unix:{debian.agent_socket}" + f"?qmp={debian.qmp_socket}" * has_qmp) as host:
        guest = await host.guest("112")
        await until_nothing_is_left(guest)
        ended = await guest.run(["sh", "-c", "wc -c; ls /run | grep -c guestwire-stream-"], input=bytes(size))
    assert ended.output == f"{size}\n{streams}\n"


class TestEnds:
    async def test_they_come_in_any_order(self, guest: Guest) -> None:
        async def end(program: str) -> tuple[bytes, bytes, Exit]:
            async with guest.start(["sh", "-c", program]) as process:
                assert process.stderr
                await until_by_port(process)
                with contextlib.suppress(BrokenPipeError):
                    await process.stdin.write(b"some")
                await process.stdin.close()
                return await process.stdout.read(), await process.stderr.read(), await process.wait()

        async with asyncio.timeout(WITHIN):
            found = await asyncio.gather(
                end("cat; exit 3"),
                end("exec >&- 2>&-; cat >/run/got; exit 4"),
                end("exec <&-; sleep 2; echo out; exit 5"),
                end("cat; kill -TERM $$"),
                end("exec 2>&-; cat; sleep 0.5 & exit 6"),
            )
        assert [*found] == [
            (b"some", b"", Exit(code=3)),
            (b"", b"", Exit(code=4)),
            (b"out\n", b"", Exit(code=5)),
            (b"some", b"", Exit(signal=15)),
            (b"some", b"", Exit(code=6)),
        ]
        assert await guest.read_file("/run/got") == b"some"
        await until_nothing_is_left(guest)

    async def test_input_ends_also_where_it_does_so_while_its_port_comes(self, guest: Guest) -> None:
        async def count(size: int) -> bytes:
            async with guest.start(["wc", "-c"]) as process:
                await process.stdin.write(bytes(size))
                await process.stdin.close()
                return await process.stdout.read()

        sizes = (relay_process.MANY, relay_process.MANY + 1, 100_000)
        async with asyncio.timeout(WITHIN):
            assert [await count(size) for size in sizes] == [f"{size}\n".encode() for size in sizes]
        await until_nothing_is_left(guest)

    @pytest.mark.parametrize("ends_input", [True, False])
    async def test_one_ends_with_its_client(self, debian: Machine, *, ends_input: bool) -> None:
        """One whose input still goes on hears less of its host: it sees the end of its port."""
        target = f"unix:{debian.agent_socket}?qmp={debian.qmp_socket}"
        async with asyncio.timeout(WITHIN):
            await start_and_be_killed(target, "sh", "-c", "cat; sleep 1000", ends_input=ends_input)
            async with await connect(target) as host:
                guest = await host.guest("112")
                await until_nothing_is_left(guest)
                assert (await guest.run(["pgrep", "-f", "sleep 100[0]"])).output == ""

    async def test_one_whose_relay_was_killed_ends_with_its_client(self, debian: Machine) -> None:
        """Also where that has just begun to count on the end of its port."""
        target = f"unix:{debian.agent_socket}?qmp={debian.qmp_socket}"
        program = """cd /run/guestwire-stream-*; while ! [ -e fed ]; do sleep 0.05; done
            read -r relay <relay; kill -KILL "$relay"; sleep 1000"""
        async with asyncio.timeout(WITHIN):
            await start_and_be_killed(target, "sh", "-c", program)
            async with await connect(target) as host:
                guest = await host.guest("112")
                await until_nothing_is_left(guest)
                assert (await guest.run(["pgrep", "-f", "sleep 100[0]"])).output == ""

    async def test_input_goes_on_behind_the_end_of_the_outputs(self, guest: Guest) -> None:
        async with asyncio.timeout(WITHIN), guest.start(["sh", "-c", "exec >&- 2>&-; wc -c >/run/count"]) as process:
            await until_by_port(process)
            assert await process.stdout.read() == b""
            await process.stdin.write(bytes(1_000_000))
            await process.stdin.close()
            assert await process.wait() == Exit(code=0)
        assert await guest.read_file("/run/count") == b"1000000\n"


async def test_a_reset_ends_it_at_once(machine: Machine) -> None:
    async with await connect(f"unix:{machine.agent_socket}?qmp={machine.qmp_socket}") as host:
        guest = await host.guest("guest")
        with contextlib.suppress(StreamEnded):  # and closing it is no second error
            async with guest.start(["cat"]) as process:
                await until_by_port(process)
                await machine.reset()
                async with asyncio.timeout(15):  # less than an agent is waited for
                    with pytest.raises(StreamEnded, match="its VM was reset") as caught:
                        await process.wait()
        assert caught.value.fate == "it ended with that"
        await guest.wait_ready()
        await until_nothing_is_left(guest)


async def test_the_agent_is_idle_when_its_host_has_gone(debian: Machine) -> None:
    async with await connect(f"unix:{debian.agent_socket}?qmp={debian.qmp_socket}") as host:
        guest = await host.guest("112")
        async with guest.start(["cat"]) as process:
            await until_by_port(process)

    # An agent that could not write its last answer would try it again and again.
    took = "cut -d' ' -f14,15 /proc/$(pidof qemu-ga)/stat"
    before, after = (await debian.shell(f"{took}; sleep 3; {took}")).splitlines()
    assert sum(map(int, after.split())) - sum(map(int, before.split())) < 150, "of 300 hundredths of a second"


class TestTerminals:
    async def test_the_port_is_the_terminals_from_its_first_byte_on(self, guest: Guest) -> None:
        async with (
            asyncio.timeout(WITHIN),
            guest.start(["sh", "-c", "stty size; read -r it; echo $it"], tty=(7, 33)) as one,
        ):
            assert one.way == "port"
            assert await one.stdout.readline() == b"7 33\r\n"
            await one.stdin.write("words\r")
            assert await one.stdout.read() == b"words\r\nwords\r\n"
            assert await one.wait() == Exit(code=0)
        await until_nothing_is_left(guest)

    async def test_python_makes_one_where_there_is_no_script(self, guest: Guest, debian: Machine) -> None:
        await debian.shell("mv /usr/bin/script /usr/bin/script-")
        try:
            program = "stty size; ls /proc/self/fd; read -r it; exit 9"
            async with asyncio.timeout(WITHIN), guest.start(["sh", "-c", program], tty=(7, 33)) as process:
                assert await process.stdout.readline() == b"7 33\r\n"
                assert (await process.stdout.readline()).split() == [b"0", b"1", b"2", b"3"]
                await process.stdin.write("words\r")
                assert await process.stdout.read() == b"words\r\n"
                assert await process.wait() == Exit(code=9)
        finally:
            await debian.shell("mv /usr/bin/script- /usr/bin/script")

    async def test_a_size_that_comes_while_it_is_made_is_its_size(self, guest: Guest) -> None:
        program = "until [ \"$(stty size)\" = '40 120' ]; do sleep 0.1; done; echo so"
        for _ in range(2):
            async with asyncio.timeout(WITHIN), guest.start(["sh", "-c", program], tty=(24, 80)) as process:
                await process.resize(40, 120)
                assert await process.stdout.read() == b"so\r\n"

    async def test_one_that_is_killed_before_it_began_leaves_nothing_behind_the_next(
        self, guest: Guest, debian: Machine, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """It waits for its port, with a folder and without a relay."""

        async def plug_in_never(_: QmpPorts, __: str) -> None:
            await asyncio.sleep(3.0)  # as long as the guest looks for it, and longer
            raise GuestError("there is no room for another port")

        monkeypatch.setattr(QmpPorts, "plug_in", plug_in_never)
        await until_nothing_is_left(guest)  # of the test before

        async def start() -> None:
            async with guest.start(["cat"], tty=True):
                pass

        starting = asyncio.create_task(start())
        finds = "until ls -d /run/guestwire-stream-* 2>/dev/null; do :; done"
        await debian.shell(f"{finds}; pkill -9 -f 'guestwire-stream-[$]id'")
        with pytest.raises(CallFailed):
            await starting
        async with guest.start(["cat"]):
            pass
        await until_nothing_is_left(guest)

    async def test_a_program_in_the_background_does_not_hold_it(self, guest: Guest) -> None:
        program = "trap '' HUP; sleep 1000 & echo $!"
        async with asyncio.timeout(WITHIN), guest.start(["sh", "-c", program], tty=True) as process:
            pid = (await process.stdout.read()).decode().strip()
            assert await process.wait() == Exit(code=0)
        assert (await guest.run(["kill", pid])).ok
        await until_nothing_is_left(guest)

    @pytest.mark.parametrize("comes", [True, False], ids=["late", "never"])
    async def test_a_port_that_is_late_costs_nothing(
        self, guest: Guest, monkeypatch: pytest.MonkeyPatch, *, comes: bool
    ) -> None:
        plug_in = QmpPorts.plug_in
        has_started = asyncio.Event()

        async def plug_in_late(self: QmpPorts, name: str) -> None:
            if not comes:
                raise GuestError("there is no room for another port")
            await has_started.wait()
            await plug_in(self, name)

        monkeypatch.setattr(QmpPorts, "plug_in", plug_in_late)
        async with asyncio.timeout(WITHIN), guest.start(["cat"], tty=True) as process:
            assert process.way == "agent"
            await process.stdin.write("one\r")
            found = b""
            while found.count(b"one\r\n") < 2:
                found += await process.stdout.read(100)
            has_started.set()
            if comes:
                await until_by_port(process)
            await process.stdin.write("two\r")
            while found.count(b"two\r\n") < 2:
                found += await process.stdout.read(100)
            await process.stdin.close()
            assert await process.stdout.read() == b""
        assert found == b"one\r\none\r\ntwo\r\ntwo\r\n"
        await until_nothing_is_left(guest)


TAKES_OVER = """
read -r _
folder=$(ls -td /run/guestwire-stream-* | head -1)
ours=$(pgrep -f "relay.sh $folder ")
ours="$ours $(for one in $ours; do pgrep -P $one; done)"
for one in $ours; do case $(readlink /proc/$one/fd/1) in /dev/vport*) port=$(readlink /proc/$one/fd/1) ;; esac; done
kill -9 $ours
until command exec 6<>$port; do sleep 0.1; done 2>/dev/null
echo over >/run/over
while :; do printf "\\036%s" 01234567-89ab >&6; done
"""
"""Ends the relay of its own stream, and takes the place of what writes into the port of an output: with a flood of halves of marks."""


async def test_a_hostile_relay_costs_only_its_own_stream(guest: Guest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay_process, "PATIENCE", 3.0)
    monkeypatch.setattr(relay_process, "KEEPALIVE", 0.5)
    monkeypatch.setattr(relay_process, "ENDS_WITHIN", 1.0)  # the relay that would end it is gone
    await guest.run(["rm", "-f", "/run/over"])
    async with asyncio.timeout(WITHIN), guest.start(["cat"]) as other:
        await until_by_port(other)
        with contextlib.suppress(StreamEnded):  # and closing it is no second error
            async with guest.start(["sh", "-c", TAKES_OVER]) as hostile:
                await until_by_port(hostile)
                await hostile.stdin.write(b"\n")
                while not (await guest.run(["test", "-e", "/run/over"])).ok:
                    await asyncio.sleep(0.1)
                await guest.ping()
                await other.stdin.write(b"well")
                assert await other.stdout.read(4) == b"well"
                with pytest.raises(StreamEnded, match="relay"):
                    await hostile.wait()
        await other.stdin.write(b"well")
        assert await other.stdout.read(4) == b"well"
    await until_nothing_is_left(guest)
