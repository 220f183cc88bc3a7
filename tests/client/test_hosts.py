"""How a guest is found: with how few requests, with which privileges, and on which of a cluster's nodes."""

import asyncio
import re
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import aclosing
from typing import Any

import pytest
from calling import NODE, site, vm
from happenings import tells_nothing
from serving import Serving
from waiting import until

from guestwire.client import Host, connect
from guestwire.client.agent_help import ChannelHelp
from guestwire.client.diagnosis import examine
from guestwire.client.errors import (
    AgentTookTooLong,
    AgentUnavailable,
    CallFailed,
    ErrorContext,
    NoSuchEndpoint,
    NoSuchGuest,
    PrivilegeMissing,
)
from guestwire.client.watching import follow
from guestwire.contract.guest_events import Event
from guestwire.streams.remote_process import RemoteProcess
from guestwire.testing import SandboxedAgent

LAST = f"GET /nodes/{NODE}/qemu/100/agent/exec-status"


@pytest.fixture(scope="module")
async def server() -> AsyncIterator[Serving]:
    vms = (vm(100, "web"), vm(101, "twin"), vm(102, "twin"), vm(103, "100"))
    async with Serving.of(site(*vms)) as server, SandboxedAgent(server.folder / "100.qga", name="web"):
        yield server


async def reached(server: Serving, token: str = "") -> Host:
    ca = str(server.folder / "state" / "server.pem")
    return await connect(f"https://127.0.0.1:{server.port}", token=token or server.token, ca=ca)


async def requests(server: Serving, before: int, last: str) -> list[str]:
    """What was asked since then, up to the last of it."""

    def logged() -> list[str]:
        return [
            f"{method} {path}" for method, path in re.findall(r" (GET|POST) '/api2/json([^']*)'", server.log[before:])
        ]

    await until(lambda: logged()[-1:] == [last])
    return logged()


@pytest.mark.agent
@pytest.mark.parametrize(
    ("name", "found_by"),
    [(f"{NODE}/100", []), (100, ["GET /nodes"]), ("100", ["GET /nodes"]), ("web", ["GET /nodes", f"GET /nodes/{NODE}/qemu"])],
)  # fmt: skip
async def test_to_run_true_takes_at_most_two_requests_more_than_the_agent_needs(
    server: Serving, name: str | int, found_by: list[str]
) -> None:
    before = len(server.log)
    async with await reached(server) as host:
        ended = await (await host.guest(name)).run(["true"])

    asked = await requests(server, before, LAST)
    assert ended.code == 0
    assert asked[: len(found_by) + 1] == [*found_by, f"POST /nodes/{NODE}/qemu/100/agent/exec"]
    # A busy machine may start it late: the agent is asked again then, and would have to be by anybody.
    assert set(asked[len(found_by) + 1 :]) == {LAST}


@pytest.mark.agent
async def test_an_id_needs_no_privilege_but_that_of_the_call(server: Serving) -> None:
    async with await reached(server) as admin:
        await admin.raw("POST", "/access/roles", roleid="Run", privs="VM.GuestAgent.Unrestricted")
        made = await admin.raw("POST", "/access/users/root@pam/token/run", privsep=1)
        await admin.raw("PUT", "/access/acl", path="/vms/100", roles="Run", tokens="root@pam!run")
    async with await reached(server, f"root@pam!run={made['value']}") as host:
        assert (await (await host.guest(100)).run(["echo", "hi"])).output == "hi\n"
        with pytest.raises(NoSuchGuest, match=r"none that you may see \(VM\.Audit\).*an id instead of a name works"):
            await host.guest("web")
        with pytest.raises(PrivilegeMissing):
            await (await host.guest(101)).ping()


async def test_an_id_is_always_an_id(server: Serving) -> None:
    async with await reached(server) as host:
        assert (await host.guest("100")).vmid == 100


async def test_an_id_that_no_vm_has_is_told_by_the_first_call(server: Serving) -> None:
    async with await reached(server) as host:
        guest = await host.guest(999)
        with pytest.raises(NoSuchGuest, match=r"guest 999 on https.*does not exist.*guestwire ls"):
            await guest.ping()


async def test_a_name_that_two_vms_have_is_an_error_that_lists_them(server: Serving) -> None:
    async with await reached(server) as host:
        with pytest.raises(NoSuchGuest, match=f"101 on node {NODE}, 102 on node {NODE}; name one by its id"):
            await host.guest("twin")


# A cluster


class Bare:
    """What these carriers do not do."""

    name = "https://pve1:8006"

    async def events(self, path: str, context: ErrorContext) -> AsyncGenerator[Event | None, None]:  # noqa: ARG002
        raise NoSuchEndpoint(context, "Method not implemented")
        yield

    async def start(
        self,
        path: str,  # noqa: ARG002
        parameters: Mapping[str, Any],  # noqa: ARG002
        secrets: Mapping[str, Any],  # noqa: ARG002
        context: ErrorContext,
    ) -> RemoteProcess:
        raise NoSuchEndpoint(context, "Method not implemented")

    may_have_ports = True

    def another(self) -> None:
        pass

    async def close(self) -> None:
        pass


class Cluster(Bare):
    """Answers lists as Proxmox VE does: three nodes, of which one is off; the caller sees some of the VMs."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    async def call(
        self,
        method: str,
        path: str,
        parameters: Mapping[str, Any],
        context: ErrorContext,
        *,
        repeatable: bool = False,
        as_bytes: bool = False,
    ) -> Any:
        self.asked.append(f"{method} {path}")
        assert (parameters, repeatable, as_bytes, context) == ({}, True, False, ErrorContext(self.name))
        return {
            "/nodes": [
                {"node": "pve1", "status": "online"},
                {"node": "pve2", "status": "online"},
                {"node": "pve3", "status": "offline"},
            ],
            "/nodes/pve1/qemu": [{"vmid": 100, "name": "web", "status": "running"}],
            "/nodes/pve2/qemu": [
                {"vmid": "200", "name": "web", "status": "stopped"},
                {"vmid": 201},
                {"vmid": 900, "name": "base", "status": "stopped", "template": 1},
            ],
        }[path]


async def test_the_guests_of_a_cluster_are_those_of_all_nodes_that_are_up() -> None:
    cluster = Cluster()

    found = await Host(cluster).guests()

    assert [(guest.vmid, guest.name, guest.status, guest.node) for guest in found] == [
        (201, "201", "unknown", "pve2"),
        (900, "base", "template", "pve2"),
        (100, "web", "running", "pve1"),
        (200, "web", "stopped", "pve2"),
    ]
    assert cluster.asked == ["GET /nodes", "GET /nodes/pve1/qemu", "GET /nodes/pve2/qemu"]


class AgentOff(Bare):
    """Proxmox VE with one VM, whose option for the agent says `agent`."""

    def __init__(self, agent: str) -> None:
        self.agent = agent

    async def call(
        self, method: str, path: str, parameters: Mapping[str, Any], context: ErrorContext, *, repeatable: bool = False,  # noqa: ARG002
        as_bytes: bool = False,  # noqa: ARG002
    ) -> Any:  # fmt: skip
        if path.endswith("/agent/ping"):
            raise AgentUnavailable(context, "No QEMU guest agent configured", 500)
        return {
            "/version": {"version": "9.2.4"},
            "/nodes": [{"node": "pve1", "status": "online"}],
            "/nodes/pve1/qemu/100/config": {"agent": self.agent, "digest": "0" * 40},
        }[path]


@pytest.mark.parametrize(
    ("agent", "advice"),
    [
        ("0", "the VM's option is off"),
        ("enabled=0,fstrim_cloned_disks=1", "the VM's option is off"),
        ("1", "give the VM an agent channel"),
    ],
)
async def test_doctor_looks_whether_the_option_for_the_agent_is_off(agent: str, advice: str) -> None:
    found = await examine(Host(AgentOff(agent)), "100")

    assert (found.steps[-1]["step"], found.steps[-1]["result"]) == ("agent", "failed")
    assert advice in found.steps[-1]["next"]
    assert found.help
    assert found.help.channel == ChannelHelp("qm set 100 --agent 1 && qm shutdown 100 && qm start 100", (), "")


class Suspending(Bare):
    """Proxmox VE whose VM gives no answer to a suspend, as one that obeys; `state` is what is said of it then, or the error of asking."""

    def __init__(self, state: dict[str, str] | Callable[[ErrorContext], CallFailed]) -> None:
        self.state = state

    async def call(
        self, method: str, path: str, parameters: Mapping[str, Any], context: ErrorContext, *, repeatable: bool = False,
        as_bytes: bool = False,  # noqa: ARG002
    ) -> Any:  # fmt: skip
        if path.startswith("/nodes/pve1/qemu/100/agent/"):
            assert (method, parameters, repeatable) == ("POST", {}, False)
            raise AgentTookTooLong(
                context, f"VM 100 qga command 'guest-{path.rpartition('/')[2]}' failed - got timeout"
            )
        assert (method, path, repeatable) == ("GET", "/nodes/pve1/qemu/100/status/current", True)
        if callable(self.state):
            raise self.state(context)
        return self.state


@pytest.mark.parametrize("mode", ["suspend_ram", "suspend_disk", "suspend_hybrid"])
@pytest.mark.parametrize(
    "state",
    [
        {"status": "running", "qmpstatus": "suspended"},
        {"status": "stopped", "qmpstatus": "stopped"},
        lambda context: PrivilegeMissing(context, "Permission check failed (/vms/100, VM.Audit)"),
    ],
    ids=["suspended", "stopped", "not to be seen"],
)
async def test_a_guest_that_gives_no_answer_for_it_sleeps_has_obeyed(
    state: dict[str, str] | Callable[[ErrorContext], CallFailed], mode: str, caplog: pytest.LogCaptureFixture
) -> None:
    guest = await Host(Suspending(state)).guest("pve1/100")

    await getattr(guest, mode)()

    noted = "it gave no answer, as a guest that obeys; VM.Audit lets see whether it did" in caplog.text
    assert noted is callable(state)


@pytest.mark.parametrize(
    "state",
    [{"status": "running", "qmpstatus": "running"}, lambda context: CallFailed(context, "Connection refused", 595)],
    ids=["running", "not known"],
)
async def test_a_guest_that_gives_no_answer_and_runs_has_not_obeyed(
    state: dict[str, str] | Callable[[ErrorContext], CallFailed],
) -> None:
    guest = await Host(Suspending(state)).guest("pve1/100")

    with pytest.raises(AgentTookTooLong, match="got timeout"):
        await guest.suspend_ram()


class HalfDown(Cluster):
    """Its second node is up and does not answer."""

    async def call(
        self,
        method: str,
        path: str,
        parameters: Mapping[str, Any],
        context: ErrorContext,
        *,
        repeatable: bool = False,
        as_bytes: bool = False,
    ) -> Any:
        if path == "/nodes/pve2/qemu":
            raise CallFailed(context, "Connection timed out", 595)
        return await super().call(method, path, parameters, context, repeatable=repeatable, as_bytes=as_bytes)


async def test_a_node_that_does_not_answer_hides_no_others(caplog: pytest.LogCaptureFixture) -> None:
    assert [guest.vmid for guest in await Host(HalfDown()).guests()] == [100]
    assert "the guests of node pve2 are not known: Connection timed out" in caplog.text


async def test_an_id_in_a_cluster_is_looked_for_on_its_nodes() -> None:
    found = await Host(Cluster()).guest(200)

    assert (found.node, str(found.context)) == ("pve2", "guest web (200) on https://pve1:8006")


async def test_with_its_node_nothing_is_asked() -> None:
    cluster = Cluster()

    found = await Host(cluster).guest("pve2/300")

    assert (found.node, found.vmid, cluster.asked) == ("pve2", 300, [])


async def test_one_that_cannot_be_seen_in_a_cluster_can_be_named_with_its_node() -> None:
    with pytest.raises(NoSuchGuest, match="pve1/300; the nodes are pve1, pve2, pve3"):
        await Host(Cluster()).guest(300)


class Flapping(Cluster):
    """Its second node does not answer while `is_down`; VM 201 is there until `is_gone`."""

    is_down = is_gone = False

    async def call(
        self,
        method: str,
        path: str,
        parameters: Mapping[str, Any],
        context: ErrorContext,
        *,
        repeatable: bool = False,
        as_bytes: bool = False,
    ) -> Any:
        if path.endswith("/agent/ping"):
            raise AgentUnavailable(context, "No QEMU guest agent configured", 500)
        if path == "/nodes/pve2/qemu" and self.is_down:
            self.asked.append(path)
            raise CallFailed(context, "Connection timed out", 595)
        found = await super().call(method, path, parameters, context, repeatable=repeatable, as_bytes=as_bytes)
        is_list = path == "/nodes/pve2/qemu" and self.is_gone
        return [vm for vm in found if vm["vmid"] != 201] if is_list else found


async def test_guests_of_a_node_that_does_not_answer_for_a_while_are_not_gone() -> None:
    cluster, is_ready = Flapping(), asyncio.Event()
    events = follow(Host(cluster), tells_nothing, is_ready.set, every=0.01)
    async with asyncio.timeout(30), aclosing(events):
        first = asyncio.ensure_future(anext(events))
        await is_ready.wait()
        cluster.is_down = True
        await until(lambda: cluster.asked.count("/nodes/pve2/qemu") >= 3)
        cluster.is_down, cluster.is_gone = False, True
        event = await first

    assert (event.kind, event.vmid) == ("guest-removed", 201)


async def test_many_events_at_once_do_not_have_the_list_asked_for_each_time() -> None:
    cluster, told = Cluster(), [Event(0.0, "guest-started", vmid, "web", "pve1", "was started") for vmid in range(500)]

    async def all_at_once() -> AsyncGenerator[Event | None, None]:
        yield None
        for event in told:
            yield event

    async with aclosing(follow(Host(cluster), all_at_once, lambda: None)) as events:
        assert [await anext(events) for _ in told] == told
    assert cluster.asked.count("GET /nodes") <= 3
