"""Ansible's own modules in real guests, by our connection: every way to a guest, passwords, errors, and runs at the same time."""

import asyncio
import base64
import os
from pathlib import Path

import pytest
from calling import site, vm
from playing import Ansible, needs_python, variables_for
from serving import Serving
from ways import Target, options_for

from guestwire.testing import FakeGuest, SandboxedAgent

pytestmark = [pytest.mark.agent, pytest.mark.slow, needs_python]

WORK = """
- ping:
- command: {argv: [printf, "%s", "héllo ☃ {{ 'quote' }}'\\"$x"]}
  register: out
- assert: {that: [out.stdout == 'héllo ☃ quote\\'"$x']}
- shell: {cmd: "cat; echo to stderr >&2; exit 3", stdin: "given ☃"}
  register: out
  failed_when: out.rc != 3 or out.stdout != 'given ☃' or out.stderr != 'to stderr'
- file: {path: "/root/a spåce", state: directory}
- copy: {src: big.bin, dest: "/root/a spåce/bïg.bin", mode: "0640"}
- copy: {src: big.bin, dest: "/root/a spåce/bïg.bin"}
  register: again
- assert: {that: [not again.changed]}
- stat: {path: "/root/a spåce/bïg.bin"}
  register: there
- assert: {that: [there.stat.size == size, there.stat.mode == '0640']}
- fetch: {src: "/root/a spåce/bïg.bin", dest: back.bin, flat: true}
- raw: kill -9 $$
  register: out
  failed_when: out.rc != 137
- fetch: {src: /root/nowhere, dest: nowhere, flat: true}
  register: out
  failed_when: out is not failed or 'not exist' not in out.msg
"""


async def test_a_play_does_its_work_in_the_guest(ansible: Ansible, target: Target) -> None:
    # By `limited` a MiB takes a second, and goes in twenty pieces.
    size = (2 if target.is_limited else 10) * 1024 * 1024
    (ansible.folder / "big.bin").write_bytes(os.urandom(size))

    played = await ansible.play(WORK, {**variables_for(target.options), "size": size})

    assert played.code == 0, played.text
    sent, back = ((ansible.folder / name).read_bytes() for name in ("big.bin", "back.bin"))
    assert sent == back == (target.agent.home / "a spåce" / "bïg.bin").read_bytes()
    assert list(target.agent.home.rglob("*guestwire*")) == []


MORE = """
- setup: {gather_subset: [min]}
- command: sleep 5
  timeout: 1
  ignore_errors: true
  register: out
- assert: {that: [out is failed, "'Timed out' in out.msg"]}
- meta: reset_connection
- wait_for_connection: {timeout: 20}
- command: sleep 0.5
  async: 60
  poll: 1
- template: {src: hello.j2, dest: /root/hello}
- slurp: {src: /root/hello}
  register: out
- assert: {that: ["out.content | b64decode == 'hello ' ~ ansible_facts.hostname"]}
"""


async def test_facts_time_limits_and_jobs_in_the_background_work_as_by_other_connections(
    ansible: Ansible, server: Serving, served_agent: SandboxedAgent
) -> None:
    (ansible.folder / "hello.j2").write_text("hello {{ ansible_facts.hostname }}")

    played = await ansible.play(MORE, variables_for(options_for(server)))

    assert played.code == 0, played.text
    assert (served_agent.home / "hello").read_text() == "hello web"


# Passwords

SUDO = """#!/bin/sh
# As sudo -S does it, with a user who has a password: options, then a password from standard input, a byte at a time.
while [ $# -gt 0 ]; do
  case $1 in
    -p | -u) shift 2 ;;
    -*) shift ;;
    *) break ;;
  esac
done
for try in 1 2 3; do
  [ -e /root/nopasswd ] && exec "$@"
  IFS= read -r line
  [ "$line" = "sécret 'q' $" ] && exec "$@"
  echo "Sorry, try again." >&2
done
exit 1
"""
SAME_USER = {"ANSIBLE_BECOME_ALLOW_SAME_USER": "true"}
"""A sandbox has one user, and Ansible would not become who it is."""

BECOME = {"ansible_become": True, "ansible_become_password": "sécret 'q' $"}
AS_ANOTHER = """
- ping:
- shell: {cmd: "cat", stdin: "input and no more"}
  register: out
- assert: {that: [out.stdout == 'input and no more']}
- command: id -u
"""


@pytest.fixture
def sudo(agent: SandboxedAgent) -> Path:
    """A program in the guest that asks for a password as sudo does. (A sandbox has one user: sudo itself could not change it.)"""
    program = agent.home / "sudo"
    program.write_text(SUDO)
    program.chmod(0o755)
    (agent.home / "nopasswd").unlink(missing_ok=True)
    return program


@pytest.mark.parametrize("pipelining", [True, False])
@pytest.mark.parametrize("asks", [True, False])
async def test_become_gets_its_password_and_what_it_does_not_ask_for_is_no_input(
    ansible: Ansible, agent: SandboxedAgent, sudo: Path, asks: bool, pipelining: bool
) -> None:
    if not asks:
        (agent.home / "nopasswd").touch()
    how = {**BECOME, "ansible_become_exe": f"/root/{sudo.name}", "ansible_pipelining": pipelining}

    played = await ansible.play(AS_ANOTHER, {"guestwire_host": f"unix:{agent.socket}", **how}, **SAME_USER)

    assert played.code == 0, played.text


async def test_a_wrong_password_for_become_is_called_so(ansible: Ansible, agent: SandboxedAgent, sudo: Path) -> None:
    how = {**BECOME, "ansible_become_password": "wrong", "ansible_become_exe": f"/root/{sudo.name}"}

    played = await ansible.play(AS_ANOTHER, {"guestwire_host": f"unix:{agent.socket}", **how}, **SAME_USER)

    assert played.code == 4
    assert "sudo says that the password is wrong" in played.text
    assert "wrong'" not in played.output


# Errors


async def test_each_guest_that_can_not_be_reached_says_why_and_hides_no_other(ansible: Ansible) -> None:
    async with (
        Serving.of(site(vm(100, "web"), vm(101, "off", running="false"))) as server,
        SandboxedAgent(server.folder / "100.qga", name="web"),
    ):
        played = await ansible.play("- ping:", variables_for(options_for(server)), hosts="web,off,none")
        stranger = variables_for(options_for(server)) | {"guestwire_token": "eve@pve!tok=wrong"}
        refused = await ansible.play("- ping:", stranger)

    assert "ok: [web]" in played.output
    for words in (
        "guest off (101) on",
        "VM 101 is not running",
        "guest none on",
        "no such VM, or none that you may see",
    ):
        assert words in played.output
    assert refused.code == 4
    for words in ("Failed to authenticate", "check the token or the password"):
        assert words in refused.output


async def test_without_the_package_it_says_how_to_install_it(ansible: Ansible) -> None:
    (ansible.folder / "hidden" / "guestwire").mkdir(parents=True)
    (ansible.folder / "hidden" / "guestwire" / "__init__.py").write_text("raise ImportError('no guestwire here')\n")

    played = await ansible.play("- ping:", {}, PYTHONPATH=str(ansible.folder / "hidden"))

    assert "guestwire is not in the Python that runs Ansible (no guestwire here)" in played.output
    assert "-m pip install guestwire" in played.output


async def test_a_socket_without_an_agent_is_said_to_be_one(ansible: Ansible) -> None:
    played = await ansible.play("- ping:", {"guestwire_host": f"unix:{ansible.folder}/none.qga"})

    assert played.code == 4
    for words in ("QEMU guest agent is not running (", "No such file or directory"):
        assert words in played.output


# At the same time

AT_ONCE = """
- copy: {src: few/, dest: "/root/few-{{ run }}/"}
- script: "{{ item }} {{ run }}"
  with_fileglob: ["many/*"]
  register: out
- assert:
    that:
      - out.results | map(attribute='stdout') | map('trim') | list == expected
  vars:
    expected: "{{ out.results | map(attribute='item') | map('basename') | map('regex_replace', '$', run) | list }}"
"""
"""Each script is copied to the guest, and says which it is and whose: that is quicker than 50 modules in Python."""


@pytest.fixture(params=["unix", "guestwire"])
def at_once(
    request: pytest.FixtureRequest, agent: SandboxedAgent, server: Serving, served_agent: SandboxedAgent
) -> tuple[dict[str, str], Path]:
    """The variables for a guest, and its home."""
    if request.param == "unix":
        return {"guestwire_host": f"unix:{agent.socket}"}, agent.home
    return variables_for(options_for(server)), served_agent.home


async def test_two_runs_of_50_copies_to_one_guest_at_once_do_not_meet(
    ansible: Ansible, at_once: tuple[dict[str, str], Path]
) -> None:
    how, home = at_once
    for folder, count in (("few", 5), ("many", 50)):
        (ansible.folder / folder).mkdir()
        for number in range(count):
            (ansible.folder / folder / f"s{number}").write_text(f"#!/bin/sh\necho s{number}$1\n" + "#" * number * 1000)

    played = await asyncio.gather(*(ansible.play(AT_ONCE, {**how, "run": run}) for run in ("one", "two")))

    assert [one.code for one in played] == [0, 0], played[0].text + played[1].text
    sent = {path.name: path.read_bytes() for path in (ansible.folder / "few").iterdir()}
    for run in ("one", "two"):
        assert {path.name: path.read_bytes() for path in (home / f"few-{run}").iterdir()} == sent


# Windows


async def test_a_windows_guest_gets_powershell_and_its_input(ansible: Ansible, folder: Path) -> None:
    ran: list[dict[str, object]] = []

    def start(arguments: dict[str, object]) -> dict[str, object]:
        ran.append(arguments)
        return {"pid": 4711}

    ended = {"exited": True, "exitcode": 0, "out-data": base64.b64encode("grüße\r\n".encode()).decode()}
    replies = {"guest-exec": start, "guest-exec-status": ended, "guest-get-osinfo": {"id": "mswindows"}}
    async with FakeGuest(folder / "win.qga", replies=replies):
        played = await ansible.play(
            "- raw: Get-Date\n  register: out\n- assert: {that: [out.stdout == 'grüße\\r\\n']}",
            {"guestwire_host": f"unix:{folder}/win.qga", "ansible_shell_type": "powershell"},
        )

    assert played.code == 0, played.text
    [one] = ran
    assert str(one["path"]).lower().startswith("powershell")
    arguments = one["arg"]
    assert isinstance(arguments, list)
    assert arguments[-2] == "-EncodedCommand"
    assert base64.b64decode(arguments[-1]).decode("utf-16-le") == "Get-Date"
