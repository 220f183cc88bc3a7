"""Who calls, and what they may do: `engine.py` decides, `control.Access` is what the server uses.

That one is not handed on from here: it needs a store, and whoever only names checks and subjects should not wait for
it.
"""

from guestwire.access.subject import Subject

__all__ = ["Subject"]
