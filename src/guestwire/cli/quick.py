"""Commands that start quickly.

typer has pydantic look at every word of a command, which takes a tenth of a second to load. Words that are wanted as words need no look;
numbers and choices still get theirs. Should typer change what is relied on here, commands only start more slowly: a test tells.
"""

from collections.abc import Callable
from functools import partial
from importlib import import_module
from typing import Any, Final

import typer
from typer.core import TyperArgument, TyperCommand, TyperGroup, TyperOption
from typer.main import get_group

from guestwire.cli.output import examples

WORDS: Final = (str, list[str])


class _Words:
    """Takes words as they are; for anything else, what typer would have done."""

    def __init__(self, otherwise: Callable[[], Any], annotation: Any) -> None:
        self._otherwise = otherwise
        self._annotation = annotation

    def coerce(self, value: Any, param: Any, ctx: Any) -> Any:
        """The parameter's value."""
        if value is None:
            return () if param.multiple or param.nargs == -1 else None
        if self._annotation is str and isinstance(value, str):
            return value
        if self._annotation == list[str] and isinstance(value, tuple | list):
            return list(value)
        return self._otherwise().coerce(value, param=param, ctx=ctx)


def _quickened(params: list[Any]) -> list[Any]:
    for param in params:
        if isinstance(param, TyperArgument | TyperOption) and "get_runtime_param" not in vars(param):
            words = _Words(param.get_runtime_param, param.type_descriptor.annotation)
            vars(param)["get_runtime_param"] = partial(_same, words)
    return params


def _same(words: _Words) -> _Words:
    return words


class QuickCommand(TyperCommand):
    """One command."""

    def get_params(self, ctx: Any) -> list[Any]:
        """All parameters, `--help` too."""
        return _quickened(super().get_params(ctx))


class QuickGroup(TyperGroup):
    """Commands, and the options before them."""

    def get_params(self, ctx: Any) -> list[Any]:
        """All parameters, `--help` too."""
        return _quickened(super().get_params(ctx))


COMMANDS: Final = {
    "ls": "guests",
    "ping": "guests",
    "info": "guests",
    "osinfo": "guests",
    "hostname": "guests",
    "time": "guests",
    "timezone": "guests",
    "users": "guests",
    "ip": "guests",
    "df": "guests",
    "vcpus": "guests",
    "memory": "guests",
    "exec": "processes",
    "status": "processes",
    "shell": "shell",
    "cat": "processes",
    "cp": "copying",
    "edit": "copying",
    "freeze": "power",
    "thaw": "power",
    "freeze-status": "guests",
    "trim": "power",
    "passwd": "power",
    "shutdown": "power",
    "suspend": "power",
    "wait": "power",
    "doctor": "doctor",
    "mcp": "assistants",
    "raw": "calls",
    "api": "calls",
    "completion": "completion",
    "serve": "serve",
    "access": "access",
    "audit": "audit",
}
"""Every command, as help lists them, and the module whose `register` adds it: loaded when the command is wanted."""


class LazyGroup(QuickGroup):
    """All commands."""

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002  # the same in every context
        """The names in the order of the help."""
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The command of this name, loaded; None: there is none."""
        if cmd_name in COMMANDS and cmd_name not in self.commands:
            part = typer.Typer(rich_markup_mode=None)
            import_module(f"guestwire.cli.{COMMANDS[cmd_name]}").register(part)
            self.commands.update(get_group(part).commands)
        return super().get_command(ctx, cmd_name)


def add(app: typer.Typer, name: str, function: Callable[..., None], *lines: str, **more: Any) -> None:
    """Adds a command; its help ends with these examples."""
    app.command(name, cls=QuickCommand, epilog=examples(*lines), **more)(function)
