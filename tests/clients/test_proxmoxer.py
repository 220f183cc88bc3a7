"""proxmoxer, the Python client of Proxmox VE, as PyPI has it: it must not notice the difference."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from calling import site, vm
from persons import SECRET, person, settling
from proxmoxer import AuthenticationError, ProxmoxAPI, ResourceException
from serving import Serving

from guestwire.access.passwords import hash_password
from guestwire.stores import AclEntry, Change, Put, User
from guestwire.testing import SandboxedAgent

PASSWORD = "correct-horse-9"


async def with_password() -> list[Change]:
    hashed = await hash_password(PASSWORD)
    return [Put(User("ann@pve", password_hash=hashed)), Put(AclEntry("/vms", "user", "ann@pve", "PVEVMAdmin"))]


@pytest.fixture(scope="module")
async def server() -> AsyncIterator[Serving]:
    people = settling(await with_password(), person("eve@pve"))
    async with (
        Serving.of(site(vm(100, "web")), prepare=people) as server,
        SandboxedAgent(server.folder / "100.qga", name="web"),
    ):
        yield server


def connect(server: Serving, **credentials: str) -> Any:
    """proxmoxer, trusting the server's certificate."""
    return ProxmoxAPI(
        "127.0.0.1", port=server.port, verify_ssl=str(server.folder / "state" / "server.pem"), **credentials
    )


def with_token(server: Serving) -> Any:
    user, _, token = server.token.partition("!")
    name, _, secret = token.partition("=")
    return connect(server, user=user, token_name=name, token_value=secret)


def by_password(server: Serving) -> Any:
    return connect(server, user="ann@pve", password=PASSWORD)


@pytest.mark.agent
@pytest.mark.parametrize("login", [with_token, by_password])
async def test_a_guest_is_worked_in(server: Serving, login: Callable[[Serving], Any]) -> None:
    def work() -> dict[str, Any]:
        agent = login(server).nodes("pve1").qemu(100).agent
        agent("file-write").post(file="/root/from-proxmoxer", content="héllo\n")
        pid = agent("exec").post(command=["/bin/cat", "/root/from-proxmoxer"])["pid"]
        status: dict[str, Any] = {"exited": 0}
        while not status["exited"]:
            status = agent("exec-status").get(pid=pid)
        return {
            "ping": agent("ping").post(),
            "name": agent("get-host-name").get(),
            "read": agent("file-read").get(file="/root/from-proxmoxer"),
            "status": status,
        }

    found = await asyncio.to_thread(work)

    assert found["ping"] == {"result": {}}
    assert found["name"] == {"result": {"host-name": "web"}}
    assert found["read"]["content"].encode("latin-1") == "héllo\n".encode("latin-1")
    assert found["status"]["out-data"] == found["read"]["content"]
    assert found["status"]["exitcode"] == 0


@pytest.mark.agent
async def test_its_errors_carry_status_and_reason(server: Serving) -> None:
    def refused() -> ResourceException:
        eve = connect(server, user="eve@pve", token_name="tok", token_value=SECRET)
        with pytest.raises(ResourceException) as error:
            eve.nodes("pve1").qemu(100).agent("get-osinfo").get()
        return error.value

    error = await asyncio.to_thread(refused)

    assert error.status_code == 403
    assert "Permission check failed (/vms/100, VM.GuestAgent.Audit|VM.GuestAgent.Unrestricted)" in str(error)


@pytest.mark.agent
async def test_users_and_tokens_are_managed_with_it(server: Serving) -> None:
    def work() -> tuple[Any, list[str]]:
        api = with_token(server)
        api.access.users.post(userid="made@pve", comment="by proxmoxer")
        token = api.access.users("made@pve").token("job").post(privsep=0)
        api.access.acl.put(path="/vms/100", roles="PVEVMUser", users="made@pve")
        job = connect(server, user="made@pve", token_name="job", token_value=token["value"])
        seen = [vm["name"] for vm in job.nodes("pve1").qemu.get()]
        api.access.users("made@pve").delete()
        with pytest.raises(ResourceException, match="401"):
            job.version.get()
        return token, seen

    token, seen = await asyncio.to_thread(work)

    assert token["full-tokenid"] == "made@pve!job"
    assert seen == ["web"]


@pytest.mark.slow
async def test_a_wrong_password_is_its_authentication_error(server: Serving) -> None:
    def login() -> None:
        with pytest.raises(AuthenticationError):
            connect(server, user="ann@pve", password="wrong")

    await asyncio.to_thread(login)
