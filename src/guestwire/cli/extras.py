"""Which packages come with an extra, and the error when one of them is not installed."""

from collections.abc import Mapping
from typing import Final

from guestwire.errors import GuestwireError

EXTRAS: Final[Mapping[str, frozenset[str]]] = {
    "server": frozenset({"argon2", "cryptography", "pamela", "qemu", "uvloop", "websockets"}),
    "libvirt": frozenset(
        {"libvirt", "libvirt_lxc", "libvirt_qemu", "libvirtaio", "libvirtmod", "libvirtmod_lxc", "libvirtmod_qemu"}
    ),
    "mcp": frozenset({"mcp", "mcp_types"}),
}
"""The modules of each extra in `pyproject.toml`; the base has none of them."""


class ExtraMissing(GuestwireError):
    """A command needs a package that is not installed."""

    exit_code = 69


def extra_missing(command: str, error: ModuleNotFoundError) -> ExtraMissing | None:
    """The error that says how to install the module, or None when it belongs to no extra."""
    module = (error.name or "").partition(".")[0]
    for extra, modules in EXTRAS.items():
        if module in modules:
            return ExtraMissing(
                f"guestwire {command} needs the extra '{extra}' (its Python package {module} is not installed);"
                f" install it with: pip install 'guestwire[{extra}]'"
            )
    return None
