"""The command line's `main`, in this process for the many small tests, on a real store; and on a terminal, in a process of its own."""

import asyncio
import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from calling import Ended
from in_process import run

from guestwire.app.admin_token import ensure_admin_token
from guestwire.app.state import STORE
from guestwire.stores import AuditRecord, SqliteStore

TERMINAL_WITHIN = 20.0


async def command(*arguments: str, stdin: bytes = b"") -> Ended:
    """Runs `guestwire` with these arguments, without a terminal."""
    code, output, errors = await run(arguments, stdin=stdin)
    return Ended(code, output.decode(), errors.decode())


class Site:
    """A state directory as the server's first start leaves it."""

    def __init__(self, state_dir: Path) -> None:
        self.state_dir = state_dir
        self.store = state_dir / STORE

    @classmethod
    async def made(cls, state_dir: Path) -> "Site":
        store = await SqliteStore.open(state_dir / STORE)
        await ensure_admin_token(state_dir, store)
        await store.close()
        return cls(state_dir)

    async def access(self, *arguments: str, stdin: bytes = b"") -> Ended:
        """`guestwire access …`."""
        return await command("access", "--state-dir", str(self.state_dir), *arguments, stdin=stdin)

    async def done(self, *arguments: str, stdin: bytes = b"") -> str:
        """Standard output of a command that must succeed."""
        ended = await self.access(*arguments, stdin=stdin)
        assert ended.code == 0, ended
        return ended.output

    async def json(self, *arguments: str, stdin: bytes = b"") -> Any:
        """What a command that must succeed says in JSON."""
        return json.loads(await self.done(*arguments, "--json", stdin=stdin))

    async def refused(self, *arguments: str, code: int = 2, stdin: bytes = b"") -> str:
        """The one line of a command that must fail."""
        ended = await self.access(*arguments, stdin=stdin)
        assert (ended.code, ended.output, ended.errors.count("\n")) == (code, "", 1), ended
        assert ended.errors.startswith("guestwire: "), ended
        return ended.errors.removeprefix("guestwire: ").rstrip("\n")

    async def audit(self, *arguments: str) -> Ended:
        """`guestwire audit …`."""
        return await command("audit", "--state-dir", str(self.state_dir), *arguments)

    async def audit_json(self, *arguments: str) -> list[Any]:
        """The records it shows."""
        ended = await self.audit(*arguments, "--json")
        assert (ended.code, ended.errors) == (0, ""), ended
        return [json.loads(line) for line in ended.output.splitlines()]

    async def kept(self) -> Any:
        """Users, tokens, groups, roles, ACL and pools, as the store has them; audit records are left out."""
        store = await SqliteStore.open(self.store)
        found = store.snapshot
        await store.close()
        return [dict(each) for each in (found.users, found.tokens, found.groups, found.roles, found.acl, found.pools)]

    async def wrote(self, *records: AuditRecord) -> None:
        """Audit records, as the server writes them."""
        store = await SqliteStore.open(self.store)
        await store.append_audit(records)
        await store.close()


CTRL_C = "\x03"
FINGERS_TAKE = 0.5
"""Seconds. Python loses a Ctrl-C that comes between a prompt and its waiting for a line."""


async def on_terminal(
    *arguments: str,
    answers: Sequence[tuple[str, str]] = (),
    environment: Mapping[str, str] | None = None,
    columns: int = 200,
) -> Ended:
    """Runs `guestwire` on a terminal of its own. Each answer is typed when its question is there; all that is shown is `output`."""
    line = [sys.executable, "-m", "guestwire", *arguments]
    return await asyncio.to_thread(
        _on_terminal, line, answers, {**(environment or os.environ), "COLUMNS": str(columns)}
    )


def _on_terminal(line: Sequence[str], answers: Sequence[tuple[str, str]], environment: Mapping[str, str]) -> Ended:
    ours, theirs = os.openpty()
    # Whoever begins a session and opens a terminal gets it as its own: passwords are asked on that one.
    own = ["sh", "-c", 'exec <"$0" >"$0" 2>&1; exec "$@"', os.ttyname(theirs), *line]
    process = subprocess.Popen(own, start_new_session=True, env={**environment, "TERM": "xterm"})
    try:
        os.set_blocking(ours, False)
        shown = _talk(ours, process, list(answers))
    finally:
        process.kill()
        code = process.wait()
        os.close(ours)
        os.close(theirs)
    return Ended(code, shown, "")


def _talk(ours: int, process: "subprocess.Popen[bytes]", answers: list[tuple[str, str]]) -> str:
    shown, seen, until = "", 0, time.monotonic() + TERMINAL_WITHIN
    while time.monotonic() < until:
        ended = process.poll() is not None
        if select.select([ours], [], [], 0.05)[0]:
            shown += os.read(ours, 65536).decode()
        elif ended and not answers:
            return shown
        if answers and answers[0][0] in shown[seen:]:
            seen = len(shown)
            if answers[0][1] == CTRL_C:
                time.sleep(FINGERS_TAKE)
            os.write(ours, answers.pop(0)[1].encode())
    raise AssertionError(f"not ended in time; shown so far: {shown!r}; not asked: {answers}")
