"""The configuration file: TOML, read strictly; what is unknown or wrong is refused with its line and key."""

import ipaddress
import os
import re
import socket
from pathlib import Path
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta

from guestwire.addresses import (
    FORMS,
    MAX_PATH,
    AgentAddress,
    UnixAddress,
    VsockAddress,
    is_libvirt_uri,
    parse_agent_address,
)
from guestwire.toml import Refuse, read_toml

NODE_NAME: Final = re.compile(r"[a-zA-Z0-9](?:[a-zA-Z0-9\-]*[a-zA-Z0-9])?")

TAG: Final = r"^[a-z0-9_][a-z0-9_\-+.]*$"
"""As in Proxmox VE, in small letters."""

STDERR: Final = "stderr"

MIN_VMID: Final = 100
MAX_VMID: Final = 999_999_999

MAX_PORT: Final = 65535


_listen = re.compile(r"(\[[0-9a-fA-F:.%\w]+\]|[^:\[\]\s]+):[0-9]{1,5}")


def _host_name() -> str:
    return socket.gethostname().partition(".")[0]


class ServerConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[server]`."""

    listen: str = "127.0.0.1:8006"
    node: str = msgspec.field(default_factory=_host_name)
    tls: bool = True
    state_dir: str = "/var/lib/guestwire"
    trusted_proxies: list[str] = msgspec.field(default_factory=list)
    freeze_lease: Annotated[float, Meta(gt=0, le=86400)] | None = None

    @property
    def proxies(self) -> list[ipaddress.IPv4Network | ipaddress.IPv6Network]:
        """The networks of proxies that say in X-Forwarded-For for whom they call."""
        return [ipaddress.ip_network(network) for network in self.trusted_proxies]

    @property
    def address(self) -> tuple[str, int]:
        """Host and port to listen on."""
        host, _, port = self.listen.rpartition(":")
        return host.removeprefix("[").removesuffix("]"), int(port)


Command = Annotated[list[str], Meta(min_length=1)]


class PowerConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[vm.power]`: programs of this host, with their arguments, that do what QMP can't, or what it should not."""

    start: Command | None = None
    stop: Command | None = None
    shutdown: Command | None = None
    reboot: Command | None = None
    reset: Command | None = None
    suspend: Command | None = None
    resume: Command | None = None


class VmConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[[vm]]`. Without `qmp` and `running`, a VM runs when its agent's socket is there."""

    vmid: Annotated[int, Meta(ge=MIN_VMID, le=MAX_VMID)]
    name: str | None = None
    agent: str | None = None
    qmp: str | None = None
    running: bool | None = None
    description: str | None = None
    tags: list[Annotated[str, Meta(pattern=TAG)]] = msgspec.field(default_factory=list)
    power: PowerConfig = msgspec.field(default_factory=PowerConfig)

    @property
    def agent_address(self) -> AgentAddress | None:
        """The place where the agent is reached."""
        return parse_agent_address(self.agent) if self.agent else None

    @property
    def qmp_path(self) -> Path | None:
        """The QMP socket, which `agent` may name, too."""
        address = self.agent_address
        return _socket_path(self.qmp) or (address.qmp if isinstance(address, UnixAddress) else None)


class SourceConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[[source]]`: where VMs are found that no `[[vm]]` names. One of `qemu`, `folder`, `libvirt`.

    `libvirt` is a URI as virsh has it; True: the libvirts of this machine, system and session, as soon as they run.
    """

    qemu: Literal[True] | None = None
    folder: str | None = None
    libvirt: Literal[True] | str | None = None
    pattern: str = "*.qga"


class AuditConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[audit]`: how long records are kept, whether they show command lines, and where else they go: "stderr" or a file."""

    keep_days: Annotated[int, Meta(ge=1, le=36_500)] = 90
    keep_records: Annotated[int, Meta(ge=1, le=1_000_000_000)] = 1_000_000
    commands: bool = True
    lines: str | None = None


class MetricsConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[metrics]`: guests are polled, and `/metrics` is served, where it is in the file."""

    every: Annotated[float, Meta(ge=5, le=3600)] = 30.0


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The whole file; what is looked at where nothing is configured stands in `UNCONFIGURED`."""

    server: ServerConfig = msgspec.field(default_factory=ServerConfig)
    audit: AuditConfig = msgspec.field(default_factory=AuditConfig)
    metrics: MetricsConfig | None = None
    vm: list[VmConfig] = msgspec.field(default_factory=list)
    source: list[SourceConfig] = msgspec.field(default_factory=list)


def _socket_path(url: str | None) -> Path | None:
    return Path(url.removeprefix("unix:")) if url else None


UNCONFIGURED: Final = (SourceConfig(libvirt=True), SourceConfig(qemu=True))
"""Where VMs are looked for when nothing is configured, by a server and by `guestwire ls`."""


def config_without_file() -> Config:
    """The configuration where nothing is configured: the VMs of this machine are found.

    State is kept where this user may write.
    """
    home = os.environ.get("XDG_STATE_HOME") or os.path.expanduser("~/.local/state")  # noqa: PTH111  # a user may have no home
    state_dir = "/var/lib/guestwire" if os.geteuid() == 0 else f"{home}/guestwire"
    return Config(server=ServerConfig(state_dir=state_dir), source=list(UNCONFIGURED))


def read_config(path: Path | None) -> Config:
    """Reads and checks the file; None: `config_without_file`.

    Raises:
        ConfigurationError: naming file, line, key, and what is allowed.
    """
    if path is None:
        return config_without_file()
    config, refuse = read_toml(path, Config)
    _check(config, refuse)
    return config


def _check(config: Config, refuse: Refuse) -> None:
    """What types can't say."""
    _check_server(config.server, refuse)
    if config.audit.lines not in (None, STDERR) and not Path(str(config.audit.lines)).is_absolute():
        raise refuse("audit", "lines", f"'{config.audit.lines}' is neither \"{STDERR}\" nor an absolute path")
    for position, source in enumerate(config.source):
        _check_source(source, f"source[{position}]", refuse)
    seen: dict[int, int] = {}
    for position, vm in enumerate(config.vm):
        if vm.vmid in seen:
            raise refuse(f"vm[{position}]", "vmid", f"VM {vm.vmid} stands in this file twice")
        seen[vm.vmid] = position
        if vm.agent is not None and not _is_usable(vm.agent_address):
            raise refuse(
                f"vm[{position}]", "agent", f"'{vm.agent}' is none of {FORMS}, with a path of {MAX_PATH} bytes at most"
            )
        _check_socket(vm.qmp, f"vm[{position}]", "qmp", refuse)


def _check_source(source: SourceConfig, table: str, refuse: Refuse) -> None:
    if sum(one is not None for one in (source.qemu, source.folder, source.libvirt)) != 1:
        raise refuse(table, "qemu", 'a source is one of qemu = true, folder = "/PATH", and libvirt = "qemu:///system"')
    if isinstance(source.libvirt, str) and not is_libvirt_uri(source.libvirt):
        why = f"'{source.libvirt}' names no libvirt: qemu:///system, or qemu+ssh://HOST/system"
        raise refuse(table, "libvirt", why)
    if source.folder is not None and not Path(source.folder).is_absolute():
        raise refuse(table, "folder", f"'{source.folder}' is not an absolute path")
    if not source.pattern or source.pattern.startswith("/") or ".." in source.pattern.split("/"):
        raise refuse(table, "pattern", f"'{source.pattern}' is no pattern below the folder, as *.qga or */agent.sock")


def _is_usable(address: AgentAddress | None) -> bool:
    if address is None or isinstance(address, VsockAddress):
        return address is not None
    paths = [address.path]
    if isinstance(address, UnixAddress) and address.qmp:
        paths.append(address.qmp)
    return all(path.is_absolute() and len(os.fsencode(path)) <= MAX_PATH for path in paths)


def _check_server(server: ServerConfig, refuse: Refuse) -> None:
    if not _listen.fullmatch(server.listen) or server.address[1] > MAX_PORT:
        raise refuse("server", "listen", f"'{server.listen}' is not HOST:PORT; an IPv6 address needs brackets")
    if not NODE_NAME.fullmatch(server.node):
        raise refuse("server", "node", f"'{server.node}' is not a node's name: letters, digits and dashes")
    for network in server.trusted_proxies:
        try:
            ipaddress.ip_network(network)
        except ValueError as error:
            raise refuse(
                "server", "trusted_proxies", f"{error}: write an address, or a network as 10.0.0.0/8"
            ) from None
    if not Path(server.state_dir).is_absolute():
        raise refuse("server", "state_dir", f"'{server.state_dir}' is not an absolute path")


def _check_socket(url: str | None, table: str, key: str, refuse: Refuse) -> None:
    if url is None:
        return
    path = url.removeprefix("unix:")
    if not url.startswith("unix:/") or len(path.encode()) > MAX_PATH:
        raise refuse(table, key, f"'{url}' is not unix:/PATH with a path of {MAX_PATH} bytes at most")
