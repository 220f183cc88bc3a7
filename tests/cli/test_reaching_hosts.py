"""From the command line to a host: credentials, certificates, privileges; each error one line with its exit code; and questions on a terminal."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from calling import ANSWERS_WITHIN, Ended, site, vm
from commands import on_terminal
from reaching import Lab, ended, environment, guestwire, over_https
from serving import Serving
from waiting import until
from ways import options_for

from guestwire.client import errors
from guestwire.client.carriers.https import fingerprint_of
from guestwire.client.settings import Https, parse_target
from guestwire.server.certificate_maker import ensure_certificate
from guestwire.testing import FakeGuest
from guestwire.testing.fake import honest

pytestmark = pytest.mark.agent

OTHER_FINGERPRINT = ":".join(["AA"] * 32)
QUESTION = "Trust it from now on? [y/N] "


@pytest.fixture(scope="module")
async def lab() -> AsyncIterator[Lab]:
    async with over_https() as lab:
        yield lab


@pytest.fixture
def fake(lab: Lab) -> FakeGuest:
    lab.fake.received.clear()
    lab.fake.fault = honest
    lab.fake.replies = {"guest-fsfreeze-freeze": 2}
    return lab.fake


@pytest.fixture
def env(lab: Lab, tmp_path: Path) -> dict[str, str]:
    """Everything but trust in the certificate."""
    return environment(tmp_path, GUESTWIRE_HOST=host(lab), GUESTWIRE_TOKEN_FILE=lab.options["web"][3])


def host(lab: Lab) -> str:
    return lab.options["web"][1]


def trusting(lab: Lab, env: dict[str, str]) -> dict[str, str]:
    return {**env, "GUESTWIRE_CA": lab.options["web"][-1]}


async def shown_fingerprint(lab: Lab) -> str:
    """As Proxmox VE shows it."""
    target = parse_target(host(lab))
    assert isinstance(target, Https)
    return await fingerprint_of(target)


# Credentials and privileges


async def test_bad_credentials_are_exit_code_5(lab: Lab, env: dict[str, str]) -> None:
    done = await guestwire("ls", env={**trusting(lab, env), "GUESTWIRE_TOKEN": "root@pam!none=x"})

    assert done.code == errors.LoginFailed.exit_code == 5
    assert "USER@REALM!NAME=SECRET" in done.line


async def test_no_credentials_are_exit_code_5(lab: Lab) -> None:
    done = await guestwire("--host", host(lab), "--ca", lab.options["web"][-1], "ls", env=lab.env)

    assert (done.code, "GUESTWIRE_TOKEN" in done.line) == (5, True)


async def weak_token(lab: Lab) -> str:
    """A token that sees VMs, and may no more."""
    await lab("web", "raw", "POST", "/access/roles", "roleid=See", "privs=VM.Audit", "--yes")
    made = await lab("web", "raw", "POST", "/access/users/root@pam/token/weak", "privsep=1")
    if made.code == 0:
        await lab("web", "raw", "PUT", "/access/acl", "path=/vms", "roles=See", "tokens=root@pam!weak")
        (lab.folder / "weak").write_text(f"root@pam!weak={made.json['value']}")
        (lab.folder / "weak").chmod(0o600)
    return str(lab.folder / "weak")


async def test_who_may_see_no_guest_is_told_so(lab: Lab, env: dict[str, str]) -> None:
    made = await lab("web", "raw", "POST", "/access/users/root@pam/token/blind", "privsep=1")
    blind = trusting(lab, env) | {"GUESTWIRE_TOKEN": f"root@pam!blind={made.json['value']}"}

    people, programs = [await guestwire("ls", *more, env=blind) for more in ((), ("--json",))]

    assert (programs.json, people.code) == ([], 0)
    assert (
        people.errors
        == programs.errors
        == "guestwire: there is no guest that you may see: the user or token needs VM.Audit\n"
    )


async def test_a_missing_privilege_is_exit_code_6_and_has_its_name(lab: Lab, env: dict[str, str]) -> None:
    weak = trusting(lab, env) | {"GUESTWIRE_TOKEN_FILE": await weak_token(lab)}

    assert "web" in (await guestwire("ls", env=weak)).text
    done = await guestwire("ping", "web", env=weak)
    doctor = await guestwire("doctor", "web", "--json", env=weak)

    assert done.code == errors.PrivilegeMissing.exit_code == 6
    assert "a role with VM.GuestAgent.Audit or VM.GuestAgent.Unrestricted on /vms/100" in done.line
    *_, last = json.loads(doctor.output)
    assert (doctor.code, last["step"], last["result"]) == (6, "privilege", "failed")
    assert "VM.GuestAgent.Audit" in last["next"]


async def test_no_such_guest_is_exit_code_4(lab: Lab) -> None:
    done = await lab("web", "ping", "none")

    assert done.code == errors.NoSuchGuest.exit_code == 4
    assert "`guestwire ls`" in done.line


@pytest.mark.parametrize(("name", "says"), [("off", "VM 102 is not running"), ("gone", "agent is not running")])
async def test_a_guest_that_can_not_answer_is_exit_code_3(lab: Lab, name: str, says: str) -> None:
    done = await lab(name, "ping", name)

    assert (done.code, says in done.line) == (3, True)


async def test_doctor_knows_a_stopped_vm_a_missing_one_and_bad_credentials(lab: Lab, env: dict[str, str]) -> None:
    off = await lab("off", "doctor", "off")
    none = await lab("off", "doctor", "none")
    login = await guestwire("doctor", "web", env={**trusting(lab, env), "GUESTWIRE_TOKEN": "root@pam!none=x"})

    assert (off.code, none.code, login.code) == (3, 4, 5)
    assert "failed   vm           VM 102 is not running\n         next: start the VM\n" in off.text
    assert "failed   vm           no such VM" in none.text
    assert "ok       tls" in login.text
    assert "failed   credentials" in login.text


async def test_ls_and_doctor_say_the_same_of_a_vm_without_an_agent_and_ls_goes_by_id(tmp_path: Path) -> None:
    bare = '[[vm]]\nvmid = 200\nname = "aaa"\n'
    async with Serving.of(site(bare, vm(100, "zzz"))) as server:
        options, env = options_for(server), environment(tmp_path)
        people = await guestwire(*options, "ls", env=env)
        programs = await guestwire(*options, "ls", "--json", env=env)
        doctor = await guestwire(*options, "doctor", "--json", "aaa", env=env)

    assert [(row["vmid"], row["name"], row["status"]) for row in programs.json] == [
        (100, "zzz", "running"), (200, "aaa", "stopped"),
    ]  # fmt: skip
    assert [line.split()[:3] for line in people.text.splitlines()[1:]] == [
        ["100", "zzz", "running"], ["200", "aaa", "stopped"],
    ]  # fmt: skip
    assert doctor.code == 3
    assert b"is running" not in doctor.output, "it says no more than it knows"


# Addresses and configuration


async def test_a_host_that_is_not_there_is_exit_code_69(lab: Lab) -> None:
    done = await guestwire("--host", "https://127.0.0.1:1", "ls", env={**lab.env, "GUESTWIRE_TOKEN": "a@b!c=d"})
    doctor = await guestwire(
        "--host", "https://127.0.0.1:1", "doctor", "x", env={**lab.env, "GUESTWIRE_TOKEN": "a@b!c=d"}
    )

    assert (done.code, done.line) == (
        69, "https://127.0.0.1:1: connection refused; check the address, and that the service runs"
    )  # fmt: skip
    assert (doctor.code, "failed   address" in doctor.text) == (69, True)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (
            ("--host", "ftp://x"),
            "write https://HOST:8006, local: for the VMs of this machine, qemu:///system for libvirt, or",
        ),
        (("--profile", "none"), "it should hold the profile 'none'"),
        (("--host", "https://h", "--fingerprint", "AA"), "no SHA-256 fingerprint"),
        (("--host", "https://h", "--ca", "/none"), "it should hold the CA's certificate"),
        (("--host", "https://h", "--token-file", "/none"), "it should hold a token"),
    ],
)
async def test_what_can_not_be_used_is_exit_code_78(lab: Lab, words: tuple[str, ...], says: str) -> None:
    done = await guestwire(*words, "ls", env=environment(lab.folder / "empty"))

    assert (done.code, says in done.line) == (78, True), done


async def test_a_profile_is_all_that_needs_to_be_said(lab: Lab, tmp_path: Path) -> None:
    (tmp_path / "guestwire").mkdir()
    words = {"host": host(lab), "token_file": lab.options["web"][3], "ca": lab.options["web"][-1]}
    lines = "".join(f"{name} = {json.dumps(word)}\n" for name, word in words.items())
    (tmp_path / "guestwire" / "config.toml").write_text(f"[lab]\n{lines}")

    assert (await guestwire("--profile", "lab", "hostname", "web", env=environment(tmp_path))).text == "web\n"


# Certificates


async def test_an_untrusted_certificate_is_an_error_that_names_the_ways_to_trust_it(env: dict[str, str]) -> None:
    done = await guestwire("hostname", "web", env=env)
    doctor = await guestwire("doctor", "web", env=env)

    assert done.code == errors.CertificateNotTrusted.exit_code == 69
    assert "not trusted: self-signed certificate; trust it by its CA (--ca" in done.line
    assert "--fingerprint" in done.line
    assert (doctor.code, "failed   tls" in doctor.text) == (69, True)


async def test_the_certificate_of_another_ca_is_named(env: dict[str, str], tmp_path: Path) -> None:
    ensure_certificate(tmp_path, "elsewhere", "127.0.0.1")
    other = tmp_path / "server.pem"

    done = await guestwire("--ca", str(other), "hostname", "web", env=env)

    assert done.code == 69
    assert f"self-signed certificate; {other} is not the certificate of its CA" in done.line


async def test_it_is_trusted_by_its_fingerprint_or_not_looked_at_by_an_explicit_word(
    lab: Lab, env: dict[str, str]
) -> None:
    shown = await shown_fingerprint(lab)

    assert (await guestwire("--fingerprint", shown, "hostname", "web", env=env)).text == "web\n"
    assert (await guestwire("--insecure", "hostname", "web", env=env)).text == "web\n"
    other = await guestwire("--fingerprint", OTHER_FINGERPRINT, "hostname", "web", env=env)
    assert (other.code, f"its fingerprint is {shown}" in other.line) == (69, True)


async def test_the_systems_certificates_are_trusted(lab: Lab, env: dict[str, str]) -> None:
    trusting = {**env, "SSL_CERT_FILE": lab.options["web"][-1]}

    assert (await guestwire("hostname", "web", env=trusting)).text == "web\n"


async def test_on_a_terminal_the_fingerprint_is_shown_and_yes_is_remembered(
    lab: Lab, env: dict[str, str], tmp_path: Path
) -> None:
    shown = await shown_fingerprint(lab)
    known = tmp_path / "guestwire" / "known_hosts.toml"

    refused = await on_terminal("hostname", "web", answers=((QUESTION, "n\n"),), environment=env)
    assert (refused.code, known.exists(), shown in refused.output) == (2, False, True)
    assert "\\n" not in refused.output

    asked = await on_terminal("hostname", "web", answers=((QUESTION, "y\n"),), environment=env)
    assert (asked.code, asked.output.endswith("\r\nweb\r\n")) == (0, True), asked
    assert known.read_text() == f'"{host(lab)}" = "{shown}"\n'
    assert known.stat().st_mode & 0o777 == 0o600

    assert (await guestwire("hostname", "web", env=env)).text == "web\n"


async def test_a_certificate_that_changed_is_an_error_and_no_question(
    lab: Lab, env: dict[str, str], tmp_path: Path
) -> None:
    known = tmp_path / "guestwire" / "known_hosts.toml"
    known.parent.mkdir()
    known.write_text(f'"{host(lab)}" = "{OTHER_FINGERPRINT}"\n')

    ended = await on_terminal("hostname", "web", environment=env)

    assert ended.code == 69
    assert "another fingerprint than the one that is trusted" in ended.output
    assert str(known) in ended.output
    assert known.read_text() == f'"{host(lab)}" = "{OTHER_FINGERPRINT}"\n'


async def test_known_hosts_that_can_not_be_read_are_an_error(env: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "guestwire").mkdir()
    (tmp_path / "guestwire" / "known_hosts.toml").write_text("[")

    done = await guestwire("hostname", "web", env=env)

    assert (done.code, "known_hosts.toml" in done.line) == (78, True)


# On a terminal


async def terminal(lab: Lab, *words: str, answers: tuple[tuple[str, str], ...] = ()) -> Ended:
    return await on_terminal(*lab.options["web"], *words, answers=answers, environment=lab.env)


async def test_what_disrupts_asks_first_and_anything_but_yes_does_nothing(lab: Lab, fake: FakeGuest) -> None:
    question = "Freeze the file systems of guest fake? What writes in it waits until you thaw them. [y/N] "

    for answer in ("n\n", "\n", "\x03"):
        ended = await terminal(lab, "freeze", "fake", answers=((question, answer),))
        assert (ended.code, fake.names()) == (130 if answer == "\x03" else 2, [])

    ended = await terminal(lab, "freeze", "fake", answers=((question, "y\n"),))
    assert (ended.code, fake.names()) == (0, ["guest-fsfreeze-freeze"])
    assert "fake: 2 file systems are frozen; guestwire thaw fake" in ended.output


async def test_a_guests_password_is_asked_for_twice_and_never_seen(lab: Lab, fake: FakeGuest) -> None:
    fake.replies["guest-set-user-password"] = {}
    secret = "Tr0ub4dor&3"

    ended = await terminal(
        lab, "passwd", "fake", "root",
        answers=(("New password for root in guest fake: ", f"{secret}\n"), ("The same again: ", f"{secret}\n")),
    )  # fmt: skip

    assert (ended.code, secret in ended.output) == (0, False)
    assert "guest-set-user-password" in fake.names()


async def test_there_is_colour_on_a_terminal_and_none_elsewhere(lab: Lab) -> None:
    assert "\x1b[1m" in (await terminal(lab, "ls")).output
    assert b"\x1b" not in (await lab("web", "ls")).output


async def test_shell_says_that_it_is_no_terminal_and_prompts_with_its_directory(lab: Lab) -> None:
    ended = await terminal(
        lab,
        "shell",
        "--lines",
        "web",
        answers=(("web:/$ ", "cd /usr\n"), ("web:/usr$ ", "false\n"), ("web:/usr$ ", "\x04")),
    )

    assert ended.code == 1
    assert "no terminal, but a line at a time" in ended.output


async def test_ctrl_c_in_a_shell_leaves_the_process_running_and_says_so(lab: Lab, fake: FakeGuest) -> None:
    fake.replies |= {
        "guest-get-osinfo": {"id": "linux"},
        "guest-exec": {"pid": 4711},
        "guest-exec-status": {"exited": False},
    }

    process = await lab.start("fake", "shell", "fake")
    assert process.stdin
    process.stdin.write(b"sleep 30\necho no\n")
    await until(lambda: "guest-exec-status" in fake.names(), ANSWERS_WITHIN)
    process.send_signal(signal.SIGINT)
    await until(lambda: fake.names().count("guest-exec") == 2, ANSWERS_WITHIN)
    process.send_signal(signal.SIGINT)
    done = await ended(process)

    assert (done.code, done.output) == (130, b"")
    assert "process 4711 was left running" in done.errors


async def test_ctrl_c_while_a_process_is_being_started_says_that_nothing_is_known(lab: Lab, fake: FakeGuest) -> None:
    fake.replies["guest-exec"] = {"pid": 4711}
    fake.fault = lambda exchange: [] if exchange.request["execute"] == "guest-exec" else exchange.honest

    process = await lab.start("fake", "exec", "fake", "true")
    await until(lambda: "guest-exec" in fake.names(), ANSWERS_WITHIN)
    process.send_signal(signal.SIGINT)
    done = await ended(process)

    assert done.code == 130
    assert "whether the program was started is not known" in done.line


async def test_ctrl_c_on_a_terminal_ends_a_line_and_not_the_shell(lab: Lab) -> None:
    answers = (("web:/$ ", "sleep 30\n"), ("sleep 30\r\n", "\x03"), ("web:/$ ", "\x03"), ("web:/$ ", "exit 3\n"))

    shown = await terminal(lab, "shell", "--lines", "web", answers=answers)

    assert shown.code == 3
    assert "Ctrl-C goes to process" in shown.output
    assert "Warning" not in shown.output


# Starting


def test_a_command_loads_only_what_it_needs(lab: Lab) -> None:
    heavy = {"aiohttp", "argon2", "cryptography", "qemu", "rich", "sqlite3", "uvloop"}
    code = "import sys; from guestwire.cli import main\ntry: main()\nfinally: print(*sys.modules, file=sys.stderr)"

    def loaded(*words: str) -> set[str]:
        line = [sys.executable, "-c", code, *words]
        done = subprocess.run(line, capture_output=True, text=True, timeout=30, check=False, env=lab.env)
        found = {name.partition(".")[0] for name in done.stderr.split()}
        assert "guestwire" in found
        return found

    assert not loaded("--help") & (heavy | {"asyncio", "email", "msgspec"})
    assert not loaded("--host", f"unix:{lab.folder}/none.qga", "ping", "x") & heavy
    assert not loaded(*lab.options["web"], "ping", "web") & (heavy - {"aiohttp"})


async def test_a_reader_that_leaves_early_is_no_trouble(lab: Lab) -> None:
    read, write = os.pipe()
    os.close(read)
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "guestwire", *lab.options["web"], "exec", "web", "--", "seq", "100000",
        stdout=write, stderr=asyncio.subprocess.PIPE, env=lab.env,
    )  # fmt: skip
    os.close(write)
    async with asyncio.timeout(20):
        _, said = await process.communicate()

    assert (process.returncode, said) == (1, b"")


# What a newcomer does


async def test_a_narrow_terminal_has_no_word_and_no_address_cut(lab: Lab, fake: FakeGuest) -> None:
    fake.replies["guest-network-get-interfaces"] = [
        {"name": "enp0s31f6", "hardware-address": "52:54:00:12:34:56",
         "ip-addresses": [{"ip-address": "2001:db8:0:1234:5678:9abc:def0:1", "ip-address-type": "ipv6", "prefix": 64}]},
    ]  # fmt: skip
    words = (*lab.options["fake"], "ip", "fake")
    narrow = await on_terminal(*words, environment=lab.env, columns=40)
    wide = await on_terminal(*words, environment=lab.env, columns=120)

    assert narrow.output.replace("\r", "") == (
        "INTERFACE: enp0s31f6\nMAC: 52:54:00:12:34:56\nADDRESSES: 2001:db8:0:1234:5678:9abc:def0:1/64\n"
    )
    assert "INTERFACE" in wide.output.splitlines()[0]
    assert "ADDRESSES" in wide.output.splitlines()[0]


async def test_a_shell_without_terminal_says_how_it_gets_one(lab: Lab) -> None:
    ended = await terminal(lab, "exec", "web", "bash")
    assert ended.code == 2
    assert "-t gives it a terminal" in ended.output
    assert (await lab("web", "exec", "-i", "web", "sh", stdin=b"echo yes")).output == b"yes\n"


async def test_edit_without_terminal_and_editor_says_so_and_starts_none(lab: Lab) -> None:
    env = {name: value for name, value in lab.env.items() if name not in ("EDITOR", "VISUAL")}
    done = await guestwire(*lab.options["web"], "edit", "web:/etc/hostname", env=env)

    assert done.code == 2
    assert "edit needs a terminal, or an editor that needs none in EDITOR" in done.line


@pytest.mark.parametrize(
    ("env", "words"),
    [
        ({"GUESTWIRE_USER": "anna", "GUESTWIRE_PASSWORD": "p"}, "write NAME@REALM, as anna@pve"),
        ({"GUESTWIRE_USER": "anna@pve"}, "there is no password for anna@pve: set GUESTWIRE_PASSWORD"),
    ],
)
async def test_a_login_that_is_not_complete_goes_nowhere(tmp_path: Path, env: dict[str, str], words: str) -> None:
    done = await guestwire("--host", "https://127.0.0.1:9", "ls", env=environment(tmp_path, **env))

    assert done.code == 78
    assert words in done.line


async def test_a_password_that_is_missing_is_asked_for_on_a_terminal(tmp_path: Path) -> None:
    env = environment(tmp_path, GUESTWIRE_USER="anna@pve")
    ended = await on_terminal(
        "--host", "https://127.0.0.1:9", "ls", answers=(("Password for anna@pve: ", "secret\n"),), environment=env
    )

    assert ended.code == 69
    assert "connection refused" in ended.output
    assert "secret" not in ended.output


async def test_a_fault_of_this_machine_is_named_alone(lab: Lab, tmp_path: Path) -> None:
    done = await lab("web", "cp", str(tmp_path / "none"), "web:/root/x")

    assert done.code == 74
    assert done.line.startswith(f"{tmp_path}/none: No such file or directory")
