"""The configuration file: TOML, read strictly; what is unknown or wrong is refused with its line and key."""

import re
import socket
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta

from guestwire.errors import ConfigurationError

NODE_NAME: Final = re.compile(r"[a-zA-Z0-9](?:[a-zA-Z0-9\-]*[a-zA-Z0-9])?")

STDERR: Final = "stderr"

MAX_PORT: Final = 65535

MAX_SOCKET_PATH: Final = 107
"""Bytes: the kernel's limit for the name of a UNIX socket."""


_listen = re.compile(r"(\[[0-9a-fA-F:.%\w]+\]|[^:\[\]\s]+):[0-9]{1,5}")


def _host_name() -> str:
    return socket.gethostname().partition(".")[0]


class ServerConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[server]`."""

    listen: str = "127.0.0.1:8006"
    node: str = msgspec.field(default_factory=_host_name)
    tls: bool = True
    state_dir: str = "/var/lib/guestwire"

    @property
    def address(self) -> tuple[str, int]:
        """Host and port to listen on."""
        host, _, port = self.listen.rpartition(":")
        return host.removeprefix("[").removesuffix("]"), int(port)


class VmConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[[vm]]`. Without `qmp` and `running`, a VM runs when its agent's socket is there."""

    vmid: Annotated[int, Meta(ge=100, le=999_999_999)]
    name: str | None = None
    agent: str | None = None
    qmp: str | None = None
    running: bool | None = None

    @property
    def agent_path(self) -> Path | None:
        """The agent's socket."""
        return _socket_path(self.agent)

    @property
    def qmp_path(self) -> Path | None:
        """The QMP socket."""
        return _socket_path(self.qmp)


class AuditConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[audit]`: how long records are kept, whether they show command lines, and where else they go: "stderr" or a file."""

    keep_days: Annotated[int, Meta(ge=1, le=36_500)] = 90
    keep_records: Annotated[int, Meta(ge=1, le=1_000_000_000)] = 1_000_000
    commands: bool = True
    lines: str | None = None


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The whole file."""

    server: ServerConfig = msgspec.field(default_factory=ServerConfig)
    audit: AuditConfig = msgspec.field(default_factory=AuditConfig)
    vm: list[VmConfig] = msgspec.field(default_factory=list)


def _socket_path(url: str | None) -> Path | None:
    return Path(url.removeprefix("unix:")) if url else None


def read_config(path: Path) -> Config:
    """Reads and checks the file.

    Raises:
        ConfigurationError: naming file, line, key, and what is allowed.
    """
    try:
        text = path.read_text()
        data = tomllib.loads(text)
    except OSError as error:
        raise ConfigurationError(f"{path}: {error.strerror}") from error
    except RecursionError as error:
        raise ConfigurationError(f"{path}: nested too deeply") from error
    except ValueError as error:  # also a number or text that Python refuses to read
        raise ConfigurationError(f"{path}: {error}") from error
    try:
        config = msgspec.convert(data, Config)
    except msgspec.ValidationError as error:
        raise ConfigurationError(_explained(path, text, str(error))) from error
    _check(path, text, config)
    return config


_at = re.compile(r"(?P<what>.*?)(?: - at `\$\.?(?P<where>[^`]*)`)?", re.DOTALL)
_field = re.compile(r"(unknown|required) field `([^`]+)`")
_item = re.compile(r"(?P<array>[^.\[]*)\[\d+\]")


def _explained(path: Path, text: str, problem: str) -> str:
    """What msgspec found wrong, with the line of the key they are about."""
    found = _at.fullmatch(problem)
    what, where = (found["what"], found["where"] or "") if found else (problem, "")
    if field := _field.search(what):
        table, key = where, field[2]
        known = _fields(table)
        what = f"unknown key '{key}'; known are {known}" if field[1] == "unknown" else f"the key '{key}' is missing"
    else:
        table, _, key = where.rpartition(".")
        if item := _item.fullmatch(key):
            key = item["array"]
        what = f"'{key}': {what}"
    return f"{path}, line {_line(text, table, key)}: {what}"


def _fields(table: str) -> str:
    struct = _TABLES.get(table.partition("[")[0], Config)
    return ", ".join(field.name for field in msgspec.structs.fields(struct))


_TABLES: Final[dict[str, type[msgspec.Struct]]] = {"server": ServerConfig, "audit": AuditConfig, "vm": VmConfig}


_header = re.compile(r"\s*\[{1,2}\s*([\w\"'-]+)")


def _line(text: str, table: str, key: str) -> int:
    """The line of `key` in the table `server`, `vm[0]`…; the table's own line when the key is not there, else the first."""
    name, _, position = table.partition("[")
    wanted, seen = int(position.rstrip("]")) if position else 0, -1
    inside, header = not table, 0
    for number, line in enumerate(text.splitlines(), 1):
        if found := _header.match(line):
            is_ours = found[1].strip("\"'") == (name or key)
            seen += is_ours
            inside = is_ours and seen == wanted
            header = number if inside else header
            if inside and not table:
                return number
        elif inside and re.match(rf"\s*[\"']?{re.escape(key)}[\"']?\s*=", line):
            return number
    return header or _line_of_word(text, key) or 1


def _line_of_word(text: str, key: str) -> int:
    """Where `key` stands in a table that is written in one line; 0 when nowhere."""
    word = re.compile(rf"\b{re.escape(key)}\b")
    return next((number for number, line in enumerate(text.splitlines(), 1) if key and word.search(line)), 0)


def _check(path: Path, text: str, config: Config) -> None:
    """What types can't say."""

    def refuse(table: str, key: str, what: str) -> None:
        raise ConfigurationError(f"{path}, line {_line(text, table, key)}: '{key}': {what}")

    _check_server(config.server, refuse)
    if config.audit.lines not in (None, STDERR) and not Path(str(config.audit.lines)).is_absolute():
        refuse("audit", "lines", f"'{config.audit.lines}' is neither \"{STDERR}\" nor an absolute path")
    seen: dict[int, int] = {}
    for position, vm in enumerate(config.vm):
        if vm.vmid in seen:
            refuse(f"vm[{position}]", "vmid", f"VM {vm.vmid} stands in this file twice")
        seen[vm.vmid] = position
        _check_socket(vm.agent, f"vm[{position}]", "agent", refuse)
        _check_socket(vm.qmp, f"vm[{position}]", "qmp", refuse)


Refuse = Callable[[str, str, str], Any]


def _check_server(server: ServerConfig, refuse: Refuse) -> None:
    if not _listen.fullmatch(server.listen) or server.address[1] > MAX_PORT:
        refuse("server", "listen", f"'{server.listen}' is not HOST:PORT; an IPv6 address needs brackets")
    if not NODE_NAME.fullmatch(server.node):
        refuse("server", "node", f"'{server.node}' is not a node's name: letters, digits and dashes")
    if not Path(server.state_dir).is_absolute():
        refuse("server", "state_dir", f"'{server.state_dir}' is not an absolute path")


def _check_socket(url: str | None, table: str, key: str, refuse: Refuse) -> None:
    if url is None:
        return
    path = url.removeprefix("unix:")
    if not url.startswith("unix:/") or len(path.encode()) > MAX_SOCKET_PATH:
        refuse(table, key, f"'{url}' is not unix:/PATH with a path of {MAX_SOCKET_PATH} bytes at most")
