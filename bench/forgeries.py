"""`python -m bench.forgeries [COUNT]`: forged credentials of every kind against the real checks, a million by default; none may pass."""

import random
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote, unquote

from guestwire.access import Subject
from guestwire.access.authentication import authenticate, check_csrf, parse_credentials, secret_hash
from guestwire.access.tickets import make_csrf, make_ticket
from guestwire.errors import NotAuthenticated
from guestwire.stores import SigningKey, Snapshot, Token, User
from guestwire.stores.snapshot import of

NOW: Final = 1_790_000_000.0
SECRET: Final = "7e1f5b7a-2a55-4a5e-9d59-0d6f1f0c3d11"
KEY: Final = b"k" * 32
USER: Final = "ann@pve"

VIEW: Final[Snapshot] = of(
    1,
    [
        User(USER), User("root@pam"), User("gone@pve", enable=False), User("old@pve", expire=1),
        Token(USER, "tok", secret_hash(SECRET)), Token(USER, "old", secret_hash(SECRET), expire=1), Token("gone@pve", "tok", secret_hash(SECRET)),
        SigningKey("t", "ticket", NOW, KEY), SigningKey("c", "csrf", NOW, b"c" * 32),
    ],
)  # fmt: skip

GENUINE: Final = (
    f"PVEAPIToken={USER}!tok={SECRET}",
    f"PVEAuthCookie={make_ticket(KEY, USER, '', NOW)}",
    f"PVEAuthCookie={quote(make_ticket(KEY, USER, '', NOW))}",
)
WRONG: Final = (
    f"PVEAPIToken=gone@pve!tok={SECRET}",
    f"PVEAPIToken={USER}!old={SECRET}",
    f"PVEAuthCookie={make_ticket(KEY, 'gone@pve', '', NOW)}",
    f"PVEAuthCookie={make_ticket(KEY, 'old@pve', '', NOW)}",
    f"PVEAuthCookie={make_ticket(KEY, USER, '', NOW - 7200)}",
    f"PVEAuthCookie={make_ticket(KEY, USER, '', NOW + 301)}",
    f"PVEAuthCookie={make_ticket(KEY, USER, 'of-the-password-before', NOW)}",
    f"PVEAuthCookie={make_ticket(b'x' * 32, 'root@pam', '', NOW)}",
    f"PVEAuthCookie={make_csrf(KEY, USER, NOW)}",
)
ALPHABET: Final = "aA0=!@:/+ ;,%\t\0\n\x7f\xe9\u0430\u2028\udcff"

Change = Callable[[random.Random, str], str]


def _cut(chance: random.Random, text: str) -> str:
    at = chance.randrange(len(text) + 1)
    return text[:at] + text[at + chance.randrange(1, 4) :]


def _put(chance: random.Random, text: str) -> str:
    at = chance.randrange(len(text) + 1)
    return text[:at] + chance.choice(ALPHABET) * chance.choice((1, 1, 1, 2, 5000)) + text[at:]


def _replace(chance: random.Random, text: str) -> str:
    at = chance.randrange(len(text) + 1)
    return text[:at] + chance.choice(ALPHABET) + text[at + 1 :]


def _swap_case(chance: random.Random, text: str) -> str:
    at = chance.randrange(len(text) + 1)
    return text[:at] + text[at : at + 1].swapcase() + text[at + 1 :]


def _other_name(chance: random.Random, text: str) -> str:
    return text.replace(USER, chance.choice(("root@pam", "gone@pve", "ann@pam", "ann@pve@pam", "", "ann@pve\0")))


def _twice(_chance: random.Random, text: str) -> str:
    return f"{text}, {text}"


def _encoded(chance: random.Random, text: str) -> str:
    at = chance.randrange(len(text) + 1)
    return text[:at] + quote(text[at:], safe="", errors="surrogatepass")


def _mixed(chance: random.Random, text: str) -> str:
    other = chance.choice(GENUINE + WRONG)
    return text[: chance.randrange(len(text) + 1)] + other[chance.randrange(len(other)) :]


CHANGES: Final[tuple[Change, ...]] = (_cut, _put, _replace, _swap_case, _other_name, _twice, _encoded, _mixed)


@dataclass(frozen=True, slots=True)
class Forgery:
    """Two headers as a client sends them; `genuine` when they say the same as real credentials do."""

    cookie: str
    authorization: str


def forgeries(seed: int) -> Iterator[Forgery]:
    """Without end, always the same for a seed."""
    chance = random.Random(seed)
    while True:
        text = chance.choice(GENUINE + WRONG)
        for _ in range(chance.randrange(1, 4)):
            text = chance.choice(CHANGES)(chance, text)
        yield Forgery(text, "") if chance.random() < 0.3 else Forgery("", text)


def passes(forgery: Forgery) -> Subject | None:
    """Who comes in with it; any exception but a refusal comes through."""
    try:
        return authenticate(VIEW, parse_credentials(forgery.cookie, forgery.authorization), NOW)
    except NotAuthenticated:
        return None


def is_genuine(forgery: Forgery) -> bool:
    """Whether it holds whole credentials of the user, and nothing of the value was changed: what stands before or after it is not part of it."""
    real = {text.partition("=")[2] for text in GENUINE}
    given = parse_credentials(forgery.cookie, forgery.authorization)
    value = given.ticket or given.token
    return value in real or unquote(value) in {unquote(one) for one in real}


def csrf_passes(token: str) -> bool:
    """Whether it is taken for the user's."""
    try:
        check_csrf(VIEW, Subject(USER), token, NOW)
    except NotAuthenticated:
        return False
    return True


def play(count: int, seed: int) -> Counter[str]:
    """Tries `count` forgeries.

    Raises:
        AssertionError: one came in.
    """
    outcomes: Counter[str] = Counter()
    for _, forgery in zip(range(count), forgeries(seed), strict=False):
        who, genuine = passes(forgery), is_genuine(forgery)
        assert who is None or (genuine and who.user == USER), forgery
        assert not csrf_passes(forgery.authorization), forgery
        outcomes["came in with what is genuine" if who else "refused"] += 1
    return outcomes


def main() -> None:
    """Plays and prints."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    began = time.perf_counter()
    for outcome, times in play(count, seed=20261125).items():
        print(f"{outcome}: {times:,}")
    print(f"{time.perf_counter() - began:.0f} s")


if __name__ == "__main__":
    main()
