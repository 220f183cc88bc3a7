"""How an endpoint shows on the command line and to AI assistants: parts of its record, as data without any code of those faces."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum


class Level(Enum):
    """The part of a guest that a tool reaches; a policy allows levels. Each level but `read` brings `read` with it."""

    READ = "read"
    """The state that the agent reports; no file, no process."""
    FILES = "files"
    EXEC = "exec"
    MANAGE = "manage"
    """Passwords, freezing, trimming."""
    POWER = "power"


@dataclass(frozen=True, slots=True)
class ToolView:
    """An endpoint as a tool of AI assistants.

    Attributes:
        level: what the policy must allow; None: as the endpoint's privileges say.
        core: listed also where only the tools for most work are.
        hint: for the assistant, beside the endpoint's summary.
        name: None: the endpoint's, with `_` for `-`.
        destroys: whether a client should warn; None: as the endpoint's effect says.
        repeatable: whether a second call changes nothing more; None: as the endpoint's effect says.
        undo: of an endpoint that freezes, the name of the one that thaws: what is left frozen is thawed when the caller
            is gone, and a freeze that did not hold is an error.
    """

    level: Level | None = None
    core: bool = False
    hint: str = ""
    name: str | None = None
    destroys: bool | None = None
    repeatable: bool | None = None
    undo: str | None = None


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table.

    Attributes:
        heading: in capitals.
        field: of a row, as JSON has it; "" stands for the whole row.
        format: the name of a format of the command line (`cli/formats.py`).
    """

    heading: str
    field: str
    format: str = "text"


@dataclass(frozen=True, slots=True)
class Table:
    """A table of a list of objects.

    Attributes:
        columns: from left to right.
        sort: rows stand in the order of this field.
        only: rows without this field are left out.
        of: the field of the result that holds the list; "": the result itself.
        title: a format for the line above the table, which gets the whole result.
    """

    columns: tuple[Column, ...]
    sort: str = ""
    only: str = ""
    of: str = ""
    title: str = ""


@dataclass(frozen=True, slots=True)
class Facts:
    """One fact a line: labels by the field that they name. Fields that are not there are left out.

    `formats` names formats of the command line for some of the fields; others are texts.
    """

    labels: Mapping[str, str]
    formats: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Line:
    """One line, written by a format of the command line that gets the whole result."""

    format: str


@dataclass(frozen=True, slots=True)
class CommandView:
    """An endpoint as a command that shows its result: `guestwire NAME GUEST`.

    Attributes:
        name: the command.
        help: one sentence, of at most 60 characters: it stands on one line of the help of all commands.
        output: how people see the result; `--json` shows it as it is.
        section: the heading below which that help has it, as in `cli/program.py`.
    """

    name: str
    help: str
    output: Table | Facts | Line
    section: str = "Look at guests"
