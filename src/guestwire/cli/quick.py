"""Commands that start quickly.

typer has pydantic look at every word of a command, which takes a tenth of a second to load. Words that are wanted as words need no look;
numbers and choices still get theirs. Should typer change what is relied on here, commands only start more slowly: a test tells.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, Final

import typer
from typer.core import TyperArgument, TyperCommand, TyperGroup, TyperOption

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
    """All commands, and the options before them."""

    def get_params(self, ctx: Any) -> list[Any]:
        """All parameters, `--help` too."""
        return _quickened(super().get_params(ctx))


def add(app: typer.Typer, name: str, function: Callable[..., None], *lines: str, **more: Any) -> None:
    """Adds a command; its help ends with these examples."""
    app.command(name, cls=QuickCommand, epilog=examples(*lines), **more)(function)
