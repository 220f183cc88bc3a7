"""`python -m bench.playbooks [--repeat N]`: Ansible by our connection, against Ansible on this machine itself, and against the way of another connection.

That other one is `proxmox_qemu_api` of community.proxmox 2.1.0, which no registry has here: a connection plugin of a few
lines goes its way (half a second of sleep before each status, no pipelining, files in pieces of 45,000 bytes).
"""

import argparse
import asyncio
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.table import Table

from bench.errors import BenchError
from bench.service import Service, Vm, serve
from devtools.release import COLLECTION
from guestwire.testing.sandbox import SandboxedAgent

MIB: Final = 1024 * 1024
OURS: Final = "guestwire.guestwire.guest"
THEIRS: Final = "as_proxmox_qemu_api"

PLUGIN: Final = '''
DOCUMENTATION = """
name: as_proxmox_qemu_api
short_description: goes the way of community.proxmox.proxmox_qemu_api
description: for measuring
options: {}
"""
import base64, time
from pathlib import Path
import guestwire
from ansible.plugins.connection import ConnectionBase

class Connection(ConnectionBase):
    transport = "as_proxmox_qemu_api"
    has_pipelining = False
    default_user = "root"
    guest = None

    def _connect(self):
        if self.guest is None:
            self.host = guestwire.connect_sync()
            self.guest = self.host.guest(100)
            self._ask("POST", "ping")
            self._connected = True
        return self

    def _ask(self, method, path, **parameters):
        return self.host.raw(method, f"/nodes/{self.guest.vm.node}/qemu/100/agent/{path}", **parameters)

    def _run(self, command):
        pid = self._ask("POST", "exec", command=["/bin/sh", "-c", command])["pid"]
        while True:
            time.sleep(0.5)
            status = self._ask("GET", "exec-status", pid=pid)
            if status["exited"]:
                return status["exitcode"], status.get("out-data", "").encode(), status.get("err-data", "").encode()

    def exec_command(self, cmd, in_data=None, sudoable=True):
        super().exec_command(cmd, in_data=in_data, sudoable=sudoable)
        return self._run(cmd)

    def put_file(self, in_path, out_path):
        super().put_file(in_path, out_path)
        data, parts = Path(in_path).read_bytes(), []
        for start in range(0, len(data), 45000):
            parts.append(f"/tmp/.ansible_part_{len(parts)}")
            content = base64.b64encode(data[start : start + 45000]).decode()
            self._ask("POST", "file-write", file=parts[-1], content=content, encode=False)
        self._run(f"cat {' '.join(parts)} > {out_path}; rm -f {' '.join(parts)}")

    def fetch_file(self, in_path, out_path):
        super().fetch_file(in_path, out_path)
        content = self._ask("GET", "file-read", file=in_path)["content"]
        Path(out_path).write_bytes(content.encode("latin-1"))

    def close(self):
        self._connected, self.guest = False, None
'''

PLAYS: Final[Mapping[str, list[dict[str, Any]]]] = {
    "ping": [{"ping": {}}],
    "ten commands": [{"command": "true"}] * 10,
    "copy of 10 MiB": [{"copy": {"src": "big.bin", "dest": "/root/big-{{ 100000 | random }}.bin"}}],
    "fetch of 10 MiB": [{"fetch": {"src": "/root/source.bin", "dest": "back.bin", "flat": True}}],
}
LARGEST_MORE: Final = 0.5
"""Seconds that a ping may take more than on this machine."""

AT_MOST: Final = {"ten commands": 1 / 3, "copy of 10 MiB": 1 / 2}
"""Of the other's time."""


async def main() -> None:
    """Measures, and prints a table."""
    parser = argparse.ArgumentParser(prog="python -m bench.playbooks", description=__doc__)
    parser.add_argument("--repeat", type=int, default=3, help="times that each play runs")
    parser.add_argument("--only", choices=PLAYS, help="only this play")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="gw-") as name:
        folder = Path(name)
        async with (
            SandboxedAgent(folder / "100.qga", name="web") as agent,
            SandboxedAgent(folder / "alone.qga", name="alone"),
            serve(folder, [Vm(100, folder / "100.qga")]) as service,
        ):
            _prepare(folder, agent)
            rows = {
                play: await _row(folder, service, play, options.repeat)
                for play in PLAYS
                if options.only in {None, play}
            }
    _show(rows)


def _prepare(folder: Path, agent: SandboxedAgent) -> None:
    place = folder / "collections" / "ansible_collections" / "guestwire"
    place.mkdir(parents=True)
    (place / "guestwire").symlink_to(COLLECTION)
    (folder / "plugins").mkdir()
    (folder / "plugins" / f"{THEIRS}.py").write_text(PLUGIN)
    (folder / "big.bin").write_bytes(os.urandom(10 * MIB))
    (agent.home / "source.bin").write_bytes(os.urandom(10 * MIB))
    for play, tasks in PLAYS.items():
        (folder / f"{play}.yml").write_text(json.dumps([{"hosts": "all", "gather_facts": False, "tasks": tasks}]))


async def _row(folder: Path, service: Service, play: str, repeat: int) -> dict[str, float]:
    address, state = service.address, folder / "state"
    known = {
        "GUESTWIRE_HOST": f"https://127.0.0.1:{address.port}", "GUESTWIRE_TOKEN_FILE": str(state / "admin-token"),
        "GUESTWIRE_CA": str(state / "server.pem"),
    }  # fmt: skip
    ways = {OURS: known, "unix": known | {"GUESTWIRE_HOST": f"unix:{folder}/alone.qga"}, THEIRS: known, "local": known}
    if play == "fetch of 10 MiB":
        del ways["unix"]  # the file is in the other guest
    if play != "ping":
        del ways["local"]
    taken: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(repeat):
        for way, environment in ways.items():
            connection = OURS if way == "unix" else way
            taken[way].append(await _timed(folder, play, connection, environment))
    return {way: statistics.median(seconds) for way, seconds in taken.items()}


async def _timed(folder: Path, play: str, connection: str, environment: dict[str, str]) -> float:
    began = time.monotonic()
    (folder / "back.bin").unlink(missing_ok=True)
    variables = json.dumps(
        {"guestwire_guest": "100", "ansible_connection": connection, "ansible_python_interpreter": "/usr/bin/python3"}
    )
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "ansible", "playbook", "-i", "web,", "-e", variables, f"{play}.yml",
        cwd=folder, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        env=os.environ | environment | {
            "ANSIBLE_COLLECTIONS_PATH": str(folder / "collections"), "ANSIBLE_HOME": str(folder / "home"),
            "ANSIBLE_CONNECTION_PLUGINS": str(folder / "plugins"), "LC_ALL": "C.UTF-8",
        },
    )  # fmt: skip
    output, _ = await process.communicate()
    if process.returncode:
        raise BenchError(f"{play} by {connection}: {output.decode()[-1000:]}")
    return time.monotonic() - began


def _show(rows: dict[str, dict[str, float]]) -> None:
    table = Table("seconds, median", "guestwire, HTTPS", "guestwire, unix:", THEIRS, "local", "target")
    for play, row in rows.items():
        target = ""
        if "local" in row:
            more = row[OURS] - row["local"]
            target = f"{more:+.2f} s, at most {LARGEST_MORE:+.2f}: {_met(more <= LARGEST_MORE)}"
        elif play in AT_MOST:
            ratio = row[OURS] / row[THEIRS]
            target = f"{ratio:.2f} of it, at most {AT_MOST[play]:.2f}: {_met(ratio <= AT_MOST[play])}"
        table.add_row(
            play, *(f"{row[way]:.2f}" if way in row else "" for way in (OURS, "unix", THEIRS, "local")), target
        )
    Console(width=None if sys.stdout.isatty() else 160).print(table)


def _met(is_met: bool) -> str:  # noqa: FBT001  # the only one
    return "met" if is_met else "missed"


if __name__ == "__main__":
    asyncio.run(main())
