"""The upload server within another Twisted program: see docs/embedding.md.

`UploadServer` is a service; its ``resource`` goes into the program's tree of resources, and `site` makes a site on
which bodies reach it while they arrive. What can't be used raises `StartupError`, whose message is one line.
"""

from resumable.embed.streaming import site
from resumable.embed.upload_server import UploadServer
from resumable.model.errors import StartupError

__all__ = ["StartupError", "UploadServer", "site"]
