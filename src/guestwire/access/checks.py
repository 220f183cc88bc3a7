"""What a call needs, as data; `requirements.py` decides whether a subject has it.

Source: `permissions` in Proxmox VE's API schema; each class names its word there.
"""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Everybody:
    """Not even a login (`user: world`)."""

    def __str__(self) -> str:
        return "none, not even a login"


@dataclass(frozen=True, slots=True)
class LoggedIn:
    """A login (`user: all`)."""

    def __str__(self) -> str:
        return "none but a login"


@dataclass(frozen=True, slots=True)
class Privileges:
    """Any one of `any_of` on the access path `path`, a template of parameters (`perm`)."""

    path: str
    any_of: tuple[str, ...]

    def __str__(self) -> str:
        return f"{' or '.join(f'`{name}`' for name in dict.fromkeys(self.any_of))} on `{self.path}`"


@dataclass(frozen=True, slots=True)
class ModifyPermissions:
    """May change the ACL of the path that the parameter `path` names (`perm-modify`)."""

    def __str__(self) -> str:
        return "`Permissions.Modify` on the path"


@dataclass(frozen=True, slots=True)
class Self:
    """Is the user that the parameter `userid` names (`userid-param: self`).

    A token is not its user: one that may little would make itself one that may more.
    """

    def __str__(self) -> str:
        return "to be the user"


@dataclass(frozen=True, slots=True)
class OverRealm:
    """This privilege on the realm of the user that the parameter `userid` names (`userid-param`)."""

    privilege: str

    def __str__(self) -> str:
        return f"`{self.privilege}` on the user's realm"


@dataclass(frozen=True, slots=True)
class OverUser:
    """Any one of `any_of` on all groups, or on a group of the user that the parameter `userid` names (`userid-group`).

    `groups` says what the parameter `groups` is for: with "create" the user is new, and the privilege is needed on
    every group named; with "update" it is needed on a group of the user and on every group named.
    """

    any_of: tuple[str, ...]
    groups: Literal["", "create", "update"] = ""

    def __str__(self) -> str:
        return f"{' or '.join(f'`{name}`' for name in self.any_of)} on the user's groups"


@dataclass(frozen=True, slots=True)
class AnyOf:
    """One of these (`or`)."""

    checks: "tuple[Check, ...]"

    def __str__(self) -> str:
        return ", or ".join(map(str, self.checks))


@dataclass(frozen=True, slots=True)
class AllOf:
    """All of these (`and`)."""

    checks: "tuple[Check, ...]"

    def __str__(self) -> str:
        return " and ".join(map(str, self.checks))


Check = Everybody | LoggedIn | Privileges | ModifyPermissions | Self | OverRealm | OverUser | AnyOf | AllOf
