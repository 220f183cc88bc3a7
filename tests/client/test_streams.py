"""Files in a guest as streams, over an agent's socket and over guestwire, with real agents."""

import asyncio
import io
import os
from collections.abc import AsyncIterator

import pytest
from calling import site, vm
from serving import Serving

from guestwire import Guest, connect
from guestwire.client.errors import CallFailed
from guestwire.testing import SandboxedAgent

MIB = 1024 * 1024

pytestmark = pytest.mark.agent


@pytest.fixture(scope="module")
async def served() -> AsyncIterator[tuple[Serving, SandboxedAgent]]:
    async with Serving.of(site(vm(100, "web"))) as server, SandboxedAgent(server.folder / "100.qga") as agent:
        yield server, agent


@pytest.fixture(params=["unix", "guestwire"])
async def there(
    request: pytest.FixtureRequest, served: tuple[Serving, SandboxedAgent], agent: SandboxedAgent
) -> AsyncIterator[tuple[Guest, SandboxedAgent]]:
    server, real = served
    if request.param == "unix":
        host, real = await connect(f"unix:{agent.socket}"), agent
    else:
        ca = str(server.folder / "state" / "server.pem")
        host = await connect(f"https://127.0.0.1:{server.port}", token=server.token, ca=ca)
    async with host:
        yield await host.guest(100), real


There = tuple[Guest, SandboxedAgent]


def left_of(agent: SandboxedAgent) -> list[str]:
    return [path.name for path in agent.home.iterdir() if "guestwire" in path.name]


async def test_it_is_read_from_any_place(there: There) -> None:
    guest, agent = there
    data = os.urandom(3 * MIB + 5)
    (agent.home / "data").write_bytes(data)

    async with guest.open("/root/data") as stream:
        assert await stream.read(10) == data[:10]
        assert stream.tell() == 10
        assert await stream.seek(5) == 5
        assert await stream.read(2 * MIB) == data[5 : 5 + 2 * MIB]
        assert await stream.seek(-3, os.SEEK_CUR) == 2 + 2 * MIB
        assert await stream.read(3) == data[2 + 2 * MIB : 5 + 2 * MIB]
        assert await stream.seek(-7, os.SEEK_END) == len(data) - 7
        assert (await stream.read(), await stream.read(5), await stream.read()) == (data[-7:], b"", b"")
        await stream.seek(1)
        assert b"".join([piece async for piece in stream]) == data[1:]
        with pytest.raises(ValueError, match="before its beginning"):
            await stream.seek(-1)


async def test_a_file_that_grows_is_read_on(there: There) -> None:
    guest, agent = there
    (agent.home / "log").write_bytes(b"one\n")

    async with guest.open("/root/log") as stream:
        assert await stream.read() == b"one\n"
        with (agent.home / "log").open("ab") as log:
            log.write(b"two\n")
        assert await stream.read() == b"two\n"


async def test_a_file_that_is_not_there_is_an_error_when_it_is_opened(there: There) -> None:
    with pytest.raises(CallFailed, match="No such file"):
        async with there[0].open("/root/none"):
            pytest.fail("it is open")


async def test_what_is_written_appears_as_a_whole_at_the_end(there: There) -> None:
    guest, agent = there
    (agent.home / "new").write_bytes(b"old")
    data = os.urandom(2 * MIB + 1)

    async with guest.open("/root/new", "wb", permissions=0o600) as stream:
        for start in range(0, len(data), 100_000):
            await stream.write(data[start : start + 100_000])
        assert stream.tell() == len(data)
        assert (agent.home / "new").read_bytes() == b"old"

    assert (agent.home / "new").read_bytes() == data
    assert (agent.home / "new").stat().st_mode & 0o777 == 0o600
    assert left_of(agent) == []


@pytest.mark.parametrize("mode", ["wb", "ab"])
async def test_an_exception_drops_what_was_written(there: There, mode: str) -> None:
    guest, agent = there
    (agent.home / "kept").write_bytes(b"old")

    with pytest.raises(RuntimeError, match="no more"):  # noqa: PT012  # the context manager is what is tested
        async with guest.open("/root/kept", mode) as stream:  # type: ignore[arg-type]  # one of the two
            await stream.write(b"x" * MIB)
            raise RuntimeError("no more")

    assert (agent.home / "kept").read_bytes() == b"old"
    assert left_of(agent) == []


@pytest.mark.parametrize("mode", ["wb", "ab"])
async def test_cancelled_it_drops_what_was_written(there: There, mode: str) -> None:
    guest, agent = there
    (agent.home / "kept").write_bytes(b"old")
    begun = asyncio.Event()

    async def write() -> None:
        async with guest.open("/root/kept", mode) as stream:  # type: ignore[arg-type]  # one of the two
            while True:
                await stream.write(b"x" * MIB)
                begun.set()

    writing = asyncio.create_task(write())
    await begun.wait()
    writing.cancel()
    await asyncio.gather(writing, return_exceptions=True)

    assert writing.cancelled()
    assert (agent.home / "kept").read_bytes() == b"old"
    assert left_of(agent) == []


async def test_what_is_added_stands_behind_what_was_there(there: There) -> None:
    guest, agent = there
    (agent.home / "log").unlink(missing_ok=True)

    for line in (b"one\n", b"two\n" * 100_000, b""):
        async with guest.open("/root/log", "ab") as stream:
            await stream.write(line)

    assert (agent.home / "log").read_bytes() == b"one\n" + b"two\n" * 100_000
    assert left_of(agent) == []


@pytest.mark.parametrize("mode", ["wb", "ab"])
async def test_where_nothing_can_be_written_the_error_comes_no_later_than_at_the_end(there: There, mode: str) -> None:
    with pytest.raises(CallFailed, match="No such file"):  # noqa: PT012  # the context manager is what is tested
        async with there[0].open("/no/such/folder/x", mode) as stream:  # type: ignore[arg-type]  # one of the two
            for _ in range(20):
                await stream.write(b"x" * MIB)


async def test_what_its_mode_does_not_allow_is_an_error(there: There) -> None:
    guest, agent = there
    (agent.home / "some").write_bytes(b"some")

    async with guest.open("/root/some") as stream:
        with pytest.raises(io.UnsupportedOperation, match="can't be written"):
            await stream.write(b"x")
    async with guest.open("/root/some", "ab") as stream:
        for call in (stream.read(), stream.seek(0), anext(aiter(stream))):
            with pytest.raises(io.UnsupportedOperation, match="it is open as 'ab'"):
                await call
    with pytest.raises(ValueError, match="rb, wb, ab"):
        async with guest.open("/root/some", "r+"):  # type: ignore[arg-type]  # it is none
            pass
