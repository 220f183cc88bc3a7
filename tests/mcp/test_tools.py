"""The tools, called by the official SDK's client over standard input and output, over every way to a real agent."""

import asyncio
import base64
import json
import os
import re
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from assistants import ALL, Assistant, assistant, text_of
from freezes import FrozenGuest
from mcp import MCPError
from mcp_types import ResourceTemplateReference
from waiting import until
from ways import Target

from guestwire.client.generate import guest_methods
from guestwire.contract import Level, Origin
from guestwire.contract.registry import ENDPOINTS
from guestwire.mcp.all_tools import TOOLS
from guestwire.mcp.prompts import PROMPTS
from guestwire.testing import CLOSE, Exchange, FakeGuest, SandboxedAgent
from guestwire.testing.fake import Action

pytestmark = pytest.mark.agent

KEPT_NAMES = {"ping", "get_osinfo", "network_get_interfaces", "get_fsinfo", "exec", "exec_status"}


async def test_every_endpoint_that_an_agent_in_a_sandbox_has_works_as_a_tool(target: Target, tmp_path: Path) -> None:
    async with assistant(tmp_path, target.options, *ALL) as ai:
        for name in (
            "ping", "get_osinfo", "get_host_name", "get_time", "get_timezone", "get_users", "get_vcpus", "get_fsinfo", "info",
            "network_get_interfaces", "agent_index", "fsfreeze_status",
        ):  # fmt: skip
            assert await ai.did(name, guest="web")
        assert (await ai.did("get_host_name", guest="web"))["host-name"] == target.host_name
        await ai.did("file_write", guest="web", file="/root/written", content="grüße\n")
        assert (target.agent.home / "written").read_text() == "grüße\n"
        assert (await ai.did("file_read", guest="web", file="/root/written"))["content"] == "grüße\n"
        read = await ai.did("file_read", guest="web", file="/root/written", decode=False)
        assert base64.b64decode(read["content"]) == "grüße\n".encode()
        pid = (await ai.did("exec", guest="web", command=["cat"], input_data="hé"))["pid"]
        while not (state := await ai.did("exec_status", guest="web", pid=pid))["exited"]:
            pass
        assert (state["exitcode"], state["out-data"]) == (0, "hé")


async def test_tools_made_for_the_job(target: Target, tmp_path: Path) -> None:
    exchange = tmp_path / "exchange"
    exchange.mkdir()
    async with assistant(tmp_path, target.options, "--allow", "all", "--copy-folder", str(exchange)) as ai:
        ran = await ai.did("run_command", guest="web", command=["sh", "-c", "cat; pwd; echo $A >&2; exit 3"], input="hé", env=["A=b"], cwd="/usr")  # fmt: skip
        assert (ran["exit_code"], ran["stdout"], ran["stderr"]) == (3, "hé/usr\n", "b\n")
        written = await ai.did("write_text_file", guest="web", path="/root/conf", content="a\nb\n")
        assert (written["bytes"], written["created"]) == (4, True)
        written = await ai.did("write_text_file", guest="web", path="/root/conf", content="a\nc\n", backup=True)
        assert "-b\n+c" in written["diff"]
        assert (target.agent.home / Path(written["backup"]).name).read_text() == "a\nb\n"
        (target.agent.home / "linked").unlink(missing_ok=True)
        (target.agent.home / "linked").symlink_to("conf")
        await ai.did("write_text_file", guest="web", path="/root/linked", content="a\nd\n")
        assert (target.agent.home / "linked").readlink() == Path("conf")
        assert (target.agent.home / "conf").read_text() == "a\nd\n"
        names = [one["name"] for one in (await ai.did("list_directory", guest="web", path="/root"))["entries"]]
        assert {"conf", Path(written["backup"]).name} <= set(names)
        (exchange / "there").write_bytes(bytes(range(256)) * 1000)
        copied = await ai.did("copy_file", guest="web", direction="to_guest", local="there", path="/root/there")
        assert copied["bytes"] == 256_000
        await ai.did("copy_file", guest="web", direction="to_guest", local="there", path="/root/linked")
        assert (target.agent.home / "linked").readlink() == Path("conf")
        assert (target.agent.home / "conf").read_bytes() == (exchange / "there").read_bytes()
        await ai.did("copy_file", guest="web", direction="from_guest", local="back", path="/root/there")
        assert (exchange / "back").read_bytes() == (exchange / "there").read_bytes()
        steps = (await ai.did("diagnose", guest="web"))["steps"]
        assert {"step": "agent", "result": "ok", "found": "it answers", "next": None} in steps


async def test_what_a_command_writes_is_progress_while_it_runs(target: Target, tmp_path: Path) -> None:
    texts: list[str] = []

    async def listening(progress: float, total: float | None, message: str | None) -> None:  # noqa: ARG001  # the SDK names them
        texts.append(message or "")
        if "first" in "".join(texts):
            (target.agent.home / "go-on").touch()  # it does not come at the end

    program = "read a; printf 'first \\033[31m%s\\n' $a; while [ ! -e /root/go-on ]; do sleep 0.1; done; echo odd >&2; echo last; exit 3"
    async with assistant(tmp_path, target.options, "--allow", "all") as ai:
        words = {"guest": "web", "command": ["sh", "-c", program], "input": "word\n", "seconds": 30}
        result = await ai.client.call_tool("run_command", words, progress_callback=listening)
    (target.agent.home / "go-on").unlink()

    ran = result.structured_content or {}
    assert (ran["exit_code"], ran["stderr"]) == (3, "odd\n")
    assert ran["stdout"].endswith("word\nlast\n")
    assert any("first \\x1b[31mword" in text for text in texts)  # shown as data


async def test_a_log_is_followed_for_a_bounded_time(target: Target, tmp_path: Path) -> None:
    log = target.agent.home / "log"
    log.write_text("".join(f"line {number}\n" for number in range(30)))

    seen: list[str] = []

    async def listening(progress: float, total: float | None, message: str | None) -> None:  # noqa: ARG001  # the SDK names them
        if message and not seen:
            with log.open("a") as file:
                file.write("fresh\x1b[6n\n")
        seen.append(message or "")

    async with assistant(tmp_path, target.options, "--allow", "all") as ai:
        words = {"guest": "web", "file": "/root/log", "lines": 2, "seconds": 6}
        read = (await ai.client.call_tool("follow_log", words, progress_callback=listening)).structured_content or {}
        said = await ai.refused("follow_log", guest="web", file="/root/no-log", seconds=4)
        left = await ai.did("run_command", guest="web", command=["sh", "-c", "pgrep tail; true"])
    log.unlink()

    assert read["text"] == "line 28\nline 29\nfresh\\x1b[6n\n"
    assert "there is no such log" in said
    assert left.get("stdout", "") == ""


@pytest.mark.parametrize("ends", [False, True])
async def test_a_command_that_is_cancelled_ends_where_the_policy_says_so(
    agent: SandboxedAgent, tmp_path: Path, *, ends: bool
) -> None:
    (tmp_path / "policy.toml").write_text(f'allow = ["all"]\n[limits]\ncancelled_ends = {str(ends).lower()}\n')
    (agent.home / "pid").unlink(missing_ok=True)

    async def listening(progress: float, total: float | None, message: str | None) -> None:
        pass

    options = ["--host", f"unix:{agent.socket}"]
    async with assistant(tmp_path, options, "--policy", str(tmp_path / "policy.toml")) as ai:
        words = {"guest": "web", "command": ["sh", "-c", "echo $$ >/root/pid; exec sleep 20"]}
        call = asyncio.create_task(ai.client.call_tool("run_command", words, progress_callback=listening))
        await until(lambda: (agent.home / "pid").exists() and bool((agent.home / "pid").read_text()), 10)
        pid = (agent.home / "pid").read_text().strip()
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)
        async with asyncio.timeout(10):
            while True:
                alive = (await ai.did("run_command", guest="web", command=["kill", "-0", pid])).get("exit_code") == 0
                if alive is not ends:
                    break
                await asyncio.sleep(0.1)
        if not ends:
            await asyncio.sleep(1)
            assert (await ai.did("run_command", guest="web", command=["kill", pid]))["exit_code"] == 0


async def test_a_long_command_tells_that_it_goes_on_and_one_that_is_too_long_is_left_with_its_pid(
    target: Target, tmp_path: Path
) -> None:
    told: list[tuple[float, float | None]] = []

    async def telling(progress: float, total: float | None, message: str | None) -> None:  # noqa: ARG001  # the SDK names them
        told.append((progress, total))

    async with assistant(tmp_path, target.options, "--allow", "all", "--tools", "every") as ai:
        words = {"guest": "web", "command": ["sleep", "2.5"], "seconds": 2}
        result = await ai.client.call_tool("run_command", words, progress_callback=telling)
        pid = (result.structured_content or {})["still_running"]
        while not (await ai.did("exec_status", guest="web", pid=pid))["exited"]:
            await asyncio.sleep(0.1)

    assert told[0] == (1, 2)


async def test_a_copy_tells_how_far_it_is(target: Target, tmp_path: Path) -> None:
    (tmp_path / "large").write_bytes(bytes(3_000_000))
    told: list[tuple[float, float | None]] = []

    async def telling(progress: float, total: float | None, message: str | None) -> None:  # noqa: ARG001  # the SDK names them
        told.append((progress, total))

    async with assistant(tmp_path, target.options, "--allow", "files", "--copy-folder", str(tmp_path)) as ai:
        words = {"guest": "web", "direction": "to_guest", "local": "large", "path": "/root/large"}
        assert not (await ai.client.call_tool("copy_file", words, progress_callback=telling)).is_error

    assert told[-1] == (3_000_000, 3_000_000)
    assert told == sorted(told)


async def test_lines_of_a_text_file(target: Target, tmp_path: Path) -> None:
    (target.agent.home / "log").write_text("".join(f"line {number}\n" for number in range(1, 30_001)))
    async with assistant(tmp_path, target.options, "--allow", "files") as ai:
        first = await ai.did("read_text_file", guest="web", path="/root/log", lines=2)
        assert (first["text"], first["from_line"], first["next_line"]) == ("line 1\nline 2\n", 1, 3)
        middle = await ai.did("read_text_file", guest="web", path="/root/log", from_line=20_000, lines=1)
        assert middle["text"] == "line 20000\n"
        last = await ai.did("read_text_file", guest="web", path="/root/log", tail=2)
        assert last["text"] == "line 29999\nline 30000\n"
        found = await ai.did("read_text_file", guest="web", path="/root/log", search="line 2999")
        assert found["line_numbers"] == [2999, *range(29_990, 30_000)]


UMLAUTS = "grün\nblau\n"


WORDS: list[tuple[bytes, str | None, dict[str, Any]]] = [
    (UMLAUTS.encode(), None, {"line_ends": "lf"}),
    (b"\xef\xbb\xbf" + UMLAUTS.encode(), None, {"byte_order_mark": True}),
    (UMLAUTS.replace("\n", "\r\n").encode(), None, {"line_ends": "crlf"}),
    (UMLAUTS.encode("utf-16"), None, {"encoding": "utf-16-le", "byte_order_mark": True}),
    (("\ufeff" + UMLAUTS.replace("\n", "\r\n")).encode("utf-16-be"), None, {"encoding": "utf-16-be", "line_ends": "crlf"}),
    (UMLAUTS.encode("latin-1"), "iso-8859-1", {"encoding": "iso-8859-1"}),
    (UMLAUTS.replace("\n", "\r\n").encode("cp850"), "cp850", {"encoding": "cp850", "line_ends": "crlf"}),
    ("世界 grün\n世\n".encode("gb18030"), "gb18030", {"encoding": "gb18030"}),
    (b"gr\xc3\xbcn no line end", None, {}),
]  # fmt: skip
"""Files, how they are encoded where that has to be said, and what is said of them."""


async def test_a_word_is_changed_and_no_other_byte(target: Target, tmp_path: Path) -> None:
    file = target.agent.home / "text"
    async with assistant(tmp_path, target.options, "--allow", "files") as ai:
        for data, encoding, facts in WORDS:
            file.write_bytes(data)
            named = {"guest": "web", "path": "/root/text"} | ({"encoding": encoding} if encoding else {})
            found = await ai.did("read_text_file", **named)
            last = await ai.did("read_text_file", **named, tail=1)
            done = await ai.did("write_text_file", **named, content=found["text"].replace("grün", "green"))

            codec = found.get("encoding", "utf-8")
            assert file.read_bytes() == data.replace("grün".encode(codec), "green".encode(codec))
            assert facts.items() <= found.items() | {("line_ends", "lf")}, data
            assert "note" not in found, data
            assert found["text"].endswith(last["text"]), data
            assert "green" in done["diff"], data


NO_TEXTS = [
    (UMLAUTS.encode("latin-1"), "gr\\xfcn", "not utf-8", "the file has bytes that no text shows as they are"),
    (b"one\r\ntwo\n", "one\\r\ntwo\n", "mixed line ends", "the file's line ends are mixed"),
    (b"one\rtwo\n", "one\\rtwo\n", "mixed line ends", "the file's line ends are mixed"),
    (b"\x1b[31mred\n", "\\x1b[31mred\n", "can't be seen", "shown written out (U+001B as \\x1b)"),
    (b"a\0b\n", "a\\x00b\n", "not utf-8", "shown written out (U+0000 as \\x00)"),
    ("a\u200db\n".encode(), "a\\u200db\n", "can't be seen", "shown written out (U+200D as \\u200d)"),
    ("a\xa0b\\xa0c\n".encode(), "a\\xa0b\\xa0c\n", "can't be seen", "shown written out (U+00A0 as \\xa0)"),
]
"""Files, what is shown of them, the note beside it, and why that must not take their place."""


async def test_a_file_that_no_text_shows_as_it_is_is_not_replaced_by_that_text(target: Target, tmp_path: Path) -> None:
    file = target.agent.home / "odd"
    async with assistant(tmp_path, target.options, "--allow", "files") as ai:
        for data, shown, note, why in NO_TEXTS:
            file.write_bytes(data)
            found = await ai.did("read_text_file", guest="web", path="/root/odd")
            said = await ai.refused("write_text_file", guest="web", path="/root/odd", content=found["text"])
            assert file.read_bytes() == data
            await ai.did("write_text_file", guest="web", path="/root/odd", content="new\r\n", overwrite=True)

            assert shown in found["text"]
            assert note in found["note"], data
            assert why in said, data
            assert "overwrite=true" in said, data
            assert file.read_bytes() == b"new\r\n", data


@pytest.mark.parametrize(
    ("before", "content", "after"),
    [
        ("👩\u200d🚀 ❤\ufe0f\n", "👩\u200d🚀 ❤\ufe0f, grün\n", "👩\u200d🚀 ❤\ufe0f, grün\n"),
        ("prix\xa0: 5\n", "prix\xa0: 6\n", "prix\xa0: 6\n"),
        ("prix\xa0: 5\n", "no price\n", "no price\n"),
        (r"a = '\xa0'" + "\n\xa0\n", r"b = '\xa0'" + "\n\xa0\n", r"b = '\xa0'" + "\n\xa0\n"),
        ("one\r\ntwo\n", "one\r\n2\n", "one\r\n2\n"),
        ("plain\n", "\u200d\u2028\u202e\ufeff\n", "\u200d\u2028\u202e\ufeff\n"),
        ("\ufeffmarked\n", "\ufeffonce\n", "\ufeffonce\n"),
        ("\ufeffmarked\n", "once\n", "\ufeffonce\n"),
    ],
)
async def test_every_character_can_be_written_into_a_utf8_file(
    target: Target, tmp_path: Path, before: str, content: str, after: str
) -> None:
    file = target.agent.home / "utf8"
    file.write_bytes(before.encode())
    async with assistant(tmp_path, target.options, "--allow", "files") as ai:
        await ai.did("write_text_file", guest="web", path="/root/utf8", content=content)

    assert file.read_bytes() == after.encode()


async def test_a_diff_shows_line_ends_and_encodings(target: Target, tmp_path: Path) -> None:
    file = target.agent.home / "ends"
    file.write_bytes(b"a\r\nb\r\n")
    async with assistant(tmp_path, target.options, "--allow", "files") as ai:
        done = await ai.did("write_text_file", guest="web", path="/root/ends", content="a\nb\n", overwrite=True)
        same = await ai.did("write_text_file", guest="web", path="/root/ends", content="a\nb\n")

    assert file.read_bytes() == b"a\nb\n"
    assert "utf-8, crlf line ends becomes utf-8, lf line ends" in done["diff"]
    assert "-a\\r\n" in done["diff"]
    assert "diff" not in same


async def test_output_that_is_no_utf8_is_shown_byte_for_byte_with_a_note(target: Target, tmp_path: Path) -> None:
    cp850 = {"guest": "web", "command": ["printf", r"gr\201n"]}
    async with assistant(tmp_path, target.options, *ALL) as ai:
        raw = await ai.did("run_command", **cp850)
        read = await ai.did("run_command", **cp850, encoding="cp850")
        wide = await ai.did("run_command", guest="web", command=["printf", r"\377\376g\000\374\000"])
        pid = (await ai.did("exec", **cp850))["pid"]
        while not (state := await ai.did("exec_status", guest="web", pid=pid))["exited"]:
            await asyncio.sleep(0.05)

    assert (raw["stdout"], "not utf-8" in raw["stdout_note"]) == (r"gr\x81n", True)
    assert (read["stdout"], "stdout_note" in read) == ("grün", False)
    assert (wide["stdout"], "stdout_note" in wide) == ("gü", False)
    assert (state["out-data"], "out_data: not utf-8" in state["note"]) == (r"gr\x81n", True)


async def test_an_overview_is_short_and_whole(target: Target, tmp_path: Path) -> None:
    async with assistant(tmp_path, target.options) as ai:
        result = await ai("guest_overview", guest="web")

    found: dict[str, Any] = result.structured_content
    assert (found["host_name"], bool(found["disks"]), found.get("problems")) == (
        target.host_name,
        True,
        None,
    )
    assert len(text_of(result)) < 2500


async def test_the_lists_of_tools_are_small_and_leave_none_out(target: Target, tmp_path: Path) -> None:
    async with assistant(tmp_path, target.options, *ALL, "--copy-folder", str(tmp_path)) as ai:
        every = (await ai.client.list_tools()).tools
    async with assistant(tmp_path, target.options) as ai:
        few = (await ai.client.list_tools()).tools

    async with assistant(tmp_path, target.options, "--allow", "manage,power") as ai:
        managing = set(await ai.names()) - {tool.name for tool in few}

    assert managing == {tool.name for tool in TOOLS if tool.core and tool.level in (Level.MANAGE, Level.POWER)}
    named = {word for prompt in PROMPTS.values() for word in re.findall(r"\w+_\w+", prompt.text)}
    assert named <= {tool.name for tool in few}
    endpoints = {
        one.name.replace("-", "_") for one in guest_methods(ENDPOINTS) if one.origin is Origin.PVE and one.tool
    } | {"agent_index"}
    assert endpoints <= {tool.name for tool in every}
    assert endpoints >= KEPT_NAMES
    assert all(tool.annotations and tool.annotations.read_only_hint for tool in few)
    assert length(few) < 12_000
    assert length(every) < 40_000


def length(tools: list[Any]) -> int:
    return len(json.dumps([tool.model_dump(mode="json", by_alias=True, exclude_none=True) for tool in tools]))


async def test_resources_prompts_and_completion(target: Target, tmp_path: Path) -> None:
    (target.agent.home / "a b").write_text("content")
    async with assistant(tmp_path, target.options, "--allow", "files") as ai:
        uri = next(one.uri for one in (await ai.client.list_resources()).resources if "fake" not in one.uri)
        assert target.host_name in getattr((await ai.client.read_resource(uri)).contents[0], "text", "")
        assert len((await ai.client.list_resource_templates()).resource_templates) == 2
        file = uri.removesuffix("overview") + "file/root/a%20b"
        assert "content" in getattr((await ai.client.read_resource(file)).contents[0], "text", "")
        with pytest.raises(MCPError, match="no such resource"):
            await ai.client.read_resource("guest://web/else")
        prompts = (await ai.client.list_prompts()).prompts
        assert {prompt.name for prompt in prompts} == {
            "disk_full",
            "service_down",
            "before_snapshot",
            "hardening_check",
        }
        prompt = await ai.client.get_prompt("disk_full", {"guest": "web"})
        assert "guest web" in getattr(prompt.messages[0].content, "text", "")
        name = uri.split("/")[2]
        found = await ai.client.complete(
            ResourceTemplateReference(uri="guest://{name}/overview"), {"name": "name", "value": name[:1]}
        )
        assert name in found.completion.values


def leaves(exchange: Exchange) -> list[Action]:
    """As a guest does that shuts down, or is suspended: it says no more."""
    return [CLOSE] if exchange.request["execute"].startswith(("guest-shutdown", "guest-suspend")) else exchange.honest


@pytest.fixture
async def frozen(folder: Path) -> AsyncIterator[FakeGuest]:
    """A fake guest: the things that a sandbox must not do."""
    async with FakeGuest(folder / "fake.qga") as fake:
        fake.replies |= {"guest-fsfreeze-freeze": 2, "guest-fsfreeze-thaw": 2, "guest-fstrim": {"paths": []}}
        fake.replies["guest-set-user-password"] = {}
        fake.fault = leaves
        fake.replies |= {"guest-get-memory-blocks": [], "guest-get-memory-block-info": {"size": 1}}
        yield fake


async def test_the_rest_of_the_endpoints_reach_the_agent(frozen: FakeGuest, folder: Path, tmp_path: Path) -> None:
    async with assistant(tmp_path, ["--host", f"unix:{folder}/fake.qga"], *ALL) as ai:
        for name in (
            "fsfreeze_freeze", "fsfreeze_thaw", "fstrim", "suspend_disk", "suspend_ram", "suspend_hybrid", "shutdown",
            "get_memory_blocks", "get_memory_block_info",
        ):  # fmt: skip
            await ai.did(name, guest="fake")
            assert f"guest-{name.replace('_', '-')}" in frozen.names()
        await ai.did("set_user_password", guest="fake", username="root", password="geheimnis-ö")

    assert "geheimnis" not in (tmp_path / "records.jsonl").read_text()


async def test_a_freeze_that_was_lost_is_an_error_of_the_thaw(folder: Path, tmp_path: Path) -> None:
    async with FakeGuest(folder / "fake.qga") as fake, assistant(tmp_path, ["--host", f"unix:{fake.path}"], *ALL) as ai:
        FrozenGuest(fake, 3, 0, 3)
        await ai.did("fsfreeze_freeze", guest="fake")
        said = await ai.refused("fsfreeze_thaw", guest="fake")
        await ai.did("fsfreeze_freeze", guest="fake")
        await ai.did("fsfreeze_thaw", guest="fake")

    assert "of 3 frozen file systems 0 were still frozen at the end" in said
    assert "its caller left" not in ai.errors


def child_with(argument: str) -> int:
    """The id of the process that was started here with this argument."""
    children = " ".join(path.read_text() for path in Path("/proc/self/task").glob("*/children")).split()
    (found,) = (pid for pid in children if argument.encode() in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0"))
    return int(found)


@pytest.mark.parametrize("end", ["input closed", "SIGTERM"])
async def test_what_an_assistant_froze_is_thawed_when_it_has_left(folder: Path, tmp_path: Path, end: str) -> None:
    async with FakeGuest(folder / "fake.qga") as fake:
        guest = FrozenGuest(fake, 2, 2)
        async with assistant(tmp_path, ["--host", f"unix:{fake.path}"], *ALL) as ai:
            await ai.did("fsfreeze_freeze", guest="fake")
            assert guest.is_frozen
            if end == "SIGTERM":
                os.kill(child_with(str(ai.path)), signal.SIGTERM)
                await until(lambda: not guest.is_frozen)

        assert not guest.is_frozen
    assert "its caller left, and its file systems were thawed" in ai.errors


async def test_a_freeze_under_way_is_thawed_when_the_server_is_told_to_end(folder: Path, tmp_path: Path) -> None:
    async with FakeGuest(folder / "fake.qga") as fake:
        guest = FrozenGuest(fake, 2, 2)
        fake.delay["guest-fsfreeze-freeze"] = 0.5
        async with assistant(tmp_path, ["--host", f"unix:{fake.path}"], *ALL) as ai:
            freezing = asyncio.create_task(ai.did("fsfreeze_freeze", guest="fake"))
            await until(lambda: "guest-fsfreeze-freeze" in fake.names())
            os.kill(child_with(str(ai.path)), signal.SIGTERM)
            await until(lambda: "guest-fsfreeze-thaw" in fake.names() and not guest.is_frozen)
            freezing.cancel()
            await asyncio.gather(freezing, return_exceptions=True)


async def test_a_freeze_whose_thaw_failed_is_thawed_when_the_assistant_left(folder: Path, tmp_path: Path) -> None:
    async with FakeGuest(folder / "fake.qga") as fake:
        guest = FrozenGuest(fake, 2, *["it stays frozen"] * 5, 2)
        async with assistant(tmp_path, ["--host", f"unix:{fake.path}"], *ALL) as ai:
            await ai.did("fsfreeze_freeze", guest="fake")
            said = await ai.refused("fsfreeze_thaw", guest="fake")
            assert guest.is_frozen

        assert not guest.is_frozen
    assert "may still be frozen" in said


async def test_each_call_leaves_a_line_without_secrets_and_content(target: Target, tmp_path: Path) -> None:
    async with assistant(tmp_path, target.options, *ALL) as ai:
        await ai.did("run_command", guest="web", command=["cat"], input="planted-input", env=["A=planted-env"])
        await ai.did("write_text_file", guest="web", path="/root/r", content="planted-content")
        await ai.refused("file_read", guest="web", file="/no/such")
        records = ai.records

    vmid = records[0]["vmid"]
    assert vmid == 100 or "qemu:" in target.options[1]  # libvirt has no ids
    assert [(one["tool"], one["outcome"], one["vmid"]) for one in records] == [
        ("run_command", "ok", vmid), ("write_text_file", "ok", vmid), ("file_read", "failed", vmid)
    ]  # fmt: skip
    assert records[0]["parameters"]["command"] == ["cat"]
    assert records[1]["parameters"]["content-size"] == 15
    assert records[0]["client"].startswith("mcp ")
    assert "planted" not in ai.path.read_text()
    assert ai.path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    ("line", "number", "code"),
    [
        ('{"jsonrpc":"2.0","id":5,"method":123}', 5, -32600),
        ('{"jsonrpc":"2.0","id":"a","method":"tools/list","params":"x"}', "a", -32600),
        ('{"jsonrpc":"2.0","id":1,"meth', None, -32700),
        ("[]", None, -32600),
        ('{"id":7,"method":"x"}', 7, -32600),
        (b"\xff\xfe", None, -32700),
        ('{"jsonrpc":"2.0","id":null,"method":"ping"}', None, -32600),
        ('{"jsonrpc":"2.0","id":1.5,"method":"ping"}', None, -32600),
        ('{"jsonrpc":"2.0","id":true,"method":"ping"}', None, -32600),
        ('{"jsonrpc":"2.0","id":[1],"method":"notifications/initialized"}', None, -32600),
        ('{"jsonrpc":"2.0","id":"\\ud800","method":"ping"}', None, -32600),
        (r'{"jsonrpc":"2.0","id":8,"method":"tools/call","params":{"name":"ping","arguments":{"guest":"\ud800"}}}', 8, -32600),
        (b'{"jsonrpc":"2.0","id":9,"method":"tools/call","params":{"name":"gr\xfcn"}}', 9, -32600),
    ],
)  # fmt: skip
async def test_what_is_no_message_is_answered_with_an_error(
    folder: Path, tmp_path: Path, line: str | bytes, number: int | str | None, code: int
) -> None:
    words = ["-m", "guestwire", "--host", f"unix:{folder}/none.qga", "mcp", "--records", str(tmp_path / "records")]
    process = await asyncio.create_subprocess_exec(
        sys.executable, *words, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdin
    assert process.stdout
    process.stdin.write((line.encode() if isinstance(line, str) else line) + b"\n")
    async with asyncio.timeout(60):
        answer = json.loads(await process.stdout.readline())
        process.stdin.close()
        await process.wait()

    assert (answer["id"], answer["error"]["code"]) == (number, code)
    assert process.returncode == 0


async def test_a_host_that_can_not_be_reached_is_said_and_used_once_it_is_back(folder: Path, tmp_path: Path) -> None:
    async with assistant(tmp_path, ["--host", f"unix:{folder}/fake.qga"]) as ai:
        assert "ping" in await ai.names()
        said = await ai.refused("ping", guest="fake")
        assert "fake" in said
        assert "Traceback" not in said
        async with FakeGuest(folder / "fake.qga"):
            await until_answers(ai)


async def until_answers(ai: Assistant) -> None:
    for _ in range(100):
        if not (await ai("ping", guest="fake")).is_error:
            return
    await ai.did("ping", guest="fake")
