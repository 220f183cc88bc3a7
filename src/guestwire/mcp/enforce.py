"""The policy's questions to a call, asked by the roles of its parameters and never by a tool's name.

Paths in a guest are resolved there first, so that no link and no `..` leads around a rule; the tool gets the resolved
ones. After it has read, it is verified that the path still leads to the same place.
"""

from pathlib import Path
from typing import Any, Final

import msgspec

from guestwire.client import CallFailed, Guest
from guestwire.client.errors import AgentRefused, PrivilegeMissing
from guestwire.contract import Parameters, Role, rules
from guestwire.counting import counted
from guestwire.errors import InvalidParameters
from guestwire.mcp.policy import Policy, Refused, Rule
from guestwire.mcp.tool import Call

LONGEST_PATH: Final = 4096

CHECKED_PATHS: Final = frozenset({Role.READ_PATH, Role.LIST_PATH, Role.WRITE_PATH})


async def enforce(call: Call, parameters: Parameters) -> tuple[Parameters, list[str]]:
    """Checks the parameters of a call about a guest against the guest's rule and the policy's limits.

    Returns:
        The parameters that the tool gets: paths resolved, sizes within the limits; and the paths to verify after it.

    Raises:
        Refused: the policy does not allow them.
        InvalidParameters: they can't be what their roles say.
        CallFailed: see `client.errors`.
    """
    values = {name: value for name, value in msgspec.structs.asdict(parameters).items() if value is not None}
    roles = {
        rule.attribute: rule.role_in(values) for rule in rules(type(parameters)).values() if rule.attribute in values
    }
    by_role: dict[Role, list[Any]] = {}
    for name, role in roles.items():
        by_role.setdefault(role, []).append(values[name])
    rule = call.allowed
    for argv in by_role.get(Role.ARGUMENTS, ()):
        names = [item.partition("=")[0] for items in by_role.get(Role.ENVIRONMENT, ()) for item in items]
        rule.check_program(argv, has_input=Role.STANDARD_INPUT in by_role, env=names)
        rule.check_directory(next(iter(by_role.get(Role.DIRECTORY, ())), None))
    replaced: dict[str, Any] = {}
    reads: list[str] = []
    for name, role in roles.items():
        if role in CHECKED_PATHS:
            replaced[name] = await resolve_path(call.guest, rule, values[name], role)
            if role is not Role.WRITE_PATH and rule.read is not None:
                reads.append(replaced[name])
        elif role is Role.LOCAL_PATH:
            replaced[name] = str(_local_path(call.policy, values[name]))
        elif role is Role.PROCESS:
            call.require_own_process(values[name])
        elif role is Role.SIZE:
            replaced[name] = min(values[name], call.limits.bytes)
        elif (
            role in (Role.CONTENT, Role.CHUNK)
            and (size := len(values[name].encode("utf-8", "surrogatepass"))) > call.limits.bytes
        ):
            raise Refused(
                f"{counted(size, 'byte is', 'bytes are')} more than the policy lets a call write ({call.limits.bytes})"
            )
    return (msgspec.structs.replace(parameters, **replaced) if replaced else parameters), reads


async def resolve_path(guest: Guest, rule: Rule, path: str, role: Role) -> str:
    """The path itself where the rule restricts none of this role; else what it leads to, which is checked.

    A file that is written need not be there, its folder must. A rule for all below a folder is one for listing the
    folder.

    Raises:
        Refused: it may not be used, or can't be resolved.
        CallFailed: see `client.errors`.
    """
    if (rule.write if role is Role.WRITE_PATH else rule.read) is None:
        return path
    resolved = await _resolve(guest, path)
    if role is Role.WRITE_PATH:
        rule.check_write(resolved)
    else:
        rule.check_read(resolved.rstrip("/") + "/" if role is Role.LIST_PATH else resolved)
    return resolved


async def verify_unchanged(guest: Guest, resolved: list[str]) -> None:
    """Refuses what was read when a path leads elsewhere by now: folders may have been moved about meanwhile.

    Raises:
        Refused: one does.
    """
    for path in resolved:
        if await _resolve(guest, path) != path:
            raise Refused("the path leads elsewhere since it was checked; nothing of it is shown")


async def _resolve(guest: Guest, path: str) -> str:
    if not path.startswith("/") or "\0" in path or len(path) > LONGEST_PATH:
        raise Refused(
            "where only some paths may be used, a path is absolute: /… (in Windows guests none can be checked)"
        )
    try:
        process = await guest.run(["readlink", "-f", "--", path])
    except PrivilegeMissing as error:
        raise Refused(f"paths are restricted, and links can't be resolved in the guest: {error.message}") from error
    except AgentRefused as error:
        raise Refused("paths are restricted, and this guest has no `readlink` to resolve links with") from error
    if not process.ok or not process.stdout.startswith(b"/"):
        raise CallFailed(guest.context, f"{path}: no such file, or its folder is not there")
    try:
        return process.stdout.decode().removesuffix("\n")
    except UnicodeDecodeError:
        raise Refused("where only some paths may be used, a path is UTF-8; this one leads to one that is not") from None


def _local_path(policy: Policy, given: str) -> Path:
    """A path on this side with no link left in it, within a folder that the operator named."""
    if not policy.copy_folders:
        raise Refused("no folder on this side may be used: the operator names them (copy_folders, --copy-folder)")
    if "\0" in given:
        raise InvalidParameters({"local": "no path has a NUL"})
    try:
        path = (policy.copy_folders[0] / given).resolve()
    except (OSError, RuntimeError):
        raise Refused(f"'{given}' is a circle of links, or too long") from None
    if not any(path.is_relative_to(folder) and path != folder for folder in policy.copy_folders):
        raise Refused(f"'{given}' is outside of {', '.join(map(str, policy.copy_folders))}")
    return path
