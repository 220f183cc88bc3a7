"""Who calls."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Subject:
    """A user, by itself or by way of an API token. Its text is what the permission engine knows it by."""

    user: str
    token: str | None = None

    def __str__(self) -> str:
        return self.user if self.token is None else f"{self.user}!{self.token}"
