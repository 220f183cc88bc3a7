"""Parameters of endpoints: declared as msgspec structs, checked by the rules and with the words of Proxmox VE.

A struct's fields say all there is to say: type, limits, default, format, and the role that decides what a policy asks
and what an audit record keeps. `rules` reads them; validation, OpenAPI, tools and records follow from them. A text
without a role does not load.

Source: PVE::JSONSchema as its answers show it (recorded cases `bool/`, `bool-json/`, `vmid=`, `file-read/count=`, …).
"""

import itertools
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from functools import cache
from typing import Annotated, Any, ClassVar, Final, TypeVar

import msgspec
from msgspec import Meta, inspect

from guestwire.access.privileges import ALL
from guestwire.access.values import canonical, split_list
from guestwire.errors import InvalidParameters

MISSING: Final = "property is missing and it is not optional"
UNKNOWN: Final = "property is not defined in schema and the schema does not allow additional properties"


class Parameters(msgspec.Struct, frozen=True, rename="kebab", kw_only=True):
    """Base of all parameter structs; `ignore_unknown` is True where unknown parameters are no error."""

    ignore_unknown: ClassVar[bool] = False


class Role(Enum):
    """What a parameter is to the call.

    Policies and audit records go by it, never by the name of an endpoint or a tool.
    """

    PLAIN = "plain"
    """A number or a switch; texts must say more."""
    TEXT = "text"
    """A name, a comment, a filter: no path in a guest, no program, no secret."""
    NODE = "node"
    GUEST = "guest"
    PROCESS = "process"
    """The id of a process in the guest."""
    SIZE = "size"
    """Bytes to be read at most; a policy may allow fewer."""
    READ_PATH = "path that is read"
    LIST_PATH = "folder that is listed"
    WRITE_PATH = "path that is written"
    LOCAL_PATH = "path on this side"
    DIRECTORY = "working directory"
    ARGUMENTS = "argument list"
    ENVIRONMENT = "environment"
    """`NAME=VALUE` items; values may be secrets."""
    STANDARD_INPUT = "standard input"
    CONTENT = "content"
    """The whole content of a file."""
    CHUNK = "chunk"
    """One part of a file's content, of many."""
    SECRET = "secret"  # noqa: S105  # the role of one


SECRETS: Final = frozenset({Role.ENVIRONMENT, Role.STANDARD_INPUT, Role.CONTENT, Role.CHUNK, Role.SECRET})
"""Values of these roles are never logged, shown or recorded."""

PATHS: Final = frozenset({Role.READ_PATH, Role.LIST_PATH, Role.WRITE_PATH, Role.LOCAL_PATH, Role.DIRECTORY})

OF_PROGRAMS: Final = frozenset({Role.ENVIRONMENT, Role.STANDARD_INPUT, Role.DIRECTORY})
"""A policy's rule for a program is asked about these together with its arguments."""


WITHOUT_NUL: Final = frozenset(
    {Role.LIST_PATH, Role.WRITE_PATH, Role.LOCAL_PATH, Role.DIRECTORY, Role.ARGUMENTS, Role.ENVIRONMENT}
)
"""A guest would take another value for one of these roles, where there is a NUL in it. Of paths that are read Proxmox VE
leaves it to the guest to find none."""


@dataclass(frozen=True, slots=True)
class RoleBy:
    """The role follows from the value of another parameter; a value that is not in the table is refused."""

    parameter: str
    roles: Mapping[str, Role]


def parameter(description: str, role: Role | RoleBy = Role.PLAIN, **facts: Any) -> Meta:
    """The annotation of a parameter.

    Args:
        description: for people, one sentence.
        role: texts and lists must name one other than PLAIN.
        facts: limits as `msgspec.Meta` has them (`ge`, `le`, `min_length`, `max_length`, `examples`); Proxmox VE's
            `format`, `enum`, `pattern` and `requires`; `ends_at_nul`, for a text that a guest reads as C does; and
            `means_nothing`, for what clients of Proxmox VE send and nothing follows from here.
    """
    names = ("format", "enum", "pattern", "requires", "ends_at_nul", "means_nothing")
    extra: dict[str, Any] = {name: facts.pop(name) for name in names if name in facts}
    return Meta(description=description, extra=extra | {"role": role}, **facts)


@dataclass(frozen=True, slots=True)
class Format:
    """A named format of Proxmox VE: what fits, and what is said of a value that doesn't."""

    pattern: re.Pattern[str]
    problem: str


REALM: Final = r"[A-Za-z][A-Za-z0-9.\-_]+"
USERID: Final = rf"[^\s:/!\x00-\x1f\x7f-\x9f]+@{REALM}"
TOKENID: Final = r"[A-Za-z][A-Za-z0-9.\-_]+"
NAME: Final = r"[A-Za-z0-9.\-_]+"
POOLID: Final = rf"{NAME}(?:/{NAME}){{0,2}}"

FORMATS: Final = {
    "pve-vmid": Format(re.compile(r"[1-9][0-9]{2,8}"), "value does not look like a valid VM ID"),
    "pve-node": Format(
        re.compile(r"[a-zA-Z0-9](?:[a-zA-Z0-9\-]*[a-zA-Z0-9])?"), "value does not look like a valid node name"
    ),
    "pve-userid": Format(re.compile(USERID), "value '{value}' does not look like a valid user name"),
    "pve-tokenid": Format(re.compile(rf"{USERID}!{TOKENID}"), "value '{value}' does not look like a valid token ID"),
    "pve-realm": Format(re.compile(REALM), "value '{value}' does not look like a valid realm"),
    "pve-groupid": Format(re.compile(NAME), "group name '{value}' contains invalid characters"),
    "pve-roleid": Format(re.compile(NAME), "role name '{value}' contains invalid characters"),
    "pve-poolid": Format(re.compile(POOLID), "pool name '{value}' contains invalid characters"),
    "pve-priv": Format(re.compile("|".join(map(re.escape, ALL))), "invalid privilege '{value}'"),
    "pve-configid": Format(re.compile(r"(?i)[a-z][a-z0-9_-]+"), "invalid configuration ID '{value}'"),
    "pve-storage-id": Format(re.compile(NAME), "storage ID '{value}' contains illegal characters"),
    "guestwire-numbers": Format(re.compile(r"[0-9]{1,6}(?:-[0-9]{1,6})?"), "'{value}' is no number and no range"),
    "email-opt": Format(re.compile(r"|[^\s@]+@[^\s@]+"), "value does not look like a valid email address"),
}
LIST: Final = "-list"
"""At the end of a format's name: several of them in one text."""


Node = Annotated[str, parameter("The node's name, or localhost.", Role.NODE, format="pve-node")]
Vmid = Annotated[int, parameter("The VM's id.", Role.GUEST, ge=100, le=999_999_999, format="pve-vmid")]


class NodeParameters(Parameters, frozen=True, kw_only=True):
    """Parameters of a call about a node."""

    node: Node


class VmParameters(NodeParameters, frozen=True, kw_only=True):
    """Parameters of a call into a VM."""

    vmid: Vmid


P = TypeVar("P", bound=Parameters)


@dataclass(frozen=True, slots=True)
class Rule:
    """All that is known of one parameter. `kind` is Proxmox VE's: string, integer, boolean or array (of strings)."""

    name: str
    attribute: str
    kind: str
    required: bool
    default: Any = None
    minimum: int | None = None
    maximum: int | None = None
    min_length: int | None = None
    max_length: int | None = None
    enum: tuple[str, ...] | None = None
    format: str | None = None
    pattern: str | None = None
    requires: str | None = None
    ends_at_nul: bool = False
    """The guest would make something else of a value with a NUL: such a one is refused."""
    means_nothing: bool = False
    """It is taken, and has no place among a client's or a tool's parameters."""
    role: Role | RoleBy = Role.PLAIN
    description: str = ""
    examples: tuple[Any, ...] | None = None

    @property
    def is_list(self) -> bool:
        """True for a text that holds a list."""
        return self.format is not None and self.format.endswith(LIST)

    def role_in(self, values: Mapping[str, Any]) -> Role:
        """The role of the parameter in a call with these values.

        Raises:
            InvalidParameters: it follows from another parameter, whose value says nothing about it.
        """
        if isinstance(self.role, Role):
            return self.role
        try:
            return self.role.roles[str(values.get(self.role.parameter))]
        except KeyError:
            raise InvalidParameters({self.role.parameter: MISSING}) from None

    @property
    def is_secret(self) -> bool:
        """True when its value must not be shown."""
        return not SECRETS.isdisjoint(self.roles)

    @property
    def is_private(self) -> bool:
        """True when its value should not stand in an address, which logs keep: a secret, or arguments, where one may be."""
        return self.is_secret or Role.ARGUMENTS in self.roles

    @property
    def roles(self) -> frozenset[Role]:
        """All that it may have: one, or those that another parameter chooses from."""
        return roles_of(self.role)


def roles_of(role: Role | RoleBy) -> frozenset[Role]:
    """One role, or those that another parameter chooses from."""
    return frozenset((role,) if isinstance(role, Role) else role.roles.values())


_KINDS: Final = {
    inspect.StrType: "string",
    inspect.IntType: "integer",
    inspect.BoolType: "boolean",
    inspect.ListType: "array",
}


@cache
def rules(parameters: type[Parameters]) -> Mapping[str, Rule]:
    """The rule of each parameter by its name."""
    info = inspect.type_info(parameters)
    assert isinstance(info, inspect.StructType)  # noqa: S101  # Parameters is a struct
    return {field.encode_name: _rule(field) for field in info.fields}


def _rule(field: inspect.Field) -> Rule:
    kind, extra, described = field.type, {}, {}
    if isinstance(kind, inspect.UnionType):
        kind = next(member for member in kind.types if not isinstance(member, inspect.NoneType))
    if isinstance(kind, inspect.Metadata):
        extra, described, kind = kind.extra or {}, kind.extra_json_schema or {}, kind.type
    role = extra.get("role", Role.PLAIN)
    return Rule(
        name=field.encode_name,
        attribute=field.name,
        kind=_KINDS[type(kind)],
        required=field.required,
        default=None if field.default is msgspec.NODEFAULT else field.default,
        minimum=getattr(kind, "ge", None),
        maximum=getattr(kind, "le", None),
        min_length=getattr(kind, "min_length", None),
        max_length=getattr(kind, "max_length", None),
        enum=extra.get("enum"),
        format=extra.get("format"),
        pattern=extra.get("pattern"),
        requires=extra.get("requires"),
        means_nothing=extra.get("means_nothing", False),
        ends_at_nul=extra.get("ends_at_nul", False) or not WITHOUT_NUL.isdisjoint(roles_of(role)),
        role=role,
        description=str(described.get("description", "")),
        examples=tuple(described["examples"]) if "examples" in described else None,
    )


def require_roles(parameters: type[Parameters]) -> None:
    """Fails closed: a text or a list is a path, a program or a secret until its record says what it is.

    Raises:
        TypeError: a parameter has no role, or one that a policy could not be asked about.
    """
    every_role = {role for rule in rules(parameters).values() for role in rule.roles}
    for rule in rules(parameters).values():
        name = f"{parameters.__name__}.{rule.attribute}"
        if rule.kind in ("string", "array") and Role.PLAIN in rule.roles:
            raise TypeError(f"{name} is a text without a role: annotate it with parameter(…, Role.…)")
        if rule.kind == "array" and not PATHS.isdisjoint(rule.roles):
            raise TypeError(f"{name} is a list of paths: a policy is asked about one path a parameter")
        if not OF_PROGRAMS.isdisjoint(rule.roles) and Role.ARGUMENTS not in every_role:
            raise TypeError(f"{name} is for a program, and no parameter has Role.ARGUMENTS: no rule would be asked")


def join_lists(parameters: type[Parameters], given: dict[str, Any]) -> dict[str, Any]:
    """What a client gave, with an array as one text wherever the format is a list.

    JSON clients send lists as arrays, and a key that comes twice is one. Permissions are decided about the text that
    the endpoint gets: so this comes before both. An array with anything but texts and numbers stays what it is, and
    `validate` refuses it.
    """
    known = rules(parameters)
    joined = {
        name: ",".join(map(canonical, value))
        for name, value in given.items()
        if isinstance(value, list) and name in known and known[name].is_list and all(map(_is_item, value))
    }
    return given | joined if joined else given


def _is_item(value: Any) -> bool:
    return isinstance(value, str | int | float) and not isinstance(value, bool)


MAX_ERRORS: Final = 32
"""Parameters that a refusal names: an answer is not much larger than the request, whatever that is."""


def validate(parameters: type[P], given: Mapping[str, Any]) -> P:
    """The struct, made of what a client gave: texts, or JSON values.

    Raises:
        InvalidParameters: with a text for each parameter that is missing, unknown or wrong.
    """
    known = rules(parameters)
    errors: dict[str, str] = {}
    values: dict[str, Any] = {}
    for name, rule in known.items():
        value = given.get(name)
        if value is not None:
            values[rule.attribute] = _check_value(rule, value, errors)
            if rule.requires and given.get(rule.requires) is None:
                errors[rule.requires] = f"missing property required by '{name}'"
        elif rule.required:
            errors[name] = MISSING
    if not parameters.ignore_unknown:
        unknown = (name for name in given if name not in known)
        errors.update((name, UNKNOWN) for name in itertools.islice(unknown, max(MAX_ERRORS - len(errors), 0)))
    if errors:
        raise InvalidParameters(errors)
    return parameters(**values)


def _check_value(rule: Rule, value: Any, errors: dict[str, str]) -> Any:
    if rule.kind == "array":
        return _array(rule, value, errors)
    try:
        return _SCALARS[rule.kind](rule, value)
    except ValueError as error:
        errors[rule.name] = str(error)
        return None


def _array(rule: Rule, value: Any, errors: dict[str, str]) -> list[str]:
    """An array of strings; one scalar stands for an array of it, unless it is one that Perl takes for false."""
    if isinstance(value, str | int | float) and not isinstance(value, bool) and value not in ("", "0", 0):
        value = [value]
    if not isinstance(value, list):
        errors[rule.name] = "type check ('array') failed"
        return []
    texts = []
    for position, item in enumerate(value):
        try:
            texts.append(_without_nul(rule, _text("string", item)))
        except ValueError as error:
            errors[f"{rule.name}[{position}]"] = str(error)
            if len(errors) >= MAX_ERRORS:
                break
    return texts


def _string(rule: Rule, value: Any) -> str:
    text = _without_nul(rule, _text(rule.kind, value))
    _check_format(rule, text)
    if rule.max_length is not None and len(text) > rule.max_length:
        raise ValueError(f"value may only be {rule.max_length} characters long")
    if rule.min_length is not None and len(text) < rule.min_length:
        raise ValueError(f"value must be at least {rule.min_length} characters long")
    if rule.enum and text not in rule.enum:
        raise ValueError(f"value '{text}' does not have a value in the enumeration '{', '.join(rule.enum)}'")
    return text


_integer_text = re.compile(r"[+-]?[0-9]+")

LONGEST_INTEGER: Final = 4096
"""Digits; Python refuses to read longer ones, and no limit of the API has more than ten."""


def _integer(rule: Rule, value: Any) -> int:
    text = _text(rule.kind, value)
    if not _integer_text.fullmatch(text) or len(text) > LONGEST_INTEGER:
        raise ValueError(f"type check ('integer') failed - got '{text[:LONGEST_INTEGER]}'")
    _check_format(rule, text)
    number = int(text)
    if rule.maximum is not None and number > rule.maximum:
        raise ValueError(f"value must have a maximum value of {rule.maximum}")
    if rule.minimum is not None and number < rule.minimum:
        raise ValueError(f"value must have a minimum value of {rule.minimum}")
    return number


def _boolean(rule: Rule, value: Any) -> bool:
    if isinstance(value, bool):
        return value
    text = _text(rule.kind, value)
    if text not in ("0", "1"):
        raise ValueError(f"type check ('boolean') failed - got '{text}'")
    return text == "1"


_SCALARS: Final[dict[str, Callable[[Rule, Any], Any]]] = {"string": _string, "integer": _integer, "boolean": _boolean}


def _check_format(rule: Rule, text: str) -> None:
    if rule.pattern and not re.fullmatch(rule.pattern, text):
        raise ValueError("value does not match the regex pattern")
    if rule.format:
        form = FORMATS[rule.format.removesuffix(LIST)]
        for item in split_list(text) if rule.is_list else (text,):
            if not form.pattern.fullmatch(item):
                raise ValueError(f"invalid format - {form.problem.format(value=item)}\n")


def _without_nul(rule: Rule, text: str) -> str:
    if rule.ends_at_nul and "\0" in text:
        raise ValueError("value has a NUL, at which the guest would take it to end")
    return text


def _text(kind: str, value: Any) -> str:
    """A scalar as text, as Perl would print it."""
    match value:
        case str():
            return _utf8(value)
        case None:
            raise ValueError(MISSING)
        case bool():
            raise ValueError(f"type check ('{kind}') failed - got JSON::PP::Boolean")
        case int() | float():
            return canonical(value)
        case list():
            raise ValueError(f"type check ('{kind}') failed - got ARRAY")
        case _:
            raise ValueError(f"type check ('{kind}') failed - got HASH")


def _utf8(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("value is not UTF-8 text") from None
    return text
