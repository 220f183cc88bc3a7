"""What `guestwire serve` makes at its first start, keeps at the next, and says when it can't start."""

import asyncio
import re
import socket
import stat
from pathlib import Path

import pytest
from calling import Client, Ended, agent, guestwire, site, vm
from serving import Serving, start
from waiting import until

from guestwire.testing import FakeGuest

pytestmark = pytest.mark.slow


async def serve(folder: Path, config: str) -> Ended:
    """Tries to serve a configuration that can't be served."""
    path = folder / "guestwire.toml"
    path.write_text(config)
    return await guestwire("serve", "--config", str(path))


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def listen(port: int, folder: Path) -> str:
    return f'[server]\nlisten = "127.0.0.1:{port}"\nnode = "pve1"\nstate_dir = "{folder}/state"\n'


# What can't be served


async def test_an_unknown_key_is_refused_with_its_line_and_name(folder: Path) -> None:
    ended = await serve(folder, '[server]\nlisten = "127.0.0.1:0"\nlisen = "127.0.0.1:1"\n')

    known = "listen, node, tls, state_dir, trusted_proxies, freeze_lease"
    assert ended == Ended(
        78, "", f"guestwire: {folder}/guestwire.toml, line 3: unknown key 'lisen'; known are {known}\n"
    )


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ("[server\n", "at line 1"),
        ('[[vm]]\nvmid = 100\nagnet = "unix:/x"\n', "line 3: unknown key 'agnet'"),
        ("[[vm]]\nvmid = 5\n", "line 2: 'vmid'"),
        ("[sever]\n", "line 1: unknown key 'sever'"),
        ('[server]\nlisten = "here"\n', "line 2: 'listen'"),
    ],
)
async def test_a_mistake_in_the_file_is_one_line_and_the_exit_code_of_configurations(
    folder: Path, config: str, says: str
) -> None:
    ended = await serve(folder, config)

    assert (ended.code, ended.output, ended.errors.count("\n")) == (78, "", 1)
    assert ended.errors.startswith(f"guestwire: {folder}/guestwire.toml")
    assert says in ended.errors


async def test_a_file_that_is_not_there_is_named(folder: Path) -> None:
    ended = await guestwire("serve", "--config", str(folder / "none.toml"))

    assert ended == Ended(
        78, "", f"guestwire: {folder}/none.toml: No such file or directory; name a file in TOML that you may read\n"
    )


async def test_a_mistake_leaves_nothing_behind(folder: Path) -> None:
    await serve(folder, listen(1, folder) + "nodes = 3\n")

    assert names(folder) == ["guestwire.toml"]


async def test_a_state_folder_that_cannot_be_made_is_named(folder: Path) -> None:
    (folder / "state").write_text("in the way")

    ended = await serve(folder, listen(0, folder))

    assert (ended.code, ended.errors.count("\n")) == (78, 1)
    assert f"{folder}/state" in ended.errors


async def test_an_address_in_use_is_one_line(folder: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        ended = await serve(folder, listen(port, folder))

    assert (ended.code, ended.output, ended.errors.count("\n")) == (78, "", 1)
    assert ended.errors.startswith(
        f"guestwire: can't listen on 127.0.0.1:{port}: address already in use; another server"
    )
    assert ended.errors.count("\n") == 1, "nothing is told of guests before"
    assert "address already in use" in ended.errors.lower()


async def test_a_configuration_is_checked_without_serving_it(folder: Path) -> None:
    (folder / "guestwire.toml").write_text(listen(8006, folder))
    good = await guestwire("serve", "--check", "--config", str(folder / "guestwire.toml"))
    (folder / "guestwire.toml").write_text("[server]\nnope = 1\n")
    bad = await guestwire("serve", "--check", "--config", str(folder / "guestwire.toml"))

    assert (good.code, good.output) == (0, "")
    assert "VMs of node" in good.errors
    assert (bad.code, "nope" in bad.errors) == (78, True)
    assert not (folder / "state" / "server.pem").exists()


async def test_an_address_of_another_host_is_one_line(folder: Path) -> None:
    ended = await serve(folder, listen(8006, folder).replace("127.0.0.1", "192.0.2.1"))

    assert (ended.code, ended.output, ended.errors.count("\n")) == (78, "", 1)
    assert ended.errors.startswith("guestwire: can't listen on 192.0.2.1:8006: ")


async def test_a_token_file_that_holds_something_else_is_refused_and_kept(folder: Path) -> None:
    (folder / "state").mkdir()
    (folder / "state" / "admin-token").write_text("secret\n")

    ended = await serve(folder, listen(0, folder))

    assert (ended.code, ended.errors.count("\n")) == (78, 1)
    assert f"{folder}/state/admin-token" in ended.errors
    assert (folder / "state" / "admin-token").read_text() == "secret\n"


# What the first start makes


async def test_the_first_start_makes_a_token_and_a_certificate_that_only_the_owner_can_use() -> None:
    async with Serving.of(site()) as server:
        state = server.folder / "state"

        modes = {path.name: mode(path) for path in state.iterdir()}
        assert {"admin-token", "server.key", "server.pem"} <= modes.keys()
        assert {name for name, found in modes.items() if found != 0o600} == {"server.pem"}
        assert mode(state) == 0o700
        assert re.fullmatch(r"root@pam!admin=[0-9a-f-]{36}\n", (state / "admin-token").read_text())
        assert (await Client(server).get("/api2/json/version")).status == 200


async def test_the_next_start_keeps_them() -> None:
    async with Serving.of(site()) as server:
        client, made = Client(server), contents(server)
        await server.stop()
        server.process = await start(server.folder, {})
        await server.listens()

        assert contents(server) == made
        assert (await client.get("/api2/json/version")).status == 200


def contents(server: Serving) -> dict[str, str]:
    """Token, certificate and key, as far as they are there."""
    paths = [server.folder / "state" / name for name in ("admin-token", "server.key", "server.pem")]
    return {path.name: path.read_text() for path in paths if path.exists()}


async def test_another_start_of_another_site_makes_another_token() -> None:
    async with Serving.of(site()) as one, Serving.of(site()) as other:
        assert one.token != other.token
        assert contents(one)["server.key"] != contents(other)["server.key"]


async def test_without_tls_it_serves_plain_http_and_makes_no_certificate() -> None:
    async with Serving.of(site(vm(100), server="tls = false")) as server, FakeGuest(server.folder / "100.qga"):
        client = Client(server, tls=False)

        assert (await client.post(agent("ping"))).json == {"data": {"result": {}}}
        assert "ssl_fingerprint" not in (await client.get("/api2/json/nodes")).data[0]
        assert list(contents(server)) == ["admin-token"]


async def test_plain_http_to_a_tls_port_gets_no_answer_and_breaks_nothing() -> None:
    async with Serving.of(site()) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        async with asyncio.timeout(10):
            assert b"HTTP/1.1 2" not in await reader.read()
        writer.close()

        assert (await Client(server).get("/api2/json/version")).status == 200
        assert "Traceback" not in server.log


async def test_the_log_says_what_is_served_and_where() -> None:
    async with Serving.of(site(vm(100), vm(101))) as server:
        # The port takes connections a moment before.
        await until(lambda: f"serves 2 VMs of node pve1 on 127.0.0.1 port {server.port}" in server.log)
