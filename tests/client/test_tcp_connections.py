"""TCP connections in a guest: over every way, and by each program that a guest may have."""

import asyncio
import shutil
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from ways import Way

from guestwire import Guest, connect_sync
from guestwire.agent.systems import script_text
from guestwire.client.errors import WrongParameters
from guestwire.client.tcp_connections import ConnectionFailed
from guestwire.testing import SandboxedAgent

REVERSE = """
use IO::Socket::INET;
$| = 1;
my $server = IO::Socket::INET->new(Listen => 9, LocalAddr => "127.0.0.1") or die;
print $server->sockport, "\\n";
while (my $one = $server->accept) {
  next if fork;
  local $/;
  print $one scalar reverse <$one>;
  exit;
}
"""
"""A server that gives back what it got, from the end to the beginning, once it has all."""

ENDS_WITHIN = 30.0


@asynccontextmanager
async def reversing(guest: Guest) -> AsyncIterator[int]:
    """The port of the server, which runs in the guest."""
    async with guest.start(["perl", "-e", REVERSE]) as server:
        yield int(await server.stdout.readline())


@pytest.mark.agent
async def test_all_bytes_go_both_ways_and_each_direction_has_its_own_end(way: Way) -> None:
    is_quick = way.server and not way.server.limited
    data = bytes(range(256)) * (4000 if is_quick else 200)

    async with reversing(way.guest) as port, way.guest.connect_tcp("localhost", port) as connection:
        await connection.write(data)
        await connection.write_eof()
        found = await connection.read()

    assert found == data[::-1]


@pytest.mark.agent
async def test_a_port_that_nobody_listens_on_is_one_sentence_with_the_next_step(way: Way) -> None:
    with pytest.raises(ConnectionFailed, match=r"can't connect to 127\.0\.0\.1:9: Connection refused; .*ss -ltn"):
        async with way.guest.connect_tcp("127.0.0.1", 9):
            pass


@pytest.mark.agent
async def test_it_works_without_an_event_loop(agent: SandboxedAgent) -> None:
    def talk() -> bytes:
        with connect_sync(f"unix:{agent.socket}") as host:
            guest = host.guest("web")
            with guest.start(["perl", "-e", REVERSE]) as server:
                port = int(server.stdout.readline())
                with guest.connect_tcp("127.0.0.1", port) as connection:
                    assert (connection.host, connection.port, connection.can_write_eof) == ("127.0.0.1", port, True)
                    connection.write("abc")
                    connection.write_eof()
                    return connection.read()

    assert await asyncio.to_thread(talk) == b"cba"


@pytest.mark.agent
@pytest.mark.parametrize(
    ("host", "port"), [("", 80), ("-e", 80), ("/etc", 80), ("a b", 80), ("web", 0), ("web", 65536)]
)
async def test_nonsense_is_refused_before_it_is_sent(way: Way, host: str, port: int) -> None:
    with pytest.raises(WrongParameters):
        async with way.guest.connect_tcp(host, port):
            pass


# By each program that a guest may have, without a guest

TOOLS = {
    "python3": sys.executable,
    "perl": shutil.which("perl"),
    "nc": shutil.which("nc.openbsd"),
    "busybox": shutil.which("busybox"),
    "bash": shutil.which("bash"),
}

Start = Callable[[int], Awaitable[asyncio.subprocess.Process]]


@pytest.fixture(params=TOOLS)
def start(request: pytest.FixtureRequest, tmp_path: Path) -> Start:
    """Starts the script where the only program that can connect is this one."""
    program = TOOLS[request.param]
    if not program:
        pytest.skip(f"{request.param} is not on this machine: ./dev setup installs it")
    for name in ("sh", "sleep", "ls", "sed", "cat", "grep"):
        (tmp_path / name).symlink_to(str(shutil.which(name)))
    (tmp_path / request.param).symlink_to(Path(program).resolve())
    # The script adds folders that on this machine have others.
    script = script_text("unix/connect.sh").replace(":/usr/local/bin:/usr/libexec", "")
    pipe = asyncio.subprocess.PIPE

    async def start(port: int) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            "/bin/sh", "-c", script, "connect", "127.0.0.1", str(port),
            stdin=pipe, stdout=pipe, stderr=pipe, env={"PATH": str(tmp_path)},
        )  # fmt: skip

    return start


@asynccontextmanager
async def served(
    serve: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
) -> AsyncIterator[int]:
    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server, asyncio.timeout(ENDS_WITHIN):
        yield server.sockets[0].getsockname()[1]


async def test_each_program_connects_and_says_whether_it_can_end_one_direction(start: Start) -> None:
    async def reverse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write((await reader.readexactly(len(data)))[::-1])
        if can_write_eof:
            assert await reader.read() == b""
        writer.close()

    data = bytes(range(256)) * 2000
    async with served(reverse) as port:
        process = await start(port)
        assert process.stdin
        assert process.stdout
        assert process.stderr
        while not (line := await process.stderr.readline()).startswith(b"connected"):
            assert line
        can_write_eof = line == b"connected\n"
        assert can_write_eof or b"no end" in line
        process.stdin.write(data)
        if can_write_eof:
            process.stdin.close()
        found = await process.stdout.read()
        process.stdin.close()
        await process.wait()

    assert found == data[::-1]


async def test_each_program_says_why_it_can_not_connect(start: Start) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        process = await start(unused.getsockname()[1])
        async with asyncio.timeout(ENDS_WITHIN):
            output, errors = await process.communicate()

    assert output == b""
    assert b"Connection refused" in errors
    assert process.returncode
