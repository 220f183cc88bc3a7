"""Access paths: `/vms/100`. What ACL entries and checks are about; text, never a file."""

import re
from typing import Final

LONGEST: Final = 1024
"""Characters; Proxmox VE has no limit, and no path that is meant seriously has a tenth of it."""

_characters = re.compile(r"[A-Za-z0-9._/-]+")
_normal = re.compile(r"/|(/[A-Za-z0-9._-]+)+")
_slashes = re.compile(r"/+")

_name = r"[A-Za-z0-9._-]+"
_known = re.compile(
    rf"/|/access(/(groups|realm)(/{_name})?)?|/nodes(/{_name})?|/pool(/{_name}){{0,3}}|/storage(/{_name})?"
    rf"|/sdn(/(zones(/{_name}(/{_name}(/[1-9][0-9]{{0,3}})?)?)?"
    rf"|(fabrics|controllers|prefix-lists|route-maps|ipams|dns)(/{_name})?))?"
    rf"|/vms(/[1-9][0-9]{{2,}})?|/mapping(/{_name}(/{_name})?)?"
)


def normalize(path: str) -> str | None:
    """The path as it is compared: with one slash before each part and none at the end. None: no access path.

    `..` has no meaning: it is a name like any other, as in Proxmox VE.
    """
    if len(path) <= LONGEST and _normal.fullmatch(path):
        return path
    if not path or len(path) > LONGEST or not _characters.fullmatch(path):
        return None
    return "/" + _slashes.sub("/", path).strip("/")


def is_known(path: str) -> bool:
    """True if there is something that a normal path can mean; ACL entries are made for no other."""
    return bool(_known.fullmatch(path))


def steps(path: str) -> list[str]:
    """The normal path and all that lie above it, from `/` down."""
    found = ["/"]
    end = path.find("/", 1)
    while end > 0:
        found.append(path[:end])
        end = path.find("/", end + 1)
    return [*found, path] if path != "/" else found
