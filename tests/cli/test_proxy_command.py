"""`guestwire proxy` and `guestwire forward`: from standard streams and sockets of this machine to servers in a guest, which has no network."""

import asyncio
import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pytest
from reaching import Done, ended, environment, line_of, running, started
from ways import Target

from guestwire.testing import SandboxedAgent

pytestmark = pytest.mark.agent

REVERSE = """
use IO::Socket::INET;
$| = 1;
my $server = IO::Socket::INET->new(Listen => 9, LocalAddr => "127.0.0.1") or die;
open my $file, ">", "/root/port.new"; print $file $server->sockport, "\\n"; close $file;
rename "/root/port.new", "/root/port";
while (my $one = $server->accept) {
  next if fork;
  local $/;
  print $one scalar reverse <$one>;
  exit;
}
"""
"""A server that gives back what it got, from the end to the beginning, once it has all."""

WITHIN = 40.0
ENV = environment(Path("/nowhere"))


async def guestwire(options: list[str], *arguments: str, stdin: bytes = b"") -> Done:
    return await ended(await started(*options, *arguments, env=ENV), stdin)


@asynccontextmanager
async def reversing(target: Target) -> AsyncIterator[str]:
    """The port of the server, which runs in the guest."""
    started = await guestwire(target.options, "exec", "--detach", target.host_name, "--", "perl", "-e", REVERSE)
    pid = started.text.strip()
    file = target.agent.home / "port"
    try:
        async with asyncio.timeout(WITHIN):
            while not file.exists():
                await asyncio.sleep(0.05)
        yield file.read_text().strip()
    finally:
        file.unlink()
        await guestwire(target.options, "exec", target.host_name, "--", "kill", pid)


def forwarding(options: list[str], *arguments: str) -> AbstractAsyncContextManager[asyncio.subprocess.Process]:
    return running(*options, "forward", *arguments, env=ENV, within=WITHIN)


async def reversed_by(port: int, data: bytes, host: str = "127.0.0.1") -> bytes:
    reader, writer = await asyncio.open_connection(host, port)
    writer.write(data)
    writer.write_eof()
    found = await reader.read()
    writer.close()
    return found


async def test_standard_streams_and_sockets_reach_a_port_in_the_guest(target: Target) -> None:
    data = os.urandom(50_000)
    async with reversing(target) as there:
        done = await guestwire(target.options, "proxy", target.host_name, there, stdin=data)
        assert (done.code, done.errors, done.output == data[::-1]) == (0, "", True)

        async with forwarding(target.options, target.host_name, f"0:localhost:{there}", "0:127.0.0.1:9") as process:
            port, nobody = [int(re.split("[: ]", (await line_of(process)).decode())[1]) for _ in range(2)]
            assert await reversed_by(nobody, b"x") == b""  # and the others go on
            pieces = [f"{number} ".encode() * 500 for number in range(4)]
            found = await asyncio.gather(*(reversed_by(port, piece) for piece in pieces))
            process.send_signal(2)
            _, errors = await process.communicate()
            assert found == [piece[::-1] for piece in pieces], errors

    assert process.returncode == 130
    assert errors.count(b"guestwire: ") == 2
    assert b"the guest can't connect to 127.0.0.1:9: Connection refused; nobody listens there" in errors


async def test_files_are_standard_streams_too(agent: SandboxedAgent, tmp_path: Path) -> None:
    target = Target(["--host", f"unix:{agent.socket}"], agent, "web")
    (tmp_path / "in").write_bytes(bytes(range(256)))
    async with reversing(target) as port:
        line = [sys.executable, "-m", "guestwire", *target.options, "proxy", "web", f"127.0.0.1:{port}"]
        with (tmp_path / "in").open("rb") as given, (tmp_path / "out").open("wb") as taken:
            done = await asyncio.to_thread(subprocess.run, line, stdin=given, stdout=taken, check=False, timeout=WITHIN)
        empty = await asyncio.to_thread(
            subprocess.run, line, stdin=subprocess.DEVNULL, capture_output=True, check=False, timeout=WITHIN
        )

    assert done.returncode == 0
    assert (tmp_path / "out").read_bytes() == bytes(range(256))[::-1]
    assert (empty.returncode, empty.stdout, empty.stderr) == (0, b"", b"")


async def test_what_it_listens_on_is_said_in_json(agent: SandboxedAgent) -> None:
    options = ["--host", f"unix:{agent.socket}"]

    async with forwarding(options, "--json", "web", "[::1]:0:[::1]:9") as process:
        found = json.loads(await line_of(process))
        port = found.pop("port")
        assert await reversed_by(port, b"x", "::1") == b""
        process.terminate()
        assert await process.wait() == 143

    assert found == {"bind": "::1", "host": "::1", "host_port": 9}


async def test_a_port_that_is_taken_is_one_sentence(agent: SandboxedAgent) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = await guestwire(["--host", f"unix:{agent.socket}"], "forward", "web", f"{port}:localhost:80")

    assert done.code == 74
    assert done.line == (
        f"this machine can't listen on 127.0.0.1:{port}: Address already in use; take another address or port,"
        " or port 0 for a free one"
    )


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        (["proxy", "web", "9"], 3, "can't connect to localhost:9: Connection refused; nobody listens there"),
        (["proxy", "web"], 2, "Name one port in the guest, or give --sshd."),
        (["proxy", "--sshd", "web", "22"], 2, "Name one port in the guest, or give --sshd."),
        (["proxy", "web", "x"], 2, "'x' is not [HOST:]PORT"),
        (["proxy", "web", "::1:80"], 2, "'::1:80' is not [HOST:]PORT, for example 5432, or [::1]:5432."),
        (["proxy", "web", "0"], 2, "'0' is not [HOST:]PORT"),
        (["forward", "web", "8080"], 2, "'8080' is not [BIND:]PORT:HOST:PORT, for example 8080:localhost:80."),
        (["forward", "web", "65536:localhost:80"], 2, "is not [BIND:]PORT:HOST:PORT"),
    ],
)
async def test_what_is_wrong_is_one_sentence(agent: SandboxedAgent, words: list[str], code: int, sentence: str) -> None:
    done = await guestwire(["--host", f"unix:{agent.socket}"], *words)

    assert done.code == code
    assert sentence in done.line


async def test_a_guest_without_an_ssh_server_says_what_to_install(agent: SandboxedAgent, tmp_path: Path) -> None:
    options = ["--host", f"unix:{agent.socket}"]

    done = await guestwire(options, "proxy", "--sshd", "--known-hosts", str(tmp_path), "web.guest")

    assert done.code == 3
    assert "no SSH host keys in /etc/ssh; install an SSH server in the guest, as openssh-server" in done.line
