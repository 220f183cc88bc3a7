"""docs/recipes.md, the hook of vzdump: called as PVE::VZDump calls it, with what Proxmox VE's API has and no more.

vzdump itself is not in Debian. Its order of phases for a VM in the mode "snapshot", and the environment, empty but for these
names, are those of `exec_backup_task` and `run_hook_script` there; freeze and thaw come in between, in `archive`.
"""

import asyncio
import tempfile
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from calling import site
from recording import PATH, RECIPES, Recorder, by_server, tool
from serving import Serving

from devtools.guests import Machine

pytestmark = pytest.mark.guest

BEFORE_THE_FREEZE = ("backup-start", "pre-stop", "pre-restart", "post-restart")
STOPPED = 101
RIGHTS = (
    "role add Hook --privs VM.Audit,VM.GuestAgent.FileSystemMgmt",
    "user add backup@pve",
    "acl add /vms Hook --user backup@pve",
    "token add backup@pve hook --no-privsep --out",
)
"""As the page says."""


@dataclass
class Vzdump:
    """Calls the hook."""

    hook: Path
    server: Serving

    def configure(self, lease: int) -> None:
        """Writes the hook's settings."""
        reach = " ".join(
            f"{key}={value}" for key, value in by_server(self.server).items() if key.startswith("GUESTWIRE_")
        )
        settings = f"export PATH={PATH} {reach}\nLEASE={lease} WITHOUT_AGENT='103 104' RUN={self.hook.parent}\n"
        self.hook.with_name(f"{self.hook.name}.conf").write_text(settings)

    async def phase(self, name: str, vmid: int = 100, *, mode: str = "snapshot", kind: str = "qemu") -> tuple[int, str]:
        """Its exit code, and what it says."""
        own = {"STOREID": "local", "DUMPDIR": "/var/lib/vz/dump", "VMTYPE": kind, "HOSTNAME": "web"}
        return await tool(self.hook, name, mode, str(vmid), env=own)

    async def phases(self, *names: str) -> None:
        """Those that must succeed."""
        for name in names:
            code, output = await self.phase(name)
            assert code == 0, (name, output)

    async def guestwire(self, *words: str) -> int:
        """The exit code of a command, as what vzdump itself does over QMP."""
        return (await tool("guestwire", *words, env=by_server(self.server)))[0]


@pytest.fixture(scope="module")
async def vzdump(machine: Machine) -> AsyncIterator[Vzdump]:
    vms = f"""
[[vm]]
vmid = 100
agent = "unix:{machine.agent_socket}"
qmp = "unix:{machine.qmp_socket}"
[[vm]]
vmid = {STOPPED}
agent = "unix:{{folder}}/none.qga"
running = false
"""
    async with Serving.of(site(vms), limited=True) as server:
        with tempfile.TemporaryDirectory(prefix="gw-") as name:
            hook = Path(name) / "vzdump_hook.sh"
            hook.symlink_to(RECIPES / hook.name)
            for line in RIGHTS:
                words = [*line.split(), *([str(hook.with_name("token"))] if line.endswith("--out") else [])]
                code, output = await tool("guestwire", "access", "--state-dir", str(server.folder / "state"), *words)
                assert code == 0, output
            found = Vzdump(hook, server)
            found.configure(lease=60)
            yield found


def guards(vzdump: Vzdump) -> list[Path]:
    return list(vzdump.hook.parent.glob("guestwire-vzdump-*"))


async def test_a_backup_goes_through_all_phases(vzdump: Vzdump, machine: Machine) -> None:
    for phase in ("job-init", "job-start"):
        assert await tool(vzdump.hook, phase, env={"STOREID": "local"}) == (0, "")
    await vzdump.phases(*BEFORE_THE_FREEZE)
    (guard,) = guards(vzdump)
    pid = guard.read_text().strip()
    assert Path("/proc", pid).exists()
    assert await vzdump.guestwire("freeze", "--yes", "100") == 0
    assert await vzdump.guestwire("thaw", "100") == 0
    await vzdump.phases("backup-end", "log-end")

    assert guards(vzdump) == []
    async with asyncio.timeout(10):
        while Path("/proc", pid).exists():
            await asyncio.sleep(0.02)
    async with Recorder(machine.shell) as recorder:
        await recorder.goes_on()


async def test_what_a_killed_vzdump_left_frozen_is_thawed(vzdump: Vzdump, machine: Machine) -> None:
    vzdump.configure(lease=2)
    async with Recorder(machine.shell) as recorder:
        await vzdump.phases("post-restart")
        assert await vzdump.guestwire("freeze", "--yes", "100") == 0
        await recorder.goes_on()
    async with asyncio.timeout(10):
        while guards(vzdump):
            await asyncio.sleep(0.02)
    assert await vzdump.guestwire("ping", "100") == 0
    vzdump.configure(lease=60)


async def test_a_guest_that_is_still_frozen_at_the_end_is_thawed_and_its_backup_is_an_error(
    vzdump: Vzdump, machine: Machine
) -> None:
    async with Recorder(machine.shell) as recorder:
        assert await vzdump.guestwire("freeze", "--yes", "100") == 0
        assert await vzdump.phase("backup-end") == (1, "the guest of VM 100 was still frozen; it is thawed now\n")
        await recorder.goes_on()
    await vzdump.phases("backup-abort")


async def test_there_is_no_backup_of_a_guest_that_is_frozen_already_or_can_not_be(
    vzdump: Vzdump, machine: Machine
) -> None:
    assert await vzdump.guestwire("freeze", "--yes", "100") == 0
    assert await vzdump.phase("backup-start") == (1, "VM 100 is frozen already: no backup\n")
    assert await vzdump.guestwire("thaw", "100") == 0

    await machine.pause_agent()
    try:
        code, output = await vzdump.phase("backup-start")
    finally:
        await machine.resume_agent()
    assert code != 0
    assert output.startswith("guestwire: guest 100 on ")
    assert await vzdump.guestwire("wait", "100") == 0
    await vzdump.phases("backup-start")


async def test_other_vms_are_left_alone(vzdump: Vzdump) -> None:
    for phase in (*BEFORE_THE_FREEZE, "backup-end"):
        assert await vzdump.phase(phase, STOPPED) == (0, ""), phase
        assert await vzdump.phase(phase, 103) == (0, "")
        assert await vzdump.phase(phase, kind="lxc") == (0, "")
        assert await vzdump.phase(phase, mode="stop") == (0, "")
    assert guards(vzdump) == []
