"""The client's own machine, at its oddest: every mistake is one sentence with the right exit code, and no traceback."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from calling import site, vm
from reaching import environment, guestwire
from serving import Serving
from ways import ca_of, options_for, over_https

from guestwire import connect
from guestwire.cli.connecting import Connection
from guestwire.client import Host
from guestwire.client.carriers.https import fingerprint_of
from guestwire.client.errors import CertificateNotTrusted, Unreachable, WrongParameters
from guestwire.client.settings import Https, Settings, parse_target
from guestwire.errors import ConfigurationError
from guestwire.testing import FakeGuest

WITHIN = 60

WITHOUT_ACCOUNT = ("bwrap", "--dev-bind", "/", "/", "--unshare-user", "--uid", "54321", "--gid", "54321")
"""As a container runs it: nothing knows this user."""


@pytest.fixture(scope="module")
async def server() -> AsyncIterator[Serving]:
    async with Serving.of(site(vm(100, "fake"), vm(101, "世界"))) as server:
        yield server


def run(*words: str, before: tuple[str, ...] = (), **env: str) -> "subprocess.CompletedProcess[bytes]":
    """The command as a process, with nothing but this in its environment."""
    return subprocess.run(
        [*before, sys.executable, "-m", "guestwire", *words],
        env={"PATH": os.environ["PATH"], **env}, capture_output=True, check=False, timeout=WITHIN, stdin=subprocess.DEVNULL,
    )  # fmt: skip


def assert_one_sentence(done: "subprocess.CompletedProcess[bytes]", code: int, words: str) -> None:
    said = done.stderr.decode()
    assert (done.returncode, said.count("\n")) == (code, 1), said
    assert said.startswith("guestwire: ")
    assert words in said


def test_a_user_without_home_and_account_can_use_it(tmp_path: Path) -> None:
    target = f"unix:{tmp_path}/none.qga"

    assert_one_sentence(run("--host", target, "ping", "x", before=WITHOUT_ACCOUNT), 3, "No such file or directory")
    assert_one_sentence(run("ping", "x", before=WITHOUT_ACCOUNT), 4, "for another host give --host")
    assert_one_sentence(run("--profile", "lab", "ls", before=WITHOUT_ACCOUNT), 78, "set HOME")
    assert_one_sentence(run("--host", target, "mcp", before=WITHOUT_ACCOUNT), 78, "set HOME")


@pytest.mark.parametrize(
    "words",
    [("--token-file", "~nosuchuser/t", "ls"), ("--ca", "~nosuchuser/c", "ls"), ("mcp", "--records", "~nosuchuser/r"),
     ("mcp", "--policy", "~nosuchuser/p"), ("mcp", "--copy-folder", "~nosuchuser/f", "--check")],
)  # fmt: skip
def test_the_home_of_a_user_that_is_none_is_one_sentence(tmp_path: Path, words: tuple[str, ...]) -> None:
    done = run("--host", "https://127.0.0.1:9", *words, HOME=str(tmp_path))

    assert_one_sentence(done, 78, "~nosuchuser/")


@pytest.mark.parametrize(
    "target",
    ["https://user@h", "https://user:secret@h:8006", "https://h?x", "https://h#x", "https://h/path", "https://", "://h", "ftp://h",
     "https://h:0", "https://h:65536", "https://h:-1", "https://[::1", "https://h\\x", "https://h h", "unix:", "unix:\0", "", "h%41"],
)  # fmt: skip
def test_what_is_no_target_is_said_to_be_none(target: str) -> None:
    with pytest.raises(ConfigurationError, match="is no target") as refused:
        parse_target(target)
    assert "secret" not in str(refused.value)


async def test_a_target_with_more_behind_its_name_goes_nowhere(tmp_path: Path) -> None:
    done = await guestwire("--host", "https://127.0.0.1?x", "ls", env=environment(tmp_path))

    assert done.code == 78
    assert "is no target" in done.line


def test_a_terminal_of_another_encoding_shows_what_it_can(server: Serving, tmp_path: Path) -> None:
    done = run(*options_for(server), "ls", HOME=str(tmp_path), PYTHONIOENCODING="iso-8859-1", LC_ALL="C")

    assert (done.returncode, done.stderr) == (0, b"")
    assert rb"\u4e16\u754c" in done.stdout


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_a_full_or_closed_stream_is_one_sentence_or_none(server: Serving, tmp_path: Path, stream: str) -> None:
    words = [sys.executable, "-m", "guestwire", *options_for(server), *(["ls"] if stream == "stdout" else ["nothing"])]
    with Path("/dev/full").open("wb") as full:
        streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, stream: full}
        done = subprocess.run(words, env=environment(tmp_path), check=False, timeout=WITHIN, **streams)  # type: ignore[call-overload]

    assert done.returncode == (74 if stream == "stdout" else 2)
    assert b"Traceback" not in (done.stderr or b"")


def test_ls_of_an_agents_own_socket_says_what_is_true(tmp_path: Path) -> None:
    path = tmp_path / "web.qga"

    def status(*before: str) -> str:
        done = run("--host", f"unix:{path}", "ls", "--json", before=before)
        (guest,) = json.loads(done.stdout)
        assert (done.returncode, done.stderr, guest["name"]) == (0, b"", "web")
        return str(guest["status"])

    assert status() == "stopped"
    path.write_text("no socket")
    assert status() == "stopped"
    path.unlink()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        assert status() == "stopped"
        listener.listen(0)
        assert [status() for _ in range(3)] == ["running"] * 3, "the last ones find its queue full"
        path.chmod(0)
        assert status(*WITHOUT_ACCOUNT) == "unknown"
    path.chmod(0o600)
    assert status() == "stopped"


def test_a_socket_that_another_program_holds_is_said_to_be_held(tmp_path: Path) -> None:
    path = tmp_path / "web.qga"
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as holder:
        listener.bind(str(path))
        listener.listen(0)
        holder.connect(str(path))
        done = run("--host", f"unix:{path}", "ping", "web")

    assert_one_sentence(done, 3, "that no other program holds it (QEMU serves one at a time)")
    assert b"install" not in done.stderr


def test_a_state_folder_of_another_user_is_said_to_be_one(tmp_path: Path) -> None:
    state = tmp_path / "state"
    state.mkdir(mode=0o700)
    for name in ("server.pem", "server.key"):
        (state / name).touch(mode=0)
    config = tmp_path / "guestwire.toml"
    config.write_text(f'[server]\nlisten = "127.0.0.1:0"\nstate_dir = "{state}"\n')
    done = run("serve", "--config", str(config), before=WITHOUT_ACCOUNT)

    assert done.returncode == 78, done.stderr
    assert b"it belongs to another user; start the server as that one, or name a state_dir of your own" in done.stderr
    assert b"remove it" not in done.stderr


def with_closed(stream: int, server: Serving, home: Path, *words: str) -> "subprocess.CompletedProcess[bytes]":
    """The command with a standard stream closed, as a shell's `>&-` does it."""
    command = [
        "sh",
        "-c",
        f'exec "$@" {stream}>&-',
        "sh",
        sys.executable,
        "-m",
        "guestwire",
        *options_for(server),
        *words,
    ]
    return subprocess.run(
        command, env=environment(home), capture_output=True, check=False, timeout=WITHIN, stdin=subprocess.DEVNULL
    )


@pytest.mark.parametrize(
    "words", [("ls",), ("ls", "--json"), ("--version",), ("--help",), ("api",), ("mcp", "--check")]
)
def test_output_that_can_not_be_written_because_it_is_closed_is_a_fault(
    server: Serving, tmp_path: Path, words: tuple[str, ...]
) -> None:
    assert_one_sentence(with_closed(1, server, tmp_path, *words), 74, "standard output is closed")


def test_a_closed_stream_that_nothing_is_written_to_is_none(server: Serving, tmp_path: Path) -> None:
    for stream, words in ((0, ["ls"]), (2, ["ls"]), (1, ["nothing"])):
        done = with_closed(stream, server, tmp_path, *words)
        assert done.returncode == (2 if words == ["nothing"] else 0), done.stderr
        assert b"closed" not in done.stderr


async def test_mcp_ends_with_one_sentence_when_its_output_is_closed(server: Serving, tmp_path: Path) -> None:
    words = [*options_for(server), "mcp", "--records", str(tmp_path / "records")]
    process = await asyncio.create_subprocess_exec(
        "sh", "-c", 'exec "$@" >&-', "sh", sys.executable, "-m", "guestwire", *words,
        stdin=subprocess.PIPE, stderr=subprocess.PIPE, env=environment(tmp_path),
    )  # fmt: skip
    async with asyncio.timeout(WITHIN):
        _, errors = await process.communicate(b'{"jsonrpc":"2.0","id":1,"method":"ping"}\n')
    assert (process.returncode, errors.count(b"\n")) == (74, 1), errors


@pytest.mark.slow
@pytest.mark.parametrize("after", [number / 20 for number in range(2, 22)])
def test_ctrl_c_at_any_moment_leaves_one_line(tmp_path: Path, after: float) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        target = f"https://127.0.0.1:{silent.getsockname()[1]}"
        process = subprocess.Popen(
            [sys.executable, "-m", "guestwire", "--host", target, "ls"], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            env=environment(tmp_path, GUESTWIRE_TOKEN="u@pve!t=s"),
        )  # fmt: skip
        try:
            process.wait(after)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=WITHIN)

    # Before Python has started, the signal ends it.
    assert process.returncode in (130, -signal.SIGINT), errors
    assert output == b""
    assert b"Unclosed" not in errors
    if process.returncode == 130:
        assert b"Traceback" not in errors, errors


class Proxy:
    """A proxy for CONNECT, which takes every name for this machine."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.refuses = False

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        self.asked.append(head.partition("\r\n")[0])
        if self.refuses:
            writer.write(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
            writer.close()
            return
        port = int(head.split()[1].rpartition(":")[2])
        there_reads, there_writes = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        await asyncio.gather(self._pass(reader, there_writes), self._pass(there_reads, writer))

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        writer.close()


async def test_a_proxy_that_the_environment_names_is_used(server: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    proxy = Proxy()
    listening = await asyncio.start_server(proxy.serve, "127.0.0.1", 0)
    port = listening.sockets[0].getsockname()[1]
    target = f"https://pve.test:{server.port}"
    fingerprint = await fingerprint_of(Https("https", "127.0.0.1", server.port))
    monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{port}")
    async with listening:
        async with await connect(target, token=server.token, fingerprint=fingerprint) as host:
            assert "guestwire" in await host.version()
        assert proxy.asked == [f"CONNECT pve.test:{server.port} HTTP/1.1"]

        wrong = ":".join(["AB"] * 32)
        async with await connect(target, token=server.token, fingerprint=wrong) as host:
            with pytest.raises(CertificateNotTrusted):
                await host.version()

        proxy.refuses = True
        async with await connect(target, token=server.token, fingerprint=fingerprint) as host:
            with pytest.raises(Unreachable, match=r"the proxy refuses: 407 .*NO_PROXY=HOST goes without it"):
                await host.version()

        before = len(proxy.asked)
        async with await over_https(server) as host:
            assert "guestwire" in await host.version()  # this machine itself is reached without one
        monkeypatch.setenv("NO_PROXY", "pve.test")
        async with await connect(target, token=server.token, ca=ca_of(server)) as host:
            with pytest.raises(Unreachable, match=r"unknown host name|resolution"):
                await host.version()
        assert len(proxy.asked) == before

    monkeypatch.delenv("NO_PROXY")
    async with await connect(target, token=server.token, fingerprint=fingerprint) as host:
        with pytest.raises(Unreachable, match="the proxy can't be reached: connection refused"):
            await host.version()
    monkeypatch.setenv("HTTPS_PROXY", "socks5://127.0.0.1:1080")
    with pytest.raises(ConfigurationError, match="a proxy is http://HOST:PORT"):
        await connect(target, token="u@pve!t=s")


async def test_a_request_that_is_too_large_is_said_to_be(server: Serving) -> None:
    async with FakeGuest(server.folder / "100.qga"), await over_https(server) as host:
        guest = await host.guest(100)
        with pytest.raises(WrongParameters, match="larger than the host takes"):
            await guest.run(["true", *["x" * 100_000] * 6])


def test_a_second_ctrl_c_leaves_cleaning_up_to_the_loop(tmp_path: Path) -> None:
    cleaned = []

    async def job(_: Host) -> None:
        loop = asyncio.get_running_loop()
        loop.call_soon(signal.raise_signal, signal.SIGINT)
        try:
            await loop.create_future()
        finally:
            loop.call_soon(signal.raise_signal, signal.SIGINT)
            try:
                await loop.create_future()
            finally:
                await asyncio.sleep(0)
                cleaned.append(True)

    with asyncio.Runner() as runner:
        connection = Connection(runner, Settings(host=f"unix:{tmp_path}/none.qga"), ask=False)
        with pytest.raises(KeyboardInterrupt):
            connection.run(job)
        connection.close()

    assert cleaned == [True]
