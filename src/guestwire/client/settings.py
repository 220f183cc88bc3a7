"""Settings of a connection, from arguments, the environment, or a profile in `~/.config/guestwire/config.toml`.

A target is a URL, everywhere the same: `https://host:8006` (Proxmox VE or guestwire), `qemu:///system` (libvirt),
`unix:/path/to.qga` (an agent itself), `unix:/path/to.qga?qmp=/path/to.qmp` (and its VM's QEMU).

Arguments come first, then the profile that is named, then the environment, then the profile `default`. Who calls and
which certificate is accepted are each from one of them: a token is never mixed with another's password, nor a CA with
another's fingerprint. A profile:

    [lab]
    host = "https://pve1:8006"
    token_file = "~/.config/guestwire/lab.token"    # or: token = "USER@REALM!NAME=SECRET"; or: user and password
    fingerprint = "AA:BB:…"                          # or: ca = "/etc/ssl/lab.pem"
"""

import os
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import msgspec

from guestwire.addresses import FORMS, AgentAddress, is_agent_address, is_libvirt_uri, parse_agent_address
from guestwire.errors import ConfigurationError

ENVIRONMENT: Final = {
    "host": "GUESTWIRE_HOST",
    "token": "GUESTWIRE_TOKEN",
    "token_file": "GUESTWIRE_TOKEN_FILE",
    "user": "GUESTWIRE_USER",
    "password": "GUESTWIRE_PASSWORD",
    "ca": "GUESTWIRE_CA",
    "fingerprint": "GUESTWIRE_FINGERPRINT",
}
PROFILES: Final = "config.toml"
DEFAULT_PROFILE: Final = "default"

_IDENTITY: Final = frozenset({"token", "token_file", "user"})
_CALLER: Final = _IDENTITY | {"password"}
_TRUST: Final = frozenset({"ca", "fingerprint", "verify"})

PORT: Final = 8006

_https = re.compile(r"(?P<scheme>https?)://(?P<host>\[[0-9a-fA-F:.]+\]|[\w.-]+)(?::(?P<port>[0-9]{1,5}))?/?")
_token = re.compile(r"[^\s\x00-\x1f\x7f\ud800-\udfff]*")  # more is not known here of what a server takes
_fingerprint = re.compile(r"(?:[0-9A-Fa-f]{2}:){31}[0-9A-Fa-f]{2}")


@dataclass(frozen=True, slots=True)
class Credentials:
    """A token (`USER@REALM!NAME=SECRET`), or user and password; not shown."""

    token: str = field(default="", repr=False)
    user: str = ""
    password: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class Trust:
    """The certificates that are accepted.

    Those of a CA (`ca`: a file), the one with this SHA-256 fingerprint, or, with `verify=False`, any.
    """

    ca: Path | None = None
    fingerprint: str = ""
    verify: bool = True


@dataclass(frozen=True, slots=True)
class Https:
    """A server; `scheme` is http only where it was asked for by name."""

    scheme: str
    host: str
    port: int

    def __str__(self) -> str:
        return f"{self.scheme}://{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Local:
    """This machine: the VMs that run here are found."""

    def __str__(self) -> str:
        return LOCAL


LOCAL: Final = "local:"


@dataclass(frozen=True, slots=True)
class LibvirtUri:
    """A libvirt, as virsh names it."""

    uri: str

    def __str__(self) -> str:
        return self.uri


Target = Https | Local | LibvirtUri | AgentAddress


def parse_target(text: str) -> Target:
    """Reads a target; a bare host name means HTTPS on Proxmox VE's port.

    Raises:
        ConfigurationError: it is none.
    """
    how = (
        f"write https://HOST:8006, {LOCAL} for the VMs of this machine, qemu:///system for libvirt, or for an agent's own socket"
        f" {FORMS}"
    )
    if text == LOCAL:
        return Local()
    if is_libvirt_uri(text):
        return LibvirtUri(text)
    if is_agent_address(text):
        address = parse_agent_address(text)
        if address is None:
            raise ConfigurationError(f"{text!a} is no target; {how}")
        return address
    found = _https.fullmatch(text if "://" in text else f"https://{text}")
    if not found or not 0 < int(found["port"] or PORT) < 65536:  # noqa: PLR2004  # a TCP port
        if "@" in text:
            how = "a user and a password stand in GUESTWIRE_USER and GUESTWIRE_PASSWORD, or in a profile"
            text = text.rpartition("@")[2]  # what stands before may be a secret
        raise ConfigurationError(f"{text!a} is no target; {how}")
    return Https(found["scheme"], found["host"], int(found["port"] or PORT))


def _is_text(path: str) -> bool:
    try:
        os.fsencode(path)
    except UnicodeEncodeError:
        return False
    return True


def expand_home(text: str) -> Path:
    """A path that may begin with `~` or `~USER`.

    Raises:
        ConfigurationError: nothing says where that home is, or no path can be so.
    """
    if "\0" in text or not _is_text(text):
        raise ConfigurationError(f"{text!a}: no path can be so")
    try:
        return Path(text).expanduser()
    except RuntimeError:
        raise ConfigurationError(f"{text}: there is no such home folder; write the whole path, or set HOME") from None


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """All that is needed to connect; secrets are not shown."""

    host: str | None = None
    token: str | None = None
    token_file: str | None = None
    user: str | None = None
    password: str | None = None
    ca: str | None = None
    fingerprint: str | None = None
    verify: bool = True

    def __repr__(self) -> str:
        return f"Settings(host={self.host!r}, …)"

    def credentials(self) -> Credentials:
        """Token, or user and password.

        Raises:
            ConfigurationError: the token is none, or its file can't be read, or everybody can read it.
        """
        token = self.token or (_read_token(expand_home(self.token_file)) if self.token_file else "")
        if not _token.fullmatch(token):
            where = "GUESTWIRE_TOKEN, or what was given" if self.token else self.token_file
            raise ConfigurationError(f"{where}: this is no token, USER@REALM!NAME=SECRET on one line")
        if self.user and not token:
            if "@" not in self.user:
                raise ConfigurationError(f"user '{self.user}': write NAME@REALM, as {self.user}@pve or {self.user}@pam")
            if not self.password:
                raise ConfigurationError(
                    f"there is no password for {self.user}: set GUESTWIRE_PASSWORD, or write it into a profile"
                )
        return Credentials(token=token, user=self.user or "", password=self.password or "")

    def trust(self) -> Trust:
        """The certificate that is accepted.

        Raises:
            ConfigurationError: the fingerprint is none, or there is no such file.
        """
        if self.fingerprint and not _fingerprint.fullmatch(self.fingerprint):
            raise ConfigurationError(f"'{self.fingerprint}' is no SHA-256 fingerprint: AA:BB:… with 32 bytes")
        ca = expand_home(self.ca) if self.ca else None
        if ca and not ca.is_file():
            raise ConfigurationError(f"{ca}: no such file; it should hold the CA's certificate")
        return Trust(ca=ca, fingerprint=self.fingerprint or "", verify=self.verify)


def settings_for(
    given: Mapping[str, str | bool | None], *, profile: str | None = None, environ: Mapping[str, str] = os.environ
) -> Settings:
    """The settings that follow from what is given, the environment and the profile.

    Raises:
        ConfigurationError: the profile is not there, says something unknown, or others can read its secrets.
    """
    in_environment = {name: environ[variable] for name, variable in ENVIRONMENT.items() if environ.get(variable)}
    chosen = _complete({name: value for name, value in given.items() if value is not None}, {})
    if profile:
        chosen = _complete(chosen, _profile(profile, environ))
    chosen = _complete(chosen, in_environment)
    if "host" not in chosen:
        chosen = _complete(chosen, _profile(environ.get("GUESTWIRE_PROFILE"), environ))
    for setting, value in chosen.items():
        if isinstance(value, str) and ("\0" in value or not _is_text(value)):
            raise ConfigurationError(f"{setting}: it holds what is no text")
    try:
        return msgspec.convert(chosen, Settings)
    except msgspec.ValidationError as error:
        raise ConfigurationError(f"the profile can't be used: {error}") from error


def _complete(chosen: dict[str, object], more: Mapping[str, object]) -> dict[str, object]:
    """Adds settings that were not chosen yet.

    A password alone does not say who calls: it is for the user that is named elsewhere.
    """
    known = set(chosen)
    is_password_alone = _IDENTITY.isdisjoint(more) and not {"token", "token_file"} & known
    if _IDENTITY & known and not is_password_alone:
        known |= _CALLER
    if _TRUST & known:
        known |= _TRUST
    return {**chosen, **{name: value for name, value in more.items() if name not in known}}


def config_folder(environ: Mapping[str, str] = os.environ) -> Path:
    """Where a user's configuration is: `~/.config/guestwire`.

    Raises:
        ConfigurationError: nothing says where the user's home is.
    """
    base = environ.get("XDG_CONFIG_HOME") or expand_home(environ.get("HOME") or "~") / ".config"
    return Path(base) / "guestwire"


def _profile(name: str | None, environ: Mapping[str, str]) -> dict[str, object]:
    try:
        path = config_folder(environ) / PROFILES
    except ConfigurationError:
        if name:
            raise
        return {}  # a service without a home has no profiles
    profiles = _read_profiles(path)
    if profiles is None:
        if name:
            raise ConfigurationError(f"{path}: no such file; it should hold the profile '{name}'")
        return {}
    found = profiles.get(name or DEFAULT_PROFILE)
    if found is None and name:
        raise ConfigurationError(f"{path}: no profile '{name}'; there are {', '.join(sorted(profiles)) or 'none'}")
    if (
        found is not None
        and {"token", "password"} & found.keys()
        and path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO)
    ):
        raise ConfigurationError(f"{path}: others can read the secrets in it; chmod 600 {path}")
    return dict(found or {})


def _read_profiles(path: Path) -> dict[str, dict[str, object]] | None:
    import tomllib  # noqa: PLC0415  # profiles are few

    try:
        return {name: table for name, table in tomllib.loads(path.read_text()).items() if isinstance(table, dict)}
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise ConfigurationError(f"{path}: {error.strerror}") from error
    except ValueError as error:
        raise ConfigurationError(f"{path}: {error}") from error


def _read_token(path: Path) -> str:
    try:
        if path.stat().st_mode & stat.S_IROTH:
            raise ConfigurationError(f"{path}: everybody can read the token in it; chmod o-r {path}")
        return path.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or error
        raise ConfigurationError(f"{path}: {why}; it should hold a token, USER@REALM!NAME=SECRET") from error
