"""What ends a run without figures."""

from guestwire.errors import GuestwireError


class BenchError(GuestwireError):
    """Nothing can be measured: a program is missing, or the service or an agent does not do what it should."""
