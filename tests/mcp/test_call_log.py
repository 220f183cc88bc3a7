"""The record of each call, where the file gives trouble."""

import asyncio
import json
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from assistants import assistant
from serving import Serving
from ways import options_for

from guestwire.mcp import call_log
from guestwire.mcp.call_log import Records


def lines(path: Path) -> list[int]:
    return [json.loads(line)["n"] for line in path.read_text().splitlines()]


async def test_servers_that_share_a_file_move_it_away_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(call_log, "LARGEST", 1000)
    for turn in range(20):
        path = tmp_path / f"{turn}.jsonl"
        path.write_text('{"n": -1}\n' * 101)
        servers = [Records(path) for _ in range(8)]
        path.with_name(f"{path.name}.1").unlink()
        path.write_text('{"n": -1}\n' * 101)

        await asyncio.gather(*(server.write({"n": number}) for number, server in enumerate(servers)))

        assert sorted(lines(path)) == list(range(8))
        assert lines(path.with_name(f"{path.name}.1")) == [-1] * 101


async def test_refused_calls_push_no_record_of_what_was_done_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(call_log, "LARGEST", 1000)
    records = call_log.CallRecords(tmp_path / "mcp.jsonl")
    await records.write({"n": 1})
    for number in range(500):
        await records.refused.write({"n": number})

    assert lines(tmp_path / "mcp.jsonl") == [1]
    assert lines(tmp_path / "mcp.refused.jsonl")[-1] == 499
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mcp.jsonl", "mcp.refused.jsonl", "mcp.refused.jsonl.1"]


LIMITED = """\
import asyncio, sys
from pathlib import Path
from guestwire.mcp.call_log import Records

async def main():
    records = Records(Path(sys.argv[1]))
    for number in range(2):
        try:
            await records.write({"n": number, "text": "x" * 60})
        except OSError:
            print(number)

asyncio.run(main())
"""


def test_a_disk_that_is_full_leaves_no_half_of_a_line(tmp_path: Path) -> None:
    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))

    ended = subprocess.run(
        [sys.executable, "-c", LIMITED, str(tmp_path / "records")], preexec_fn=limit, capture_output=True, text=True, check=True
    )  # fmt: skip

    assert ended.stdout.split() == ["1"], ended.stderr
    assert lines(tmp_path / "records") == [0]


@pytest.mark.agent
@pytest.mark.usefixtures("served_agent")
async def test_nothing_is_done_while_calls_can_not_be_recorded(server: Serving, tmp_path: Path) -> None:
    async with assistant(tmp_path, options_for(server)) as ai:
        await ai.did("ping", guest="web")
        kept = ai.path.rename(tmp_path / "kept")
        ai.path.symlink_to("/dev/full")
        await ai.did("get_fsinfo", guest="web")
        assert "can't be recorded (No space left on device)" in await ai.refused("ping", guest="web")
        ai.path.unlink()
        kept.rename(ai.path)
        await ai.did("get_osinfo", guest="web")

        assert [record["tool"] for record in ai.records] == ["ping", "get_fsinfo", "get_osinfo"]
        assert "Traceback" not in ai.errors
