"""`guestwire agent`: what helps with an agent that is old, switched off in part, or missing."""

import json
import re
import typing
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import click
import pytest
from calling import site, vm
from reaching import BLOCKED, WAYS, Lab, environment, guestwire
from serving import Serving
from ways import options_for

from guestwire.agent.commands import SINCE
from guestwire.agent.packages import AS_OF, NEWEST, Family
from guestwire.channels.agent_port import AGENT_PORT, LIBVIRT_CHANNEL, qemu_options
from guestwire.cli.agent_command import FAMILIES
from guestwire.cli.program import guestwire as guestwire_group
from guestwire.client.agent_help import NEEDED_BY, commands_of
from guestwire.testing import SandboxedAgent
from guestwire.testing.sandbox import HARMFUL

pytestmark = pytest.mark.agent

CONF = "/etc/qemu/qemu-ga.conf"


@pytest.fixture(scope="module", params=WAYS.values(), ids=list(WAYS))
async def lab(request: pytest.FixtureRequest) -> AsyncIterator[Lab]:
    async with request.param() as lab:
        yield lab


def listed(version: str, **commands: bool) -> dict[str, Any]:
    """The answer of guest-info."""
    names = [{"name": f"guest-{name.replace('_', '-')}", "enabled": enabled} for name, enabled in commands.items()]
    return {"version": version, "supported_commands": names}


async def test_it_says_which_commands_are_off_and_which_line_allows_them(lab: Lab) -> None:
    people = await lab("web", "agent", "web")
    found = (await lab("web", "agent", "--json", "web")).json

    assert (people.code, people.errors) == (0, "")
    assert (found["guest"], found["answers"], found["problem"], found["frozen"]) == ("web", True, None, False)
    off = [one for one in found["commands"] if one["why"] == "switched off"]
    assert {one["name"] for one in off} == {*HARMFUL, BLOCKED}
    assert {one["name"]: one["needed_by"] for one in off}[BLOCKED] == ["disks"]
    assert re.search(rf"^{BLOCKED} +switched off +disks *$", people.text, re.MULTILINE)
    policy = found["policy"]
    assert (policy["file"], policy["section"], policy["line"]) == (CONF, "[general]", "block-rpcs=")
    assert f"\n{policy['line']}\n" in people.text
    assert f"and then: {policy['restart']}\n" in people.text
    assert found["version"]["agent"] in people.text
    assert (found["install"], found["channel"]) == ([], None)


async def test_only_what_is_named_is_dropped_from_the_line(lab: Lab) -> None:
    people = await lab("web", "agent", "--allow", "disks", "--allow", "guest-set-time", "web")

    rest = ",".join(sorted(set(HARMFUL) - {"guest-set-time"}))
    assert f"\nblock-rpcs={rest}\n" in people.text
    assert "\nTo allow guest-get-disks, guest-set-time, put this line into " in people.text
    none = await lab("web", "agent", "--allow", "exec", "web")
    assert "Its policy switches none of these off." in none.text
    assert "block-rpcs" not in none.text


@pytest.mark.parametrize("system", [system for system in NEWEST if system != "windows"])
async def test_it_says_whether_the_agent_is_the_newest_of_its_system(lab: Lab, system: str) -> None:
    id_, (release, newest) = "sles" if system == "suse" else system, next(iter(NEWEST[system].items()))
    for version, state in ((newest, "newest"), ("2.0.0", "older"), ("99.0.0", "newer")):
        lab.fake.replies = {
            "guest-info": listed(version, ping=True, info=True),
            "guest-get-osinfo": {"id": id_, "version-id": release, "pretty-name": "Its Name"},
        }

        found = (await lab("fake", "agent", "--json", "fake")).json["version"]
        people = await lab("fake", "agent", "fake")

        assert (found["agent"], found["newest"], found["state"], found["as_of"]) == (version, newest, state, AS_OF)
        assert f"the newest for Its Name (as of {AS_OF})" in people.text
        assert ("next: in the guest: " in people.text) == (state == "older") == bool(found["update"])


async def test_it_says_plainly_what_is_not_known_and_takes_the_system_that_is_named(lab: Lab) -> None:
    lab.fake.replies = {
        "guest-info": listed("8.2.0", ping=True, exec=False, exec_status=False, file_open=True, file_read=True),
        "guest-get-osinfo": {"kernel-release": "6"},
    }

    people = await lab("fake", "agent", "fake")
    named = (await lab("fake", "agent", "--system", "rhel", "--json", "fake")).json

    assert "agent 8.2.0; the newest for its system is not known" in people.text
    assert f"into {CONF} of the guest, below [general]" in people.text
    assert named["policy"]["file"] == "/etc/sysconfig/qemu-ga"
    assert named["policy"]["line"] == (
        'FILTER_RPC_ARGS="--allow-rpcs=guest-exec,guest-exec-status,guest-file-open,guest-file-read,guest-ping"'
    )
    assert named["version"]["state"] == "not known"
    assert [one["system"] for one in named["install"]] == ["rhel"]


async def test_a_frozen_guest_is_not_taken_for_one_whose_policy_is_strict(lab: Lab) -> None:
    lab.fake.replies = {
        "guest-info": listed("10.0.13", ping=True, exec=False, fsfreeze_status=True), "guest-fsfreeze-status": "frozen",
    }  # fmt: skip

    people = await lab("fake", "agent", "fake")
    found = (await lab("fake", "agent", "--json", "fake")).json

    assert "its file systems are frozen" in people.text
    assert (found["frozen"], found["policy"]) == (True, None)
    assert "switched off" not in {one["why"] for one in found["commands"]}


async def test_what_a_hostile_guest_says_is_bounded_and_shown_as_data(lab: Lab) -> None:
    nasty = '\x1b[2J"; reboot #'
    commands = [{"name": f"guest-x{number}{nasty}", "enabled": False} for number in range(300)]
    lab.fake.replies = {
        "guest-info": {"version": nasty * 1000, "supported_commands": commands},
        "guest-get-osinfo": {"id": nasty, "version-id": nasty, "pretty-name": nasty * 1000},
    }

    people = await lab("fake", "agent", "fake")
    programs = await lab("fake", "agent", "--json", "fake")

    assert people.code == programs.code == 0
    assert "\x1b" not in people.text + programs.text
    assert r"\x1b[2J" in people.text
    assert max(map(len, people.text.splitlines())) < 500
    assert programs.json["policy"] is None
    assert programs.json["commands"] == []


async def test_without_an_agent_it_says_how_every_family_gets_one(lab: Lab) -> None:
    people = await lab("gone", "agent", "gone")
    programs = await lab("gone", "agent", "--json", "gone")

    assert (people.code, programs.code) == (3, 3)
    found = json.loads(programs.output)
    assert (found["answers"], found["version"], found["policy"], found["commands"]) == (False, None, None, [])
    assert found["problem"].startswith("QEMU guest agent is not running")
    assert [one["system"] for one in found["install"]] == list(FAMILIES)
    for line in (
        "apt-get install -y qemu-guest-agent",
        "dnf install -y",
        "zypper ",
        "apk add ",
        "virtio-win-guest-tools.exe",
    ):
        assert line in people.text
    assert people.text.startswith("gone: QEMU guest agent is not running")
    assert "virt-customize -a" not in people.text
    if lab.kind == "unix":
        options = qemu_options(f"{lab.folder}/gone.qga")
        assert found["channel"] == {"command": "", "qemu": list(options), "libvirt": ""}
        assert all(f"  {option}\n" in people.text for option in options)
    else:  # its host knows that it has one
        assert found["channel"] is None


@pytest.mark.parametrize("family", FAMILIES)
async def test_one_family_is_told_at_length(lab: Lab, family: str) -> None:
    people = await lab("gone", "agent", "--system", family, "gone")

    kind = "#ps1_sysnative" if family == "windows" else "#cloud-config"
    assert people.text.count("To install it in ") == 1
    assert f"\n{kind}\n" in people.text
    assert people.text.count("  virt-customize -a DISK.qcow2 ") == 1


async def test_words_that_mean_nothing_are_mistakes(lab: Lab) -> None:
    for words in (("--allow", "guest-dance"), ("--allow", "dance"), ("--allow", ""), ("--system", "beos")):
        done = await lab("web", "agent", *words, "web")

        assert done.code == 2
        assert "'guestwire agent --help'" in done.line


async def test_a_host_that_can_not_be_reached_is_its_error(lab: Lab) -> None:
    env = {**environment(lab.home), "GUESTWIRE_TOKEN": "a@b!c=d"}

    done = await guestwire("--host", "https://127.0.0.1:1", "agent", "x", env=env)

    assert done.code == 69
    assert "127.0.0.1:1" in done.line


async def test_a_server_knows_a_vm_that_has_no_channel_and_one_that_is_off(tmp_path: Path) -> None:
    bare = '[[vm]]\nvmid = 100\nname = "bare"\nrunning = true\n'
    async with Serving.of(site(bare, vm(101, "off", running="false"))) as server:
        options, env = options_for(server), environment(tmp_path)
        people = await guestwire(*options, "agent", "bare", env=env)
        programs = await guestwire(*options, "agent", "--json", "bare", env=env)
        doctor = await guestwire(*options, "doctor", "bare", env=env)
        off = await guestwire(*options, "agent", "--system", "debian", "off", env=env)

    assert (people.code, off.code) == (3, 3)
    channel = json.loads(programs.output)["channel"]
    assert channel == {
        "command": "guestwire channel add bare", "qemu": list(qemu_options("PATH")),
        "libvirt": LIBVIRT_CHANNEL.format(name=AGENT_PORT),
    }  # fmt: skip
    for line in (channel["command"], *channel["qemu"], channel["libvirt"]):
        assert f"\n  {line}\n" in people.text
    assert "guestwire agent GUEST has the lines for QEMU and libvirt" in doctor.text
    assert off.text.startswith("off: VM 101 is not running\nnext: start the VM\n")
    assert "virt-customize -a DISK.qcow2 --install qemu-guest-agent\n" in off.text
    assert "channel" not in off.text


async def test_an_agent_of_old_that_lists_nothing_is_told_from_one_that_does_all(lab: Lab) -> None:
    lab.fake.replies = {"guest-info": {"version": "0.12.1"}}
    old = await lab("fake", "agent", "fake")
    every = {name.removeprefix("guest-"): True for name in SINCE}
    lab.fake.replies = {"guest-info": listed("99.0.0", **every)}
    new = await lab("fake", "agent", "fake")

    assert old.text.endswith("it does not list its commands\n")
    assert new.text.endswith("it does all commands that agents of this system have\n")


# The printed line, applied


@pytest.mark.parametrize("key", ["block-rpcs", "blacklist"])
async def test_the_line_in_the_agents_own_file_allows_just_what_was_wanted(tmp_path: Path, key: str) -> None:
    env = environment(tmp_path)
    socket = tmp_path / "web.qga"
    async with SandboxedAgent(socket, name="web") as agent:
        conf = agent.etc / "qemu" / "qemu-ga.conf"
        conf.parent.mkdir()

        async def restart_with(line: str) -> None:
            conf.write_text(f"[general]\n{line}\n")
            await agent.kill()
            assert await agent.answers()

        async def run(*words: str) -> Any:
            await agent.answers()
            return await guestwire("--host", f"unix:{socket}", *words, env=env)

        version = (await run("info", "web", "--json")).json["version"]
        if key == "blacklist" and int(version.split(".")[0]) >= 9:
            pytest.skip(f"an agent of {version} does not know the old key")
        await restart_with(f"{key}=guest-exec,guest-exec-status,guest-get-users")
        assert "switched off in the guest" in (await run("exec", "web", "--", "true")).errors

        policy = (await run("agent", "--allow", "exec", "--json", "web")).json["policy"]
        assert (policy["file"], policy["section"]) == (f"/etc/{conf.relative_to(agent.etc)}", "[general]")
        await restart_with(policy["line"])

        assert (await run("exec", "web", "--", "echo", "done")).text == "done\n"
        off = {
            one["name"]
            for one in (await run("agent", "--json", "web")).json["commands"]
            if one["why"] == "switched off"
        }
        assert off == {*HARMFUL, "guest-get-users"}

        await restart_with((await run("agent", "--json", "web")).json["policy"]["line"])

        assert (await run("users", "web")).code == 0
        # Those of its command line stay, as its notes say.
        found = (await run("agent", "--json", "web")).json
        assert {one["name"] for one in found["commands"] if one["why"] == "switched off"} == set(HARMFUL)


# What is known


def test_the_families_are_those_that_are_known() -> None:
    assert typing.get_args(Family) == FAMILIES


def test_every_command_of_agents_is_needed_by_commands_that_there_are() -> None:
    assert NEEDED_BY.keys() == SINCE.keys()
    context = click.Context(guestwire_group)
    for words in {word for ours in NEEDED_BY.values() for word in ours} - {"all commands"}:
        name, *more = words.split()
        command = guestwire_group.get_command(context, name)
        assert command, words
        for one in more:
            if one.startswith("--"):
                assert any(one in parameter.opts for parameter in command.params), words
            elif isinstance(command, click.Group):
                assert one in command.commands, words


@pytest.mark.parametrize(
    ("word", "names"),
    [
        ("guest-exec", ["guest-exec"]),
        ("exec", ["guest-exec", "guest-exec-status"]),
        ("freeze", ["guest-fsfreeze-status", "guest-fsfreeze-freeze", "guest-fsfreeze-thaw"]),
        ("ssh-key", [f"guest-ssh-{verb}-authorized-keys" for verb in ("get", "add", "remove")]),
        ("ls", ["guest-exec", "guest-exec-status"]),
        ("file-open", ["guest-file-open"]),
        ("dance", []),
        ("", []),
    ],
)
def test_a_word_means_commands(word: str, names: list[str]) -> None:
    assert commands_of(word) == names
