"""Certificates that people trust by their fingerprints, in `known_hosts.toml` beside the profiles.

The question is asked only on a terminal, and only about an unknown host: another certificate than the known one is an
error.
"""

import json
import os
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, Final

from msgspec.structs import replace

from guestwire.addresses import is_served_here
from guestwire.cli.asking import confirm
from guestwire.cli.output import note
from guestwire.client.errors import CertificateNotTrusted
from guestwire.client.settings import Https, Settings, config_folder, parse_target
from guestwire.errors import ConfigurationError

NAME: Final = "known_hosts.toml"


def add_known_fingerprint(settings: Settings) -> Settings:
    """The settings with the fingerprint that was trusted before, unless they say what to trust.

    Raises:
        ConfigurationError: the file can't be read.
    """
    if not settings.host or is_served_here(settings.host) or settings.ca or settings.fingerprint or not settings.verify:
        return settings
    return replace(settings, fingerprint=_known().get(str(parse_target(settings.host))))


def ask_to_trust(
    settings: Settings, error: CertificateNotTrusted, run: Callable[[Coroutine[Any, Any, str]], str]
) -> Settings:
    """The settings with the fingerprint of the host's certificate, when a person at the terminal trusts it.

    It is remembered.

    Raises:
        CertificateNotTrusted: there is no terminal to ask on, or the settings say what to trust.
        RequestError: it is not trusted.
    """
    target = parse_target(settings.host or "")
    if settings.fingerprint and _known().get(str(target)) == settings.fingerprint:
        raise CertificateNotTrusted(
            error.context, error.message, hint=f"{error.hint}; to trust that one, remove the host from {_path()}"
        )
    if settings.fingerprint or settings.ca or not isinstance(target, Https) or not sys.stdin.isatty():
        raise error
    from guestwire.client.carriers.https import fingerprint_of  # noqa: PLC0415  # only untrusted hosts need it

    fingerprint = run(fingerprint_of(target))
    note(f"{error.context}: {error.message}. Its SHA-256 fingerprint is")
    note(fingerprint)
    confirm("Is it the one that the server's administrator sees? Trust it from now on?", yes=False)
    _remember(str(target), fingerprint)
    note(f"remembered in {_path()}")
    return replace(settings, fingerprint=fingerprint)


def _path() -> Path:
    return config_folder() / NAME


def _known() -> dict[str, str]:
    import tomllib  # noqa: PLC0415  # few calls need it

    try:
        path = _path()
    except ConfigurationError:
        return {}  # without a home nothing is remembered
    try:
        found = tomllib.loads(path.read_text())
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise ConfigurationError(f"{path}: {error.strerror}") from error
    except ValueError as error:
        raise ConfigurationError(f'{path}: {error}; it should hold lines as "https://HOST:8006" = "AA:BB:…"') from error
    return {host: fingerprint for host, fingerprint in found.items() if isinstance(fingerprint, str)}


def _remember(host: str, fingerprint: str) -> None:
    """Writes a file beside it and renames that: readers always find a whole file."""
    path = _path()
    known = sorted({**_known(), host: fingerprint}.items())
    text = "".join(f"{json.dumps(name)} = {json.dumps(value)}\n" for name, value in known)
    beside = path.with_name(f".{NAME}.{os.getpid()}")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(text)
        beside.replace(path)
    except OSError as error:
        raise ConfigurationError(f"{path}: {error.strerror}; give --fingerprint {fingerprint} instead") from error
