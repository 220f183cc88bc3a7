"""Terminals where the QMP socket is another program's: the guest is not made to look for a port that does not come."""

import socket
from pathlib import Path
from typing import Any

import pytest

from guestwire import connect
from guestwire.streams import relay, relay_process
from guestwire.streams.remote_process import Exit, WindowSize
from guestwire.testing import SandboxedAgent

pytestmark = pytest.mark.agent


async def test_the_second_terminal_starts_at_once_where_qmp_says_nothing(
    agent: SandboxedAgent, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[str] = []
    starting = relay.starting

    def note(*arguments: Any, port: str = "", **others: Any) -> Any:
        given.append(port)
        return starting(*arguments, port=port, **others)

    monkeypatch.setattr(relay_process, "starting", note)
    with socket.socket(socket.AF_UNIX) as qmp:
        qmp.bind(str(folder / "vm.qmp"))
        qmp.listen()
        async with await connect(f"unix:{agent.socket}?qmp={folder}/vm.qmp") as host:
            guest = await host.guest("web")
            for _ in range(3):
                async with guest.start(["sh", "-c", "exit 7"], tty=WindowSize(24, 80)) as process:
                    assert await process.wait() == Exit(code=7)

    assert given[1:] == ["", ""]  # the first one finds it out
