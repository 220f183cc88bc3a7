"""What is refused as plain HTTP, outside of the API's formats."""

from guestwire.errors import RequestError


class Refusal(RequestError):
    """Status, reason phrase, and the same as plain text unless `body` is given."""

    def __init__(self, status: int, reason: str, body: str | None = None) -> None:
        self.code = status
        self.body = reason if body is None else body
        super().__init__(reason)
