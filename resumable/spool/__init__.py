"""The local tier: files, the queues into them, and their durability. Knows nothing of tus nor of the catalog."""

from resumable.spool.budget import Budget
from resumable.spool.datafile import RunningDigest, SpoolDamaged
from resumable.spool.disk import Disk, IDisk, Modes
from resumable.spool.files import Spool
from resumable.spool.reader import Reader
from resumable.spool.sink import Sink, SinkClosed

__all__ = ["Budget", "Disk", "IDisk", "Modes", "Reader", "RunningDigest", "Sink", "SinkClosed", "Spool", "SpoolDamaged"]
