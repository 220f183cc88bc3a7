"""The output of commands: tables for people, JSON for programs, and their help.

What is shown is data, some of it from guests and from strangers: control characters become visible and never reach a
terminal, and nothing is taken for markup. JSON is pure ASCII for the same reason.
"""

import json
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import click

Row = Mapping[str, Any]

WIDE: Final = 10_000
"""Columns of what is no terminal: nothing is folded there."""


NARROW: Final = 60
"""Columns of a terminal below which a table that does not fit is lines."""

WIDEST: Final = 120
"""Columns of the widest help: longer lines are hard to read."""
NARROWEST: Final = 30

WHOLE: Final = 10_000
"""More characters than a sentence of the help has."""

json_option = click.option("--json", is_flag=True, help="Write JSON with the API's names.")


def visible(text: object) -> str:
    r"""One line of text in which every character that could steer a terminal is written out, as `\x1b`."""
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in str(text))


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a table: the field of a row, and how it is written, as a text or as lines.

    It is empty for a field that is not there.
    """

    heading: str
    field: str
    write: Callable[[Any], str | list[str]] = str
    width: int = 0


def show(found: Sequence[Row] | Row, columns: Sequence[Column], *, as_json: bool) -> None:
    """Rows as a table, or whatever was found as JSON."""
    if as_json:
        print(to_json(found, indent=2))
    else:
        print_table([found] if isinstance(found, Mapping) else found, columns)


def to_json(found: Any, indent: int | None = None) -> str:
    """JSON text; on one line without `indent`."""
    return json.dumps(found, indent=indent)


def print_table(rows: Iterable[Row], columns: Sequence[Column], *, headings: bool = True) -> None:
    """A table on standard output; with colour on a terminal alone."""
    # Only who wants a table waits for rich.
    from rich.console import Console  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    rows = list(rows)
    terminal = sys.stdout.isatty()
    console = Console(force_terminal=terminal, width=None if terminal else WIDE, highlight=False)
    if terminal and headings and _width(rows, columns) > console.width and console.width < NARROW:
        _print_records(rows, columns)
        return
    table = Table(box=None, show_header=headings, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for column in columns:
        table.add_column(column.heading, overflow="fold", min_width=column.width or None)
    for row in rows:
        table.add_row(*(Text(_cell(row, column)) for column in columns))
    console.print(table, markup=False, emoji=False)


def _width(rows: Sequence[Row], columns: Sequence[Column]) -> int:
    """Columns that a table takes without folding."""
    return sum(
        2 + max(len(column.heading), *(len(line) for row in rows for line in _cell(row, column).split("\n")), 0)
        for column in columns
    )


def _print_records(rows: Sequence[Row], columns: Sequence[Column]) -> None:
    """Each row as lines of its own, for a terminal that is too narrow for a table: words and addresses stay whole."""
    for number, row in enumerate(rows):
        if number:
            print()
        for column in columns:
            for line in _cell(row, column).split("\n"):
                if line:
                    print(f"{column.heading}: {line}" if column.heading else line)


def _cell(row: Row, column: Column) -> str:
    value = row.get(column.field) if column.field else row
    written = "" if value is None else column.write(value)
    return visible(written) if isinstance(written, str) else "\n".join(map(visible, written))


def yes_or_no(value: object) -> str:
    """For what is true or not."""
    return "yes" if value else "no"


def note(text: str) -> None:
    """Tells people something, on standard error: standard output is for results."""
    print(visible(text), file=sys.stderr)


def report(found: Any, text: str, *, as_json: bool) -> None:
    """Says what a command did: to people as a note, to programs as JSON."""
    if as_json:
        print(to_json(found, indent=2))
    else:
        note(text)


def examples(*lines: str) -> str:
    """The end of a command's help; shown as it stands."""
    return "\n".join(["\b", "Example:" if len(lines) == 1 else "Examples:", *(f"  {line}" for line in lines)])


class _Formatter(click.HelpFormatter):
    def write_dl(self, rows: Iterable[tuple[str, str]], col_max: int = 30, col_spacing: int = 2) -> None:
        """Leaves room for the longest word of the descriptions, where click would cut it.

        Terms that are too long then stand above their descriptions.
        """
        rows = list(rows)
        longest = max((len(word) for _, text in rows for word in text.split()), default=0)
        super().write_dl(rows, max(min(col_max, self.width - longest - 2 * col_spacing), 1), col_spacing)


class _Context(click.Context):
    def make_formatter(self) -> click.HelpFormatter:
        """A formatter for the terminal's width.

        click's own does not go below 50 columns, and a narrower terminal would cut words.
        """
        from shutil import get_terminal_size  # noqa: PLC0415  # only help waits for it

        return _Formatter(width=max(min(get_terminal_size().columns, WIDEST) - 2, NARROWEST))


class Group(click.Group):
    """Commands whose help is as wide as the terminal, and cuts no sentence.

    Attributes:
        seldom: the names of commands that are wanted so seldom that the help only names them.
    """

    context_class = _Context
    seldom: frozenset[str] = frozenset()

    def sections(self, context: click.Context) -> Mapping[str, Sequence[str]]:
        """The headings of the help, and the names of the commands below each."""
        return {"Commands": self.list_commands(context)}

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of this name; None: there is none."""
        command = super().get_command(ctx, cmd_name)
        if command:
            command.context_class = _Context
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Writes the first sentence of each command's help; all of them begin in the same column."""
        column = max(map(len, self.list_commands(ctx)))
        formatter.write_paragraph()
        for heading, names in self.sections(ctx).items():
            formatter.write_heading(heading)
            commands = ((name, self.get_command(ctx, name)) for name in names if name not in self.seldom)
            with formatter.indentation():
                formatter.write_dl(
                    [(f"{name:<{column}}", found.get_short_help_str(WHOLE)) for name, found in commands if found]
                )
                if others := sorted(self.seldom.intersection(names)):
                    formatter.write_text(f"and {', '.join(others)}")
