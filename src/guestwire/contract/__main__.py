"""`python -m guestwire.contract` writes the reference of all endpoints."""

import sys

from guestwire.contract import ENDPOINTS
from guestwire.contract.reference import reference

sys.stdout.write(reference(ENDPOINTS))
