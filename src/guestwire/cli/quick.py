"""Commands that start quickly.

typer has pydantic look at every word of a command, which takes a tenth of a second to load. Words that are wanted as words need no look;
numbers and choices still get theirs. Should typer change what is relied on here, commands only start more slowly: a test tells.
"""

from collections.abc import Callable
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


def _quicken(params: list[Any]) -> None:
    for param in params:
        if isinstance(param, TyperArgument | TyperOption):
            otherwise = param.get_runtime_param
            param.__dict__["get_runtime_param"] = _always(_Words(otherwise, param.type_descriptor.annotation))


def _always(words: _Words) -> Callable[[], _Words]:
    return lambda: words


class QuickCommand(TyperCommand):
    """One command."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        _quicken(self.params)


class QuickGroup(TyperGroup):
    """All commands, and the options before them."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        _quicken(self.params)


def add(app: typer.Typer, name: str, function: Callable[..., None], *lines: str, **more: Any) -> None:
    """Adds a command; its help ends with these examples."""
    app.command(name, cls=QuickCommand, epilog=examples(*lines), **more)(function)
