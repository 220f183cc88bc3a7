"""Which host, and with which credentials: from arguments, the environment, or a profile in `~/.config/guestwire/config.toml`.

What is given comes first, then the environment, then the profile. A profile:

    [lab]
    host = "https://pve1:8006"
    token_file = "~/.config/guestwire/lab.token"    # or: token = "USER@REALM!NAME=SECRET"; or: user and password
    fingerprint = "AA:BB:…"                          # or: ca = "/etc/ssl/lab.pem"
"""

import os
import re
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import msgspec

from guestwire.client.credentials import Credentials, Trust
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

_fingerprint = re.compile(r"(?:[0-9A-Fa-f]{2}:){31}[0-9A-Fa-f]{2}")


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
            ConfigurationError: the token's file can't be read, or everybody can read it.
        """
        token = self.token or (_read_token(Path(self.token_file).expanduser()) if self.token_file else "")
        return Credentials(token=token, user=self.user or "", password=self.password or "")

    def trust(self) -> Trust:
        """Whose certificate is taken.

        Raises:
            ConfigurationError: the fingerprint is none, or there is no such file.
        """
        if self.fingerprint and not _fingerprint.fullmatch(self.fingerprint):
            raise ConfigurationError(f"'{self.fingerprint}' is no SHA-256 fingerprint: AA:BB:… with 32 bytes")
        ca = Path(self.ca).expanduser() if self.ca else None
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
    chosen = {name: value for name, value in given.items() if value is not None}
    in_environment = {name: environ[variable] for name, variable in ENVIRONMENT.items() if environ.get(variable)}
    if {"token", "user"} & chosen.keys():
        in_environment = {
            name: value
            for name, value in in_environment.items()
            if name not in ("token", "token_file", "user", "password")
        }
    from_profile = (
        _profile(profile or environ.get("GUESTWIRE_PROFILE"), environ)
        if "host" not in {**in_environment, **chosen} or profile
        else {}
    )
    try:
        return msgspec.convert({**from_profile, **in_environment, **chosen}, Settings)
    except msgspec.ValidationError as error:
        raise ConfigurationError(f"the profile can't be used: {error}") from error


def config_folder(environ: Mapping[str, str] = os.environ) -> Path:
    """Where a user's configuration is: `~/.config/guestwire`."""
    base = environ.get("XDG_CONFIG_HOME") or Path(environ.get("HOME", "~")).expanduser() / ".config"
    return Path(base) / "guestwire"


def _profile(name: str | None, environ: Mapping[str, str]) -> dict[str, object]:
    path = config_folder(environ) / PROFILES
    if not path.exists():
        if name:
            raise ConfigurationError(f"{path}: no such file; it should hold the profile '{name}'")
        return {}
    profiles = _read_profiles(path)
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


def _read_profiles(path: Path) -> dict[str, dict[str, object]]:
    import tomllib  # noqa: PLC0415  # few have profiles, and wait for it

    try:
        return {name: table for name, table in tomllib.loads(path.read_text()).items() if isinstance(table, dict)}
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
