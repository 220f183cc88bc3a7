"""The ways of a call: HTTPS to a server (`https.py`), or a guest agent's own socket (`direct.py`).

The two are not handed on from here: a caller of one should not wait for the other.
"""

from guestwire.client.carriers.base import Carrier

__all__ = ["Carrier"]
