"""The routes beside the agent's that clients begin with: recorded answers of Proxmox VE, for users with many and few rights.

A figure counts by its type, a message by its words. `routes.jsonl` was recorded on a node of Proxmox VE 9.2 with the
VMs and users that are made here; of VM 200 alone QEMU could be asked there.
"""

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode

import pytest
from exchanges import Answer, exchange
from serving import Serving

from guestwire.access.authentication import secret_hash
from guestwire.app.state import STORE
from guestwire.stores import AclEntry, Change, Pool, Put, Role, SqliteStore, Token, User

SECRET: Final = "7e1f5b7a-2a55-4a5e-9d59-0d6f1f0c3d11"

RUNNING: Final = {100: "ref100", 102: "noagent", **{vmid: f"ref{vmid}" for vmid in range(103, 110)}, 200: "web"}
STOPPED: Final = {101: "stopped", 110: "pooled", 111: "nested", 112: "tmpl", 113: "descr"}
WITHOUT_AGENT: Final = (102,)
TAGS: Final = {110: ["lab", "web"]}

NEEDS_QMP: Final = {
    "pid", "blockstat", "diskread", "diskwrite", "running-machine", "running-qemu", "pressurecpufull", "pressurecpusome",
    "pressureiofull", "pressureiosome", "pressurememoryfull", "pressurememorysome",
}  # fmt: skip
"""What is left out of VMs whose QEMU can't be asked, as those here: `tests/server/test_power.py` has one."""

LEFT_OUT: Final = NEEDS_QMP | {
    "proxmox-support",  # of Proxmox VE's own QEMU
    "template", "lock",  # there are none here
    "description", "mac_prefix",  # of the cluster's options
}  # fmt: skip
OF_OUR_OWN: Final = {"frozen", "guestwire"}

OTHERS: Final = ("lxc/", "storage/", "network/")
"""Resources that are not here."""

NOT_SERVED: Final = {
    "/nodes/pve1/network": "interfaces of the node are nothing that clients of guests ask for",
}
DIFFERENT: Final = {
    "/cluster/tasks": "tasks are begun by the tests of them",
    "/nodes/pve1/tasks": "the same",
    "/nodes/pve1/qemu/113/snapshot": "there are no snapshots here",
    "/nodes/pve1/lxc": "there are no containers here",
    "/nodes/pve1/storage": "no storage is managed here",
    "/storage": "the same",
    "/storage/local": "the same",
    "/cluster/ha/status/current": "nothing is highly available here",
}
"""Routes whose data differ; status, and refusals, are as recorded."""


@dataclass(frozen=True)
class Recorded:
    """One exchange."""

    user: str
    path: str
    status: int
    parameters: dict[str, Any] = field(default_factory=dict)
    reason: str = ""
    errors: dict[str, str] = field(default_factory=dict)
    data: Any = None
    total: int | None = None

    @property
    def name(self) -> str:
        return f"{self.user} {self.path}?{urlencode(self.parameters)}".removesuffix("?")


RECORDED: Final = [
    Recorded(**json.loads(line)) for line in Path(__file__).with_name("routes.jsonl").read_text("utf-8").splitlines()
]


def config(folder: Path, port: int) -> str:
    text = f'[server]\nlisten = "127.0.0.1:{port}"\nnode = "pve1"\nstate_dir = "{folder}/state"\n'
    for vmid, name in sorted({**RUNNING, **STOPPED}.items()):
        agent = "" if vmid in WITHOUT_AGENT else f'agent = "unix:{folder}/{vmid}.qga"\n'
        runs = str(vmid in RUNNING).lower()
        text += f'[[vm]]\nvmid = {vmid}\nname = "{name}"\n{agent}running = {runs}\ntags = {json.dumps(TAGS.get(vmid, []))}\n'
    return text


async def settle(state_dir: Path) -> None:
    """The users and pools of the recording."""
    kept = secret_hash(SECRET)
    users = ("root@pam", "onevm@pve", "vmaudit1@pve", "none@pve", "poolread@pve")
    changes: list[Change] = [
        *(Put(User(user)) for user in users),
        *(Put(Token(user, "tok", kept, privsep=False)) for user in users),
        Put(Pool("lab", "the lab", frozenset({100, 110}))),
        Put(Pool("lab/inner", "", frozenset({111}))),
        Put(Pool("empty", "pooladmin")),
        Put(Role("AgentAudit", frozenset({"VM.GuestAgent.Audit"}))),
        Put(Role("VMAudit", frozenset({"VM.Audit"}))),
        Put(AclEntry("/vms/200", "user", "onevm@pve", "AgentAudit")),
        Put(AclEntry("/vms/200", "user", "vmaudit1@pve", "VMAudit")),
        Put(AclEntry("/pool/lab", "user", "poolread@pve", "PVEAuditor")),
    ]
    store = await SqliteStore.open(state_dir / STORE)
    try:
        await store.change(0, changes)
    finally:
        await store.close()


@pytest.fixture(scope="module")
async def site() -> AsyncIterator[Serving]:
    async with Serving.of(config, prepare=settle) as server:
        yield server


def request(recorded: Recorded) -> bytes:
    realm = "pam" if recorded.user == "root" else "pve"
    login = f"Authorization: PVEAPIToken={recorded.user}@{realm}!tok={SECRET}\r\n" if recorded.user != "nobody" else ""
    query = f"?{urlencode(recorded.parameters)}" if recorded.parameters else ""
    return f"GET /api2/json{recorded.path}{query} HTTP/1.1\r\nHost: pve1\r\nConnection: close\r\n{login}\r\n".encode()


def identity(entry: Any) -> Any:
    if not isinstance(entry, dict):
        return entry
    for name in ("id", "vmid", "poolid", "subdir", "name", "cmd", "key"):
        if name in entry:
            return entry[name]
    return None


def check(ours: Any, theirs: Any, place: str) -> None:
    """Asserts that an answer has the places and types of the recorded one."""
    if isinstance(theirs, dict):
        assert isinstance(ours, dict), place
        assert ours.keys() - theirs.keys() <= OF_OUR_OWN, place
        assert theirs.keys() - ours.keys() <= LEFT_OUT, place
        for name in ours.keys() & theirs.keys() - {"blockstat"}:
            check(ours[name], theirs[name], f"{place}.{name}")
    elif isinstance(theirs, list) and all(isinstance(one, str) for one in theirs):
        assert [type(one) for one in ours] == [type(one) for one in theirs], place
    elif isinstance(theirs, list):
        expected = {identity(one): one for one in theirs if not str(identity(one)).startswith(OTHERS)}
        found = {identity(one): one for one in ours}
        assert found.keys() == expected.keys(), place
        for key, one in expected.items():
            check(found[key], one, f"{place}[{key}]")
    elif isinstance(theirs, int | float) and not isinstance(theirs, bool):
        assert isinstance(ours, int | float), place
        assert not isinstance(ours, bool), place
    else:
        assert type(ours) is type(theirs), place


HIDDEN: Final = ("onevm", "vmaudit1", "none")
"""Users who may not look at a pool. Proxmox VE shows them its members, where the pool is named by a parameter; guestwire does not."""

EXACT: Final = ("name", "status", "type", "vmid", "id", "tags", "pool", "qmpstatus", "agent", "online", "level")


def check_values(ours: Any, theirs: Any, place: str) -> None:
    """Asserts what is no figure to be equal."""
    if isinstance(theirs, dict):
        for name in ours.keys() & theirs.keys():
            if name in EXACT:
                assert ours[name] == theirs[name], f"{place}.{name}"
            check_values(ours[name], theirs[name], f"{place}.{name}")
    elif isinstance(theirs, list) and any(isinstance(one, dict) for one in theirs):
        known = {identity(one): one for one in theirs}
        for one in ours:
            check_values(one, known[identity(one)], f"{place}[{identity(one)}]")


def is_about_definition(path: str) -> bool:
    """A VM's configuration here has what guestwire's own file and QEMU say, and not all that Proxmox VE's has."""
    return path.endswith(("/config", "/pending")) and "/qemu/" in path


NO_SNAPSHOT: Final = "snapshot 'before-upgrade' does not exist"


def deliberately(recorded: Recorded) -> tuple[int, str] | None:
    """Status and reason, where guestwire answers otherwise."""
    if recorded.path in NOT_SERVED:
        return 501, f"Method 'GET {recorded.path}' not implemented"
    if recorded.status != 200:
        return None
    if recorded.path == "/storage/local":
        return 500, "storage 'local' does not exist"
    if recorded.path == "/pools" and recorded.parameters and recorded.user in HIDDEN:
        return 403, f"Permission check failed (/pool/{recorded.parameters['poolid']}, Pool.Audit)"
    names_snapshot = "snapshot" in recorded.parameters or "/snapshot/" in recorded.path
    return (500, NO_SNAPSHOT) if names_snapshot and recorded.path.endswith("/config") else None


@pytest.mark.parametrize("recorded", RECORDED, ids=[one.name for one in RECORDED])
@pytest.mark.slow
async def test_a_route_answers_as_proxmox_ve_does(site: Serving, recorded: Recorded) -> None:
    answer: Answer = await exchange(site.port, site.tls, request(recorded))
    if expected := deliberately(recorded):
        assert (answer.status, answer.reason) == expected
        return
    assert answer.status == recorded.status
    if recorded.status != 200:
        assert answer.reason == recorded.reason
        if recorded.errors:
            assert answer.content["errors"] == recorded.errors
        return
    data = answer.content["data"]
    assert isinstance(data, type(recorded.data))
    assert recorded.total is not None or "total" not in answer.content
    if is_about_definition(recorded.path):
        if isinstance(data, list):
            data, theirs = ({one["key"]: one["value"] for one in rows} for rows in (data, recorded.data))
        else:
            theirs = recorded.data
        assert data.keys() <= {*theirs, "net0", "tags", "agent"}
        check_values({name: data[name] for name in data.keys() & {"name", "agent"}}, theirs, recorded.path)
    elif recorded.path not in DIFFERENT:
        check(data, recorded.data, recorded.path)
        check_values(data, recorded.data, recorded.path)
