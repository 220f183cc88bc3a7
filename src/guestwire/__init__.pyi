from guestwire.client import CallFailed as CallFailed
from guestwire.client import CompletedProcess as CompletedProcess
from guestwire.client import Guest as Guest
from guestwire.client import GuestInfo as GuestInfo
from guestwire.client import Host as Host
from guestwire.client import Stream as Stream
from guestwire.client import SyncGuest as SyncGuest
from guestwire.client import SyncHost as SyncHost
from guestwire.client import SyncStream as SyncStream
from guestwire.client import connect as connect
from guestwire.client import connect_sync as connect_sync

__version__: str
