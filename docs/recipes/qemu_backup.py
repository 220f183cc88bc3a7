#!/usr/bin/env python3
"""Copies disks of a running VM, all of the same moment, at which its guest's file systems were frozen.

The guest is frozen until QEMU's backup jobs have begun, which takes well under a second: from then on QEMU saves each
block before the guest changes it. GUESTWIRE_HOST and the like say how `guestwire` reaches the guest.

A copy appears under its name when it is whole. Exit codes: 0; 7 when the freeze was lost; others are `guestwire`'s, or 1.
"""

import argparse
import contextlib
import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NoReturn, Self

OURS: Final = "guestwire-"
"""Begins the names of all jobs and nodes that this script makes in QEMU."""

PATIENCE: Final = 10.0
"""Seconds to wait for an answer from QEMU."""

BETWEEN_LOOKS: Final = 0.2


class BackupError(Exception):
    """The backup can't be made; the message says why."""


class Qmp:
    """QEMU's monitor. It serves one client at a time: the others wait."""

    def __init__(self, path: str) -> None:
        try:
            self._socket = socket.socket(socket.AF_UNIX)
            self._socket.settimeout(PATIENCE)
            self._socket.connect(path)
            self._lines = self._socket.makefile("rwb")
            self._read()
            self.execute("qmp_capabilities")
        except TimeoutError:
            raise BackupError(f"{path}: QEMU does not answer; it may be that another program is connected") from None
        except OSError as error:
            raise BackupError(f"{path}: {error.strerror}") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._lines.close()
        self._socket.close()

    def execute(self, command: str, arguments: dict[str, Any] | None = None) -> Any:
        """Runs a command; returns what it gives back."""
        self._lines.write(json.dumps({"execute": command, "arguments": arguments or {}}).encode() + b"\n")
        self._lines.flush()
        while "event" in (answer := self._read()):
            pass
        if "error" in answer:
            raise BackupError(f"QEMU's {command}: {answer['error']['desc']}")
        return answer["return"]

    def _read(self) -> dict[str, Any]:
        line = self._lines.readline()
        if not line:
            raise BackupError("QEMU has closed the connection to its monitor")
        message: dict[str, Any] = json.loads(line)
        return message


@dataclass(frozen=True)
class Copy:
    """A disk, by its name in QEMU, and the image that it is copied to; `name` is that of job and node."""

    name: str
    disk: str
    target: Path

    @property
    def partial(self) -> Path:
        """The image while it is not whole."""
        return self.target.with_name(f"{self.target.name}.partial")


def back_up(arguments: argparse.Namespace, copies: Sequence[Copy]) -> int:
    """Makes all copies; returns the exit code."""
    with Qmp(arguments.qmp) as qmp:
        if any(job["status"] != "concluded" for job in _jobs(qmp)):
            raise BackupError("another backup of this VM is under way")
        _clear(qmp)  # a backup that was killed left jobs and images behind
        images = [(copy.partial, _size(qmp, copy.disk)) for copy in copies]
    with contextlib.ExitStack() as stack:
        for image, size in images:
            stack.callback(image.unlink, missing_ok=True)
            subprocess.run(["qemu-img", "create", "-q", "-f", arguments.format, str(image), str(size)], check=True)
        stack.callback(_clear_all, arguments.qmp)
        freeze = ["guestwire", "freeze", "--lease", str(arguments.lease), arguments.guest]
        if code := _run([*freeze, "--", sys.executable, __file__, "--begin", *sys.argv[1:]]):
            return code
        _wait(arguments.qmp, len(copies))
        _clear_all(arguments.qmp)
        for copy in copies:
            if arguments.format == "qcow2":
                subprocess.run(["qemu-img", "check", "-q", str(copy.partial)], check=True)
            copy.partial.replace(copy.target)
    return 0


def begin(arguments: argparse.Namespace, copies: Sequence[Copy]) -> int:
    """Starts the jobs; the guest is frozen meanwhile."""
    # A job that is over stays until it was looked at.
    jobs = [
        {"job-id": copy.name, "device": copy.disk, "target": copy.name, "sync": "full", "auto-dismiss": False}
        for copy in copies
    ]
    with Qmp(arguments.qmp) as qmp:
        for copy in copies:
            file = {"driver": "file", "filename": str(copy.partial.resolve())}
            qmp.execute("blockdev-add", {"driver": arguments.format, "node-name": copy.name, "file": file})
        # In one transaction all disks are of the same moment.
        qmp.execute("transaction", {"actions": [{"type": "blockdev-backup", "data": job} for job in jobs]})
    return 0


def _run(command: Sequence[str]) -> int:
    """Unlike `subprocess.run` it lets the command end well when this one is ended: it thaws then."""
    with subprocess.Popen(command) as process:
        try:
            return process.wait()
        except BaseException:
            process.terminate()
            raise


def _size(qmp: Qmp, disk: str) -> int:
    for block in qmp.execute("query-block"):
        found = block.get("inserted")
        if found and disk in (block["device"], found.get("node-name")):
            return int(found["image"]["virtual-size"])
    raise BackupError(f"the VM has no disk {disk}")


def _jobs(qmp: Qmp) -> list[dict[str, Any]]:
    return [job for job in qmp.execute("query-jobs") if job["id"].startswith(OURS)]


def _wait(path: str, count: int) -> None:
    """Waits for the end of all jobs, of which there must be as many."""
    with Qmp(path) as qmp:
        jobs = _jobs(qmp)
        while any(job["status"] != "concluded" for job in jobs):
            time.sleep(BETWEEN_LOOKS)
            jobs = _jobs(qmp)
    errors = [job["error"] for job in jobs if "error" in job]
    if errors or len(jobs) != count:
        raise BackupError(f"QEMU's backup jobs: {', '.join(errors) or 'they are gone'}")


def _clear_all(path: str) -> None:
    with Qmp(path) as qmp:
        _clear(qmp)


def _clear(qmp: Qmp) -> None:
    """Ends jobs and closes images of this script's."""
    while jobs := _jobs(qmp):
        for job in jobs:
            command = "job-dismiss" if job["status"] == "concluded" else "job-cancel"
            with contextlib.suppress(BackupError):  # a job that is about to end can't be cancelled
                qmp.execute(command, {"id": job["id"]})
        time.sleep(BETWEEN_LOOKS)
    for node in qmp.execute("query-named-block-nodes"):
        if node["node-name"].startswith(OURS):
            qmp.execute("blockdev-del", {"node-name": node["node-name"]})


def _end(signum: int, _: object) -> NoReturn:
    raise SystemExit(128 + signum)


def main() -> int:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description="Copies disks of a running VM while its guest is frozen for a moment.")
    parser.add_argument("--lease", type=int, default=30, help="seconds after which the guest is thawed in any case")
    parser.add_argument("--format", choices=["qcow2", "raw"], default="qcow2", help="of the copies")
    parser.add_argument("--begin", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("guest", help="as `guestwire` knows it")
    parser.add_argument("qmp", help="a QMP socket of the VM to which no other program is connected")
    parser.add_argument("copies", metavar="DISK=TARGET", nargs="+", help="the disk's name in QEMU, and a new image's")
    arguments = parser.parse_args()
    pairs = [pair.partition("=") for pair in arguments.copies]
    if not all(disk and target for disk, _, target in pairs):
        parser.error("each copy is DISK=TARGET, as drive0=/backup/web.qcow2")
    copies = [Copy(f"{OURS}{number}", disk, Path(target)) for number, (disk, _, target) in enumerate(pairs)]
    for signum in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        if signal.getsignal(signum) is not signal.SIG_IGN:  # as `nohup` has it
            signal.signal(signum, _end)
    try:
        return begin(arguments, copies) if arguments.begin else back_up(arguments, copies)
    except (BackupError, OSError, subprocess.CalledProcessError) as error:
        print(f"{Path(__file__).name}: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
