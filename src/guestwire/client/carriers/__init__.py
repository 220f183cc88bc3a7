"""What carries a call to where it is answered: HTTPS to a server (`https.py`), or a guest agent's own socket (`direct.py`)."""

from guestwire.client.carriers.base import Carrier
from guestwire.client.carriers.direct import DirectCarrier
from guestwire.client.carriers.https import HttpsCarrier

__all__ = ["Carrier", "DirectCarrier", "HttpsCarrier"]
