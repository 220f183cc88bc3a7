"""A guest whose file systems are frozen, and thawed in every way that agents were seen to do it."""

from guestwire.testing import CommandError, FakeGuest


class FrozenGuest:
    """A guest with `frozen` file systems, whose agent answers thaws one after the other: a number or an error."""

    def __init__(self, fake: FakeGuest, frozen: int, *answers: int | str) -> None:
        self._answers = list(answers)
        self.is_frozen = False
        self._count = frozen
        fake.replies["guest-fsfreeze-freeze"] = self._freeze
        fake.replies["guest-fsfreeze-thaw"] = self._thaw
        fake.replies["guest-fsfreeze-status"] = lambda _: "frozen" if self.is_frozen else "thawed"

    def _freeze(self, _: object) -> int:
        self.is_frozen = True
        return self._count

    def _thaw(self, _: object) -> int:
        answer = self._answers.pop(0) if self._answers else 0
        self.is_frozen = isinstance(answer, str) and "stays" in answer
        if isinstance(answer, str):
            raise CommandError("GenericError", answer)
        return answer
