"""Guest metrics: what is read of a guest and when, and the text that Prometheus reads."""

from guestwire.metrics.exposition import Exposition, Page
from guestwire.metrics.polling import Reading, read_guest

__all__ = ["Exposition", "Page", "Reading", "read_guest"]
