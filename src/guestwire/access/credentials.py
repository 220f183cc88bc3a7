"""What a request says about who sends it: a ticket, an API token, or nothing.

Source: the recorded cases `auth/`: a ticket in the cookie wins over one in the Authorization header, which wins over a
token there.
"""

import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote

TICKET: Final = "PVEAuthCookie"
TOKEN: Final = "PVEAPIToken"  # noqa: S105  # a header's word
LONGEST: Final = 8190

_ticket: Final = re.compile(rf"(?:^|\s){TICKET}[= ]([^;]*)")
_token: Final = re.compile(rf"(?:^|\s){TOKEN}[= ]([^;]*)")


@dataclass(frozen=True, slots=True)
class Credentials:
    """At most one of the two is set; neither is shown."""

    ticket: str = ""
    token: str = ""

    def __repr__(self) -> str:
        return "Credentials(…)"


def credentials(cookie: str, authorization: str) -> Credentials:
    """Finds them in the values of a request's Cookie and Authorization headers ("" for a header that is not there)."""
    if ticket := _value(_ticket, cookie) or _value(_ticket, authorization):
        return Credentials(ticket=ticket)
    return Credentials(token=_value(_token, authorization))


def _value(pattern: re.Pattern[str], header: str) -> str:
    found = pattern.search(header[:LONGEST]) if header else None
    return unquote(found[1], errors="surrogateescape") if found else ""
