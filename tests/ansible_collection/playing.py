"""Ansible's own programs, in processes of their own, with the collection of this repository."""

import asyncio
import json
import os
import re
import sys
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

COLLECTION = Path(__file__).parent.parent.parent / "ansible"
CONNECTION = "guestwire.guestwire.guest"
ENDS_WITHIN = 240.0

needs_python = pytest.mark.skipif(
    not Path("/usr/bin/python3").exists(), reason="sandboxed guests have /usr of this machine, where there is no Python"
)


@dataclass(frozen=True, slots=True)
class Played:
    """How a run ended."""

    code: int
    output: str
    errors: str

    def result(self, host: str = "localhost") -> Any:
        """What a module said for a host, of `ansible HOST -m MODULE`."""
        found = re.search(rf"^{re.escape(host)} \| [A-Z!]+ => ", self.output, re.MULTILINE)
        assert found, self.text
        return json.JSONDecoder().raw_decode(self.output[found.end() :])[0]

    @property
    def text(self) -> str:
        """All that it said."""
        return f"{self.code}\n{self.output}\n{self.errors}"


class Ansible:
    """Ansible with a folder of its own: plays, results, and what it keeps."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        place = folder / "collections" / "ansible_collections" / "guestwire"
        place.mkdir(parents=True)
        (place / "guestwire").symlink_to(COLLECTION)

    async def run(self, program: str, *arguments: str, **environment: str) -> Played:
        """Runs one: `adhoc`, `playbook`, `inventory`, …"""
        known = {name: value for name, value in os.environ.items() if not name.startswith(("ANSIBLE_", "GUESTWIRE_"))}
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "ansible", program, *arguments,
            stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, cwd=self.folder,
            env=known | {
                "ANSIBLE_COLLECTIONS_PATH": str(self.folder / "collections"), "ANSIBLE_HOME": str(self.folder / "home"),
                "ANSIBLE_NOCOLOR": "1", "ANSIBLE_LOCALHOST_WARNING": "false", "LC_ALL": "C.UTF-8",
            } | environment,
        )  # fmt: skip
        try:
            async with asyncio.timeout(ENDS_WITHIN):
                output, errors = await process.communicate()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        return Played(process.returncode or 0, output.decode(), errors.decode())

    async def play(
        self, tasks: str, variables: Mapping[str, Any], *more: str, hosts: str = "web", **environment: str
    ) -> Played:
        """Runs tasks, written as YAML, in guests by our connection."""
        number = len(list(self.folder.glob("play-*.yml")))
        play = self.folder / f"play-{number}.yml"
        play.write_text("- hosts: all\n  gather_facts: false\n  tasks:\n" + textwrap.indent(tasks, "    "))
        given = json.dumps({"ansible_connection": CONNECTION, **variables})
        return await self.run("playbook", "-i", f"{hosts},", "-e", given, play.name, *more, **environment)


def variables_for(options: list[str]) -> dict[str, str]:
    """The variables of the connection for what stands before a command of `guestwire`."""
    pairs = zip(options[::2], options[1::2], strict=True)
    return {f"guestwire_{name.removeprefix('--').replace('-', '_')}": value for name, value in pairs}


def environment_for(options: list[str]) -> dict[str, str]:
    """The same as environment."""
    return {name.upper(): value for name, value in variables_for(options).items()}
