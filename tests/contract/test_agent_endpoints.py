"""What the endpoints below `/nodes/{node}/qemu/{vmid}/agent` ask the guest, and what they make of its answers."""

import base64
from collections.abc import AsyncIterator
from typing import Any, Final

import msgspec
import pytest

from guestwire.access import Subject
from guestwire.access.control import Access
from guestwire.agent.exit_status_cache import ExitStatusCache
from guestwire.agent.guest import GuestAgent
from guestwire.channels import UnixChannel
from guestwire.contract import ByteText, VmState, rules, validate
from guestwire.contract.context import NO_TERMS, FreezeTerms
from guestwire.contract.endpoints.agent import AGENT as PATH
from guestwire.contract.endpoints.agent import COMMANDS
from guestwire.contract.registry import ENDPOINTS
from guestwire.errors import AgentError, AgentNotConfigured, GuestError, InvalidParameters
from guestwire.stores import MemoryStore
from guestwire.testing import CLOSE, FakeGuest
from guestwire.testing.faults import on_commands

OURS: Final = {(endpoint.method, endpoint.path): endpoint for endpoint in ENDPOINTS}

METHODS: Final = {endpoint.name: endpoint.method for endpoint in ENDPOINTS if endpoint.path.startswith(f"{PATH}/")}
ANSWERING: Final = [name for name, command in COMMANDS.items() if command.command.answers]

each_simple = pytest.mark.parametrize("name", COMMANDS)
each_answering = pytest.mark.parametrize("name", ANSWERING)
each_mute = pytest.mark.parametrize("name", [name for name in COMMANDS if name not in ANSWERING])


class OneVm:
    """The contexts of endpoints, with one VM, 100, that has an agent; and 102, that has none."""

    node = "pve1"
    fingerprint = None

    def __init__(self, agent: GuestAgent) -> None:
        self._agent = agent

    access = Access(MemoryStore())
    subject = Subject("root@pam")
    address = "127.0.0.1"

    async def agent(self, vmid: int) -> GuestAgent:
        if vmid != 100:
            raise AgentNotConfigured(vmid)
        return self._agent

    freeze_lease = None

    async def note_sent(self, vmid: int, command: str, terms: FreezeTerms = NO_TERMS) -> None:
        assert (vmid, terms) == (100, NO_TERMS)
        self.noted = [command]

    async def note_answer(self, vmid: int, command: str, answer: Any, terms: FreezeTerms = NO_TERMS) -> str:
        assert (vmid, terms) == (100, NO_TERMS)
        self.noted += [command, answer]
        return ""

    async def vms(self) -> list[VmState]:
        return [VmState(vmid=100, status="running", name="VM 100")]

    async def call(self, method: str, below: str, vmid: Any = 100, **given: Any) -> Any:
        """The answer of `METHOD agent/below` as JSON has it."""
        endpoint = OURS[method, f"{PATH}/{below}".rstrip("/")]
        texts = {name.replace("_", "-"): value for name, value in given.items()}
        parameters = validate(endpoint.parameters, {"node": "pve1", "vmid": str(vmid), **texts})
        result = await endpoint.function(self, parameters)
        return msgspec.to_builtins(result, enc_hook=as_text)


def as_text(value: Any) -> str:
    assert isinstance(value, ByteText)
    return str(value)


@pytest.fixture
async def vm(channel: UnixChannel) -> AsyncIterator[OneVm]:
    agent = GuestAgent(channel, "VM 100", ExitStatusCache())
    yield OneVm(agent)
    await agent.close()


def arguments(guest: FakeGuest, command: str) -> Any:
    """What came along with the one request for `command`."""
    [found] = [request for request in guest.received if request["execute"] == command]
    return found.get("arguments", {})


@each_answering
async def test_a_simple_endpoint_hands_on_its_command_and_the_answer(vm: OneVm, guest: FakeGuest, name: str) -> None:
    command = f"guest-{name}"
    guest.replies[command] = {"what": ["ever", 1, None, {"it": "is"}]}

    assert await vm.call(METHODS[name], name) == {"result": guest.replies[command]}
    assert guest.names() == [command]
    assert arguments(guest, command) == {}


@each_mute
async def test_a_command_that_says_nothing_on_success_answers_null(vm: OneVm, guest: FakeGuest, name: str) -> None:
    guest.fault = on_commands(lambda _: [CLOSE])

    assert await vm.call(METHODS[name], name) == {"result": None}
    assert guest.names() == [f"guest-{name}"]


@each_simple
async def test_the_agents_error_is_an_answer_of_a_simple_endpoint(vm: OneVm, guest: FakeGuest, name: str) -> None:
    guest.fault = on_commands(
        lambda exchange: [b'{"error": {"class": "Xy", "desc": "no"}, "id": %d}\n' % exchange.request["id"]]
    )

    assert await vm.call(METHODS[name], name) == {"result": {"error": {"class": "Xy", "desc": "no"}}}


@each_answering
async def test_the_old_way_does_what_the_endpoint_does(vm: OneVm, guest: FakeGuest, name: str) -> None:
    guest.replies[f"guest-{name}"] = 7

    assert await vm.call("POST", "", command=name) == {"result": 7}
    assert guest.names() == [f"guest-{name}"]


def test_the_old_way_knows_the_commands_of_proxmox_ve_and_each_has_its_endpoint() -> None:
    assert rules(OURS["POST", PATH].parameters)["command"].enum == tuple(sorted(COMMANDS))
    assert COMMANDS.keys() <= METHODS.keys()


@pytest.mark.parametrize("vmid", [100, 999])
async def test_the_index_names_what_is_below_sorted_without_asking_for_the_vm(
    vm: OneVm, guest: FakeGuest, vmid: int
) -> None:
    below = {path.removeprefix(PATH + "/") for _, path in OURS if path.startswith(PATH + "/")}

    assert await vm.call("GET", "", vmid, foo="ignored") == [{"name": name} for name in sorted(below)]
    assert guest.names() == []


@pytest.mark.parametrize(
    ("method", "below", "given"),
    [
        ("GET", "info", {}),
        ("POST", "", {"command": "ping"}),
        ("POST", "exec", {"command": "x"}),
        ("POST", "exec", {"command": []}),
        ("GET", "exec-status", {"pid": "1"}),
        ("GET", "file-read", {"file": "x"}),
        ("POST", "file-write", {"file": "x", "content": ""}),
        ("POST", "set-user-password", {"username": "x", "password": "secret12"}),
    ],
)
async def test_a_vm_that_cannot_be_reached_comes_before_all_else(
    vm: OneVm, method: str, below: str, given: dict[str, Any]
) -> None:
    with pytest.raises(AgentNotConfigured, match="No QEMU guest agent configured"):
        await vm.call(method, below, 102, **given)


@pytest.mark.parametrize(
    ("password", "data"),
    [("secret12", b"secret12"), ("pässwörd", b"p\xe4ssw\xf6rd"), ("世界世界世", "世界世界世".encode())],
)
async def test_a_password_goes_to_the_agent_as_bytes(vm: OneVm, guest: FakeGuest, password: str, data: bytes) -> None:
    guest.replies["guest-set-user-password"] = {}

    assert await vm.call("POST", "set-user-password", username="jürgen", password=password) == {"result": {}}
    assert arguments(guest, "guest-set-user-password") == {
        "username": "jürgen",
        "password": base64.b64encode(data).decode(),
        "crypted": False,
    }


NUL = "value has a NUL, at which the guest would take it to end"


@pytest.mark.parametrize(
    ("below", "given", "errors"),
    [
        ("set-user-password", {"username": "u", "password": "with\0more"}, {"password": NUL}),
        ("set-user-password", {"username": "u\0v", "password": "secret12"}, {"username": NUL}),
        ("exec", {"command": ["printf", "a\0b"]}, {"command[1]": NUL}),
        ("file-write", {"file": "/f\0", "content": "x"}, {"file": NUL}),
    ],
)
async def test_what_the_guest_would_take_for_something_else_is_refused(
    vm: OneVm, guest: FakeGuest, below: str, given: dict[str, Any], errors: dict[str, str]
) -> None:
    with pytest.raises(InvalidParameters) as refused:
        await vm.call("POST", below, **given)

    assert refused.value.errors == errors
    assert guest.names() == []


async def test_standard_input_and_content_may_have_a_nul(vm: OneVm, guest: FakeGuest) -> None:
    guest.replies["guest-exec"] = {"pid": 1}
    await vm.call("POST", "exec", command="cat", **{"input-data": "a\0b"})
    await vm.call("POST", "file-write", file="/f", content="a\0b")

    assert arguments(guest, "guest-exec")["input-data"] == "YQBi"
    assert guest.files["/f"] == b"a\0b"


async def test_a_password_may_be_a_hash(vm: OneVm, guest: FakeGuest) -> None:
    guest.replies["guest-set-user-password"] = {}

    await vm.call("POST", "set-user-password", username="u", password="$6$abc", crypted="1")

    assert arguments(guest, "guest-set-user-password")["crypted"] is True


async def test_a_program_is_started_with_its_arguments_and_without_standard_input(vm: OneVm, guest: FakeGuest) -> None:
    guest.replies["guest-exec"] = {"pid": 179}

    assert await vm.call("POST", "exec", command=["/bin/echo", "", "two wörds 世"]) == {"pid": 179}
    assert arguments(guest, "guest-exec") == {
        "path": "/bin/echo",
        "arg": ["", "two wörds 世"],
        "capture-output": True,
    }


async def test_one_text_is_a_program_and_no_command_line(vm: OneVm, guest: FakeGuest) -> None:
    guest.replies["guest-exec"] = {"pid": 1}

    await vm.call("POST", "exec", command="/bin/echo a")

    assert arguments(guest, "guest-exec") == {"path": "/bin/echo a", "arg": [], "capture-output": True}


@pytest.mark.parametrize(
    ("text", "data"),
    [("", b""), ("from stdin\n", b"from stdin\n"), ("é\0", b"\xe9\0"), ("é世", "é世".encode()), (5, b"5")],
)
async def test_standard_input_goes_to_the_agent_as_bytes(vm: OneVm, guest: FakeGuest, text: Any, data: bytes) -> None:
    guest.replies["guest-exec"] = {"pid": 1}

    await vm.call("POST", "exec", command=["/bin/cat"], input_data=text)

    assert arguments(guest, "guest-exec")["input-data"] == base64.b64encode(data).decode()


@pytest.mark.parametrize("given", [{}, {"input_data": ""}])
async def test_nothing_to_start_is_refused_before_the_guest_is_asked(
    vm: OneVm, guest: FakeGuest, given: dict[str, Any]
) -> None:
    with pytest.raises(GuestError, match=r"^command or input-data \(or both\) required$"):
        await vm.call("POST", "exec", command=[], **given)
    assert guest.names() == []


def encoded(data: bytes) -> str:
    return base64.b64encode(data).decode()


@pytest.mark.parametrize(
    ("status", "answer"),
    [
        ({"exited": False}, {"exited": 0}),
        ({"exited": True, "exitcode": 0}, {"exited": 1, "exitcode": 0}),
        ({"exited": True, "signal": 15}, {"exited": 1, "signal": 15}),
        (
            {"exited": True, "exitcode": 3, "out-data": encoded(b"out\n"), "err-data": encoded(b"err\n")},
            {
                "exited": 1,
                "exitcode": 3,
                "out-data": "out\n",
                "out-truncated": 0,
                "err-data": "err\n",
                "err-truncated": 0,
            },
        ),
        (
            {"exited": True, "exitcode": 0, "out-data": encoded(bytes(range(256))), "out-truncated": True},
            {"exited": 1, "exitcode": 0, "out-data": "".join(map(chr, range(256))), "out-truncated": 1},
        ),
        (
            {"exited": True, "exitcode": 0, "err-data": encoded(b"0"), "err-truncated": False},
            {"exited": 1, "exitcode": 0, "err-data": "0", "err-truncated": 0},
        ),
    ],
)
async def test_a_process_is_told_in_numbers_and_bytes(
    vm: OneVm, guest: FakeGuest, status: dict[str, Any], answer: dict[str, Any]
) -> None:
    guest.replies["guest-exec-status"] = status

    assert await vm.call("GET", "exec-status", pid="+007") == answer
    assert arguments(guest, "guest-exec-status") == {"pid": 7}


async def test_how_a_process_ended_is_told_again_without_the_agent(vm: OneVm, guest: FakeGuest) -> None:
    guest.replies["guest-exec-status"] = {"exited": True, "exitcode": 0, "out-data": encoded(b"x")}

    first = await vm.call("GET", "exec-status", pid="7")

    assert await vm.call("GET", "exec-status", pid="7") == first
    assert guest.names() == ["guest-exec-status"]


@pytest.mark.parametrize(
    ("data", "given", "answer"),
    [
        (b"line1\nline2\n", {}, {"content": "line1\nline2\n", "bytes-read": 12}),
        (b"", {}, {"content": "", "bytes-read": 0}),
        (b"caf\xe9\x00\xff", {}, {"content": "café\0ÿ", "bytes-read": 6}),
        ("é世".encode(), {}, {"content": "Ã©ä¸\x96", "bytes-read": 5}),
        (b"line1\n", {"count": "5"}, {"content": "line1", "bytes-read": 5, "truncated": 1}),
        (b"line1\n", {"count": "6"}, {"content": "line1\n", "bytes-read": 6, "truncated": 1}),
        (b"line1\n", {"count": "7"}, {"content": "line1\n", "bytes-read": 6}),
        (b"line1\n", {"offset": "2"}, {"content": "ne1\n", "bytes-read": 4}),
        (b"line1\n", {"offset": "99"}, {"content": "", "bytes-read": 0}),
        (b"line1\n", {"offset": "2", "count": "3"}, {"content": "ne1", "bytes-read": 3, "truncated": 1}),
        (b"line1\n", {"decode": "0"}, {"content": "bGluZTEK", "bytes-read": 6}),
        (b"\xff\xfe", {"decode": "0", "count": "1"}, {"content": "/w==", "bytes-read": 1, "truncated": 1}),
    ],
)
async def test_a_file_is_read_as_far_as_asked(
    vm: OneVm, guest: FakeGuest, data: bytes, given: dict[str, str], answer: dict[str, Any]
) -> None:
    guest.files["/f"] = bytearray(data)

    assert await vm.call("GET", "file-read", file="/f", **given) == answer
    assert guest.open_handles == {}


async def test_a_long_file_is_one_base64_text(vm: OneVm, guest: FakeGuest) -> None:
    data = bytes(range(256)) * 4099
    guest.files["/f"] = bytearray(data)

    answer = await vm.call("GET", "file-read", file="/f", decode="0")

    assert answer == {"content": encoded(data), "bytes-read": len(data)}


@pytest.mark.parametrize("offset", ["9223372036854775808", "18446744073709551615"])
async def test_an_offset_beyond_all_files_is_left_to_the_agent(vm: OneVm, guest: FakeGuest, offset: str) -> None:
    guest.files["/f"] = bytearray(b"x")

    assert await vm.call("GET", "file-read", file="/f", offset=offset) == {"content": "", "bytes-read": 0}
    assert arguments(guest, "guest-file-seek")["offset"] == int(offset)


@pytest.mark.parametrize(
    ("content", "data"),
    [
        ("", b""),
        ("a\0b\n", b"a\0b\n"),
        ("café", b"caf\xe9"),
        ("é世", "é世".encode()),
        (12345, b"12345"),
        ("QUJD", b"QUJD"),
    ],
)
async def test_a_file_gets_the_bytes_of_its_content(vm: OneVm, guest: FakeGuest, content: Any, data: bytes) -> None:
    guest.files["/w"] = bytearray(b"something longer that was there before")

    assert await vm.call("POST", "file-write", file="/w", content=content) is None
    assert bytes(guest.files["/w"]) == data
    assert guest.open_handles == {}


async def test_content_that_is_base64_already_goes_on_as_it_is(vm: OneVm, guest: FakeGuest) -> None:
    assert await vm.call("POST", "file-write", file="/w", content="5LiW\n55WM", encode="0") is None
    assert arguments(guest, "guest-file-write")["buf-b64"] == "5LiW\n55WM"
    assert bytes(guest.files["/w"]) == "世界".encode()


@pytest.mark.parametrize(
    ("method", "below", "given"),
    [
        ("POST", "exec", {"command": "x"}),
        ("GET", "exec-status", {"pid": "1"}),
        ("GET", "file-read", {"file": "x"}),
        ("POST", "file-write", {"file": "x", "content": ""}),
        ("POST", "set-user-password", {"username": "x", "password": "secret12"}),
    ],
)
async def test_the_agents_error_is_an_error_of_all_other_endpoints(
    vm: OneVm, guest: FakeGuest, method: str, below: str, given: dict[str, Any]
) -> None:
    guest.fault = on_commands(
        lambda exchange: [b'{"error": {"class": "Xy", "desc": "no"}, "id": %d}\n' % exchange.request["id"]]
    )

    with pytest.raises(AgentError, match=r"^Agent error: no$") as caught:
        await vm.call(method, below, **given)
    assert caught.value.error_class == "Xy"
