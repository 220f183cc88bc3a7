"""The configuration file: what it may say, and how it is refused: by file, line and key."""

import socket
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from guestwire.addresses import UnixAddress
from guestwire.errors import ConfigurationError
from guestwire.inventory import Config, ServerConfig, VmConfig, read_config

Read = Callable[[str | bytes], Config]
Refusal = Callable[[str | bytes], str]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "guestwire.toml"


@pytest.fixture
def read(file: Path) -> Read:
    def read(content: str | bytes) -> Config:
        file.write_bytes(content.encode() if isinstance(content, str) else content)
        return read_config(file)

    return read


@pytest.fixture
def refusal(file: Path, read: Read) -> Refusal:
    """Why the content is refused, without the file's name, which stands first in every refusal."""

    def refusal(content: str | bytes) -> str:
        with pytest.raises(ConfigurationError) as caught:
            read(content)
        text = str(caught.value)
        assert text.startswith(str(file))
        return text.removeprefix(str(file)).removeprefix(", ")

    return refusal


def test_everything_can_be_said(read: Read) -> None:
    config = read("""
[server]
listen = "0.0.0.0:443"
node = "pve1"
tls = false
state_dir = "/srv/guestwire"

[[vm]]
vmid = 100
name = "web"
agent = "unix:/run/vm/100.qga"
qmp = "unix:/run/vm/100.qmp"

[[vm]]
vmid = 999999999
running = true
""")

    assert config == Config(
        server=ServerConfig(listen="0.0.0.0:443", node="pve1", tls=False, state_dir="/srv/guestwire"),
        vm=[
            VmConfig(vmid=100, name="web", agent="unix:/run/vm/100.qga", qmp="unix:/run/vm/100.qmp"),
            VmConfig(vmid=999999999, running=True),
        ],
    )


@pytest.mark.parametrize("content", ["", "# nothing\n", "[server]\n", "vm = []\n"])
def test_nothing_need_be_said(read: Read, content: str) -> None:
    config = read(content)

    assert config == Config()
    assert (config.server.listen, config.server.tls, config.vm) == ("127.0.0.1:8006", True, [])


def test_a_node_is_named_like_its_host_when_nothing_is_said(read: Read) -> None:
    assert read("").server.node == socket.gethostname().partition(".")[0]


def test_a_vm_needs_only_its_id(read: Read) -> None:
    [vm] = read("[[vm]]\nvmid = 100\n").vm

    assert (vm.name, vm.agent_address, vm.qmp_path, vm.running) == (None, None, None, None)


def test_sockets_are_paths(read: Read) -> None:
    [vm] = read('[[vm]]\nvmid = 100\nagent = "unix:/run/ä b.qga"\nqmp = "unix:/q"\n').vm

    assert (vm.agent_address, vm.qmp_path) == (UnixAddress(Path("/run/ä b.qga")), Path("/q"))


@pytest.mark.parametrize(
    ("listen", "address"),
    [
        ("127.0.0.1:8006", ("127.0.0.1", 8006)),
        ("localhost:0", ("localhost", 0)),
        ("host.example.org:65535", ("host.example.org", 65535)),
        ("[::1]:8006", ("::1", 8006)),
        ("[::]:443", ("::", 443)),
    ],
)
def test_an_address_is_a_host_and_a_port_with_ipv6_in_brackets(
    read: Read, listen: str, address: tuple[str, int]
) -> None:
    assert read(f'[server]\nlisten = "{listen}"\n').server.address == address


@pytest.mark.parametrize(
    "listen",
    [
        "",
        "8006",
        "localhost",
        "localhost:",
        ":8006",
        "localhost:http",
        "localhost:-1",
        "localhost:65536",
        "localhost:80 ",
        "localhost:8006/",
        "[::1]",
        "::1",
        "[::1:8006",
        "[]:8006",
        "localhost:٨٠",
        "localhost:" + "9" * 5000,
    ],
)
def test_any_other_address_is_refused(refusal: Refusal, listen: str) -> None:
    assert (
        refusal(f'[server]\nlisten = "{listen}"\n')
        == f"line 2: 'listen': '{listen}' is not HOST:PORT; an IPv6 address needs brackets"
    )


def test_trusted_proxies_are_addresses_and_networks(read: Read) -> None:
    proxies = read('[server]\ntrusted_proxies = ["10.0.0.0/8", "::1"]\n').server.proxies

    assert list(map(str, proxies)) == ["10.0.0.0/8", "::1/128"]


@pytest.mark.parametrize("network", ["", "10.0.0.1/8", "localhost", "10.0.0.0/33"])
def test_another_proxy_is_refused(refusal: Refusal, network: str) -> None:
    said = refusal(f'[server]\ntrusted_proxies = ["{network}"]\n')

    assert said.startswith("line 2: 'trusted_proxies': ")
    assert said.endswith(": write an address, or a network as 10.0.0.0/8")


@pytest.mark.parametrize("node", ["", "-a", "a-", "a_b", "a.b", "ä", "a b", "a\\n"])
def test_a_node_is_letters_digits_and_dashes(refusal: Refusal, node: str) -> None:
    assert "line 2: 'node': " in refusal(f'[server]\nnode = "{node}"\n')
    assert "is not a node's name: letters, digits and dashes" in refusal(f'[server]\nnode = "{node}"\n')


@pytest.mark.parametrize("folder", ["", "state", "./state", "~/state"])
def test_the_folder_for_state_is_an_absolute_path(refusal: Refusal, folder: str) -> None:
    expected = f"line 3: 'state_dir': '{folder}' is not an absolute path"

    assert refusal(f'[server]\ntls = true\nstate_dir = "{folder}"\n') == expected


NO_SOCKETS = ["", "/run/a", "unix:", "unix:run/a", "unix:./a", "UNIX:/a", "http://a/b"]


@pytest.mark.parametrize("url", [*NO_SOCKETS, "vsock:3:1"])
def test_a_qmp_socket_is_an_absolute_path_after_unix(refusal: Refusal, url: str) -> None:
    expected = f"line 3: 'qmp': '{url}' is not unix:/PATH with a path of 107 bytes at most"

    assert refusal(f'[[vm]]\nvmid = 100\nqmp = "{url}"\n') == expected


def test_an_agents_address_may_name_the_qmp_socket_too(read: Read) -> None:
    vm = read('[[vm]]\nvmid = 100\nagent = "unix:/run/a?qmp=/run/q"\n').vm[0]
    assert (vm.agent_address, vm.qmp_path) == (UnixAddress(Path("/run/a"), Path("/run/q")), Path("/run/q"))


@pytest.mark.parametrize(
    "url", [*NO_SOCKETS, "unix:/a?qmp=", "unix:/a?qmp=q", "vsock:3", "vsock:0:1", "hybrid-vsock:/a", "hybrid-vsock:a:1"]
)
def test_an_agent_has_an_address_of_a_known_form(refusal: Refusal, url: str) -> None:
    forms = (
        "unix:/PATH, unix:/PATH?qmp=/PATH, vsock:CID:PORT or hybrid-vsock:/PATH:PORT, with a path of 107 bytes at most"
    )

    assert refusal(f'[[vm]]\nvmid = 100\nagent = "{url}"\n') == f"line 3: 'agent': '{url}' is none of {forms}"


@pytest.mark.parametrize("url", ["vsock:3:1024", "hybrid-vsock:/run/fc/v.sock:1024"])
def test_an_agent_may_be_behind_vsock(read: Read, url: str) -> None:
    assert str(read(f'[[vm]]\nvmid = 100\nagent = "{url}"\n').vm[0].agent_address) == url


@pytest.mark.parametrize("path", ["/" + "a" * 106, "/" + "ü" * 53])
def test_a_socket_may_be_as_long_as_the_kernel_allows(read: Read, path: str) -> None:
    assert read(f'[[vm]]\nvmid = 100\nagent = "unix:{path}"\n').vm[0].agent_address == UnixAddress(Path(path))


@pytest.mark.parametrize("path", ["/" + "a" * 107, "/" + "ü" * 53 + "a"])
def test_a_socket_that_is_longer_is_refused_because_bytes_count(refusal: Refusal, path: str) -> None:
    assert refusal(f'[[vm]]\nvmid = 100\nagent = "unix:{path}"\n').startswith("line 3: 'agent': ")


def test_a_vm_may_stand_in_the_file_once(refusal: Refusal) -> None:
    content = '[[vm]]\nvmid = 100\n\n[[vm]]\nvmid = 101\n\n[[vm]]\nname = "again"\nvmid = 100\n'

    assert refusal(content) == "line 9: 'vmid': VM 100 stands in this file twice"


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (
            "[server]\nfoo = 1\n",
            "line 2: unknown key 'foo'; known are listen, node, tls, state_dir, trusted_proxies, freeze_lease",
        ),
        (
            "\n[ server ]\n\n  foo = 1\n",
            "line 4: unknown key 'foo'; known are listen, node, tls, state_dir, trusted_proxies, freeze_lease",
        ),
        (
            '[server]\n"foo" = 1\n',
            "line 2: unknown key 'foo'; known are listen, node, tls, state_dir, trusted_proxies, freeze_lease",
        ),
        (
            "[server]\nListen = 1\n",
            "line 2: unknown key 'Listen'; known are listen, node, tls, state_dir, trusted_proxies, freeze_lease",
        ),
        ("foo = 1\n", "line 1: unknown key 'foo'; known are server, audit, metrics, vm, source"),
        ("# first\n\n[foo]\na = 1\n", "line 3: unknown key 'foo'; known are server, audit, metrics, vm, source"),
        (
            "[server]\n\n[[vms]]\nvmid = 100\n",
            "line 3: unknown key 'vms'; known are server, audit, metrics, vm, source",
        ),
        (
            "[[vm]]\nvmid = 100\nfoo = 1\n",
            "line 3: unknown key 'foo'; known are vmid, name, agent, qmp, running, description, tags, power",
        ),
        (
            "[[vm]]\nvmid = 100\n\n[[vm]]\nvmid = 101\nfoo = 1\n",
            "line 6: unknown key 'foo'; known are vmid, name, agent, qmp, running, description, tags, power",
        ),
        (
            "[[vm]]\nvmid = 100\n[server]\ntls = true\n[[vm]]\nvmid = 101\nfoo = 1\n",
            "line 7: unknown key 'foo'; known are vmid, name, agent, qmp, running, description, tags, power",
        ),
    ],
)
def test_an_unknown_key_is_refused_with_those_that_are_known(refusal: Refusal, content: str, problem: str) -> None:
    assert refusal(content) == problem


@pytest.mark.parametrize(
    ("content", "line"), [('[[vm]]\nname = "a"\n', 1), ('[[vm]]\nvmid = 100\n\n[[vm]]\nname = "a"\n', 4), ("[[vm]]", 1)]
)
def test_a_vm_without_id_is_refused_at_its_table(refusal: Refusal, content: str, line: int) -> None:
    assert refusal(content) == f"line {line}: the key 'vmid' is missing"


@pytest.mark.parametrize(
    ("vmid", "limit"),
    [
        ("99", "least 100"),
        ("0", "least 100"),
        ("-100", "least 100"),
        ("1000000000", "most 999999999"),
        ("9" * 30, "most 999999999"),
    ],
)
def test_a_vmid_out_of_its_limits_is_refused(refusal: Refusal, vmid: str, limit: str) -> None:
    assert refusal(f"[[vm]]\n\nvmid = {vmid}\n") == f"line 3: 'vmid': expected a whole number of at {limit}"


@pytest.mark.parametrize(
    ("content", "line", "key"),
    [
        ("[server]\nlisten = 8006\n", 2, "listen"),
        ('[server]\n\ntls = "yes"\n', 3, "tls"),
        ("[server]\nnode = [1]\n", 2, "node"),
        ("\nserver = 5\n", 2, "server"),
        ("[[server]]\n", 1, "server"),
        ("vm = 5\n", 1, "vm"),
        ("\n[vm]\nvmid = 100\n", 2, "vm"),
        ("vm = [5]\n", 1, "vm"),
        ('[[vm]]\nvmid = "100"\n', 2, "vmid"),
        ("[[vm]]\nvmid = 100.0\n", 2, "vmid"),
        ("[[vm]]\nvmid = true\n", 2, "vmid"),
        ("[[vm]]\nvmid = 100\n[[vm]]\nvmid = 101\nname = 5\n", 5, "name"),
        ("[[vm]]\nvmid = 100\nagent = 5\n", 3, "agent"),
        ('[[vm]]\nvmid = 100\nrunning = "no"\n', 3, "running"),
    ],
)
def test_a_value_of_the_wrong_type_is_refused_with_its_line_and_key(
    refusal: Refusal, content: str, line: int, key: str
) -> None:
    text = refusal(content)

    assert text.startswith(f"line {line}: ")
    assert key in text
    assert "missing" not in text


@pytest.mark.parametrize(
    ("content", "line"),
    [("[server\n", 1), ("\n\nlisten = \n", 3), ("[server]\na = 1\na = 2\n", 3), ("[server]\n[server]\n", 2), ("\0", 1)],
)
def test_what_is_no_toml_is_refused_with_its_line(refusal: Refusal, content: str, line: int) -> None:
    assert f"at line {line}, column " in refusal(content) or "at end of document" in refusal(content)


def test_what_is_no_utf8_is_refused(refusal: Refusal) -> None:
    assert "utf-8" in refusal(b'[server]\nnode = "\xff"\n')


@pytest.mark.parametrize(
    "content",
    [
        "a = " + "9" * 5000,
        "a = " + "[" * 9999 + "]" * 9999,
    ],
)
def test_what_the_toml_parser_cannot_bear_is_refused(refusal: Refusal, content: str) -> None:
    assert refusal(content)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError) as refusal:
        read_config(tmp_path / "none.toml")
    assert (
        str(refusal.value) == f"{tmp_path}/none.toml: No such file or directory; name a file in TOML that you may read"
    )


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError) as refusal:
        read_config(tmp_path)
    assert str(refusal.value) == f"{tmp_path}: Is a directory; name a file in TOML that you may read"


WORDS: Final = st.sampled_from(
    [
        "server",
        "vm",
        "[",
        "]",
        "{",
        "}",
        "=",
        ",",
        ".",
        "\n",
        "#",
        '"',
        "'",
        "vmid",
        "listen",
        "agent",
        "100",
        "unix:/a",
    ]
)
VALUES: Final = st.sampled_from(
    ["1", "100", "-0.5", "inf", "true", "[]", "{}", "[[1]]", "{a = 1}", "1979-05-27", "07:32:00"]
)
TEXTS: Final = st.text(st.sampled_from("a:/[]1. `$-ü")).map(lambda text: f'"{text}"')
KEYS: Final = st.sampled_from([*ServerConfig.__struct_fields__, *VmConfig.__struct_fields__, "x"])
LINES: Final = st.sampled_from(["[server]", "[[vm]]", "[vm]", "", "# x"]) | st.builds(
    "{} = {}".format, KEYS, VALUES | TEXTS
)


def is_read_or_refused(content: bytes) -> bool:
    """Whether it is either; any other exception comes through."""
    with tempfile.NamedTemporaryFile(suffix=".toml") as file:
        Path(file.name).write_bytes(content)
        try:
            return isinstance(read_config(Path(file.name)), Config)
        except ConfigurationError as error:
            return str(error).startswith(file.name)


@given(st.binary() | st.lists(WORDS).map("".join).map(str.encode) | st.text().map(str.encode))
def test_any_bytes_are_a_configuration_or_refused(content: bytes) -> None:
    assert is_read_or_refused(content)


@given(st.lists(LINES, max_size=8).map("\n".join))
@example("[[vm]]\nvmid = true")
@settings(report_multiple_bugs=False)
def test_any_values_of_any_keys_are_a_configuration_or_refused(content: str) -> None:
    assert is_read_or_refused(content.encode())


@given(
    vms=st.lists(
        st.builds(
            VmConfig,
            vmid=st.integers(100, 999_999_999),
            agent=st.none() | st.from_regex(r"unix:/[a-zü\- .]{0,50}", fullmatch=True),
            running=st.none() | st.booleans(),
        ),
        unique_by=lambda vm: vm.vmid,
        max_size=4,
    )
)
def test_what_is_written_is_read(vms: list[VmConfig]) -> None:
    lines = []
    for vm in vms:
        lines += ["[[vm]]", f"vmid = {vm.vmid}"]
        lines += [f'agent = "{vm.agent}"'] if vm.agent else []
        lines += [f"running = {str(vm.running).lower()}"] if vm.running is not None else []
    with tempfile.NamedTemporaryFile("w", suffix=".toml", encoding="utf-8") as file:
        file.write("\n".join(lines))
        file.flush()
        assert read_config(Path(file.name)).vm == vms
