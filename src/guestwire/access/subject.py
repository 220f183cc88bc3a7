"""The caller of an endpoint, as permissions know it."""

import msgspec


def split(key: str) -> tuple[str, str | None]:
    """The userid, and the name of the token if `key` is one's. A user's name may hold `!` and `@`, a token's can't."""
    userid, mark, token = key.rpartition("!")
    return (userid, token) if mark and "@" not in token else (key, None)


class Subject(msgspec.Struct, frozen=True):
    """A user, by itself or by way of an API token: `key` is `NAME@REALM` or `NAME@REALM!TOKEN`, "" for nobody."""

    key: str

    def __str__(self) -> str:
        return self.key

    @property
    def user(self) -> str:
        """The userid."""
        return split(self.key)[0]

    @property
    def token(self) -> str | None:
        """The token's name; None for a user by itself."""
        return split(self.key)[1]
