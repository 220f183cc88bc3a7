"""The modules, against real agents: what they do, and what they say in check mode that they would do."""

import re
from collections.abc import AsyncIterator

import pytest
from calling import site, vm
from playing import Ansible, environment_for
from serving import Serving
from ways import Target, options_for

from guestwire.testing import FakeGuest, SandboxedAgent

pytestmark = [pytest.mark.agent, pytest.mark.slow]

LOCAL = {"ansible_connection": "local", "ansible_python_interpreter": "{{ ansible_playbook_python }}"}

FILES = """
- guestwire.guestwire.guest_file: {guest: web, path: "/root/ä/b", state: directory}
  register: made
- guestwire.guestwire.guest_file: {guest: web, path: "/root/ä/b/one", content: "first ☃\\n", mode: "0640"}
  check_mode: true
  register: would
- guestwire.guestwire.guest_file: {guest: web, path: "/root/ä/b/one", dest: one, state: fetched}
  register: missing
  failed_when: missing is not failed or 'no such file in the guest' not in missing.msg
- guestwire.guestwire.guest_file: {guest: web, path: "/root/ä/b/one", content: "first ☃\\n", mode: "0640"}
  register: written
- guestwire.guestwire.guest_file: {guest: web, path: "/root/ä/b/one", content: "first ☃\\n", mode: "0640"}
  register: again
- guestwire.guestwire.guest_file: {guest: web, path: "/root/ä/b/one", content: "first ☃\\n", mode: "0600"}
  check_mode: true
  register: other_mode
- guestwire.guestwire.guest_file: {guest: web, path: "/root/ä/b/big", src: big.bin}
  register: copied
- guestwire.guestwire.guest_file: {guest: web, path: "/root/ä/b/big", src: big.bin}
  check_mode: true
  register: copied_again
- guestwire.guestwire.guest_file: {guest: web, path: "/root/ä/b/big", dest: back.bin, state: fetched}
  register: fetched
- guestwire.guestwire.guest_file: {guest: web, path: "/root/ä/b/big", dest: back.bin, state: fetched}
  register: fetched_again
- guestwire.guestwire.guest_file: {guest: web, path: "/root/ä/b/one", state: absent}
  check_mode: true
  register: would_go
- guestwire.guestwire.guest_file: {guest: web, path: "/root/ä/b/one", state: absent}
  register: gone
- guestwire.guestwire.guest_file: {guest: web, path: "/root/ä/b/one", state: absent}
  register: gone_again
- guestwire.guestwire.guest_file: {guest: web, path: "/root/ä", state: absent}
  register: folder
  failed_when: folder is not failed or 'it is not removed' not in folder.msg
- assert:
    that:
      - made is changed and would is changed and written is changed and again is not changed and other_mode is changed
      - copied is changed and copied.size == 300000 and copied_again is not changed
      - fetched is changed and fetched.checksum == copied.checksum and fetched_again is not changed
      - would_go is changed and gone is changed and gone_again is not changed
"""

PROGRAMS = """
- guestwire.guestwire.guest_exec:
    guest: web
    cmd: 'printf "%s|%s|%s|" "$NAME" "$PWD" ☃; cat; echo oops >&2; exit 3'
    stdin: in
    chdir: /usr
    environment: {NAME: 5}
    ok_codes: [0, 3]
  register: ran
- guestwire.guestwire.guest_exec: {guest: web, argv: [touch, "/root/a file"], creates: "/root/a file"}
  check_mode: true
  register: would
- guestwire.guestwire.guest_exec: {guest: web, argv: [touch, "/root/a file"], creates: "/root/a file"}
  register: touched
- guestwire.guestwire.guest_exec: {guest: web, argv: [touch, "/root/a file"], creates: "/root/a file"}
  register: again
- guestwire.guestwire.guest_exec: {guest: web, argv: [rm, "/root/none"], removes: "/root/none"}
  register: nothing
- guestwire.guestwire.guest_exec: {guest: web, argv: [touch, "/root/never"]}
  check_mode: true
  register: skipped
- guestwire.guestwire.guest_exec: {guest: web, argv: ["false"]}
  register: failed
  failed_when: failed.rc != 1 or failed.msg != 'false ended with exit code 1'
- guestwire.guestwire.guest_exec: {guest: web, argv: [sleep, "5"], timeout: 0.2}
  register: late
  failed_when: late is not failed or late.pid is not integer
- guestwire.guestwire.guest_file: {guest: web, path: /root/never, state: absent}
  register: never
- assert:
    that:
      - ran.rc == 3 and ran.stdout == '5|/usr|☃|in' and ran.stderr_lines == ['oops'] and ran is changed
      - would is changed and touched is changed and again is not changed and nothing is not changed
      - skipped is skipped and never is not changed
"""


# Modules know nothing of ways: each way and each module is here once. Files are slowest by `limited`, whose copies are
# tests of the client's; and programs differ most there, for it says less of their ends.
@pytest.mark.parametrize(
    ("target", "tasks"),
    [("unix", PROGRAMS), ("guestwire", FILES), ("limited", PROGRAMS)],
    indirect=["target"],
    ids=["unix-programs", "guestwire-files", "limited-programs"],
)
async def test_a_module_does_what_it_says_and_changes_nothing_in_check_mode(
    ansible: Ansible, target: Target, tasks: str
) -> None:
    (ansible.folder / "big.bin").write_bytes(bytes(range(250)) * 1200)

    played = await ansible.play(tasks, LOCAL, **environment_for(target.options))

    assert played.code == 0, played.text
    if tasks is FILES:
        assert (ansible.folder / "back.bin").read_bytes() == (ansible.folder / "big.bin").read_bytes()


FREEZE = """
- guestwire.guestwire.guest_freeze: {guest: db, state: frozen}
  check_mode: true
  register: would
- guestwire.guestwire.guest_freeze: {guest: db, state: frozen}
  register: frozen
- guestwire.guestwire.guest_freeze: {guest: db, state: frozen}
  register: again
- guestwire.guestwire.guest_freeze: {guest: db, state: thawed}
  register: thawed
- assert:
    that:
      - would is changed and frozen is changed and frozen.count == 2 and again is not changed
      - thawed is changed and thawed.count == 2
"""


@pytest.fixture
async def freezer(ansible: Ansible) -> AsyncIterator[list[str]]:
    """A guest that can be frozen, which no sandbox can; gives what was done to it."""
    done: list[str] = []

    def set_state(state: str) -> int:
        done.append(state)
        return 2

    replies = {
        "guest-fsfreeze-freeze": lambda _: set_state("frozen"),
        "guest-fsfreeze-thaw": lambda _: set_state("thawed"),
        "guest-fsfreeze-status": lambda _: (done or ["thawed"])[-1],
    }
    async with FakeGuest(ansible.folder / "db.qga", replies=replies):
        yield done


async def test_a_guest_is_frozen_and_thawed_once(ansible: Ansible, freezer: list[str]) -> None:
    played = await ansible.play(FREEZE, LOCAL, GUESTWIRE_HOST=f"unix:{ansible.folder}/db.qga")

    assert played.code == 0, played.text
    assert freezer == ["frozen", "thawed"]


async def test_facts_say_what_the_agent_can_not_tell(ansible: Ansible) -> None:
    async with (
        Serving.of(site(vm(100, "web"))) as server,
        SandboxedAgent(server.folder / "100.qga", name="inside", blocked=["guest-get-users"]),
    ):
        arguments = '{"guest": "pve1/100", "gather": ["host_name", "users", "osinfo", "time"]}'
        known = environment_for(options_for(server))
        played = await ansible.run(
            "adhoc", "localhost", "-m", "guestwire.guestwire.guest_info", "-a", arguments, **known
        )
        stranger = await ansible.run(
            "adhoc",
            "localhost",
            "-m",
            "guestwire.guestwire.guest_info",
            "-a",
            "guest=web token=eve@pve!tok=wrong",
            **known,
        )

    found = played.result()
    assert found["host_name"] == "inside"
    assert found["osinfo"]["id"]
    assert isinstance(found["time"], int)
    assert re.search("guest-get-users", found["unsupported"]["users"])
    assert stranger.result()["error"] == "LoginFailed"
    assert stranger.result()["http_status"] == 401
