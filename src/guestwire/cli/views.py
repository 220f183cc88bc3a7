"""Commands that show the result of an endpoint: each is made from the endpoint's record alone."""

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import click

from guestwire.cli.connecting import guest_argument, on_guest, plain
from guestwire.cli.output import examples, json_option, to_json

if TYPE_CHECKING:
    from guestwire.contract import Endpoint


class ViewCommand(click.Command):
    """`guestwire NAME GUEST`: calls an endpoint and shows its result.

    `find` gives the endpoint. It is called when the command runs or shows its help, but not for the list of all
    commands: the records of all endpoints take a fifth of a second to load.
    """

    def __init__(self, name: str, help: str, find: Callable[[], "Endpoint"]) -> None:  # noqa: A002  # click's word
        super().__init__(name, help=help, epilog=examples(f"guestwire {name} web"), callback=self._show)
        guest_argument(self)
        json_option(self)
        self._find = find

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        """GUEST, then what else the endpoint requires, then the options."""
        guest, *options = super().get_params(ctx)
        return [guest, *self._required(), *options]

    def _required(self) -> Iterator[click.Argument]:
        from guestwire.contract import rules  # noqa: PLC0415  # as `find`

        for rule in rules(self._find().parameters).values():
            if rule.required and rule.name not in ("node", "vmid"):
                yield click.Argument([rule.attribute], metavar=rule.name.upper(), help=rule.description)

    def _show(self, guest: str, json: bool, **given: Any) -> None:  # noqa: FBT001  # click calls it with names
        show_view(click.get_current_context(), self._find(), guest, given, as_json=json)


def show_view(
    context: click.Context, endpoint: "Endpoint", guest: str, given: Mapping[str, Any], *, as_json: bool
) -> None:
    """Calls an endpoint that has a view, and shows its result; `given` has parameters by their attributes."""
    from guestwire.cli.formats import print_result  # noqa: PLC0415  # with the endpoints
    from guestwire.contract import rules  # noqa: PLC0415

    assert endpoint.command  # noqa: S101  # or it would be no view
    names = {rule.attribute: rule.name for rule in rules(endpoint.parameters).values()}
    parameters = {names[name]: value for name, value in given.items()}
    found = plain(on_guest(context, guest, lambda guest: guest.call_endpoint(endpoint, parameters)))
    if as_json:
        print(to_json({} if found is None else found, indent=2))
    else:
        print_result(endpoint.command.output, found)
