"""Two upload servers in one twistd process, each with a directory and a path of its own.

Run it with `twistd -n -y server.tac`.
"""

from twisted.application.internet import StreamServerEndpointService
from twisted.application.service import Application
from twisted.internet import reactor
from twisted.internet.endpoints import serverFromString
from twisted.web.resource import Resource

from resumable.embed import UploadServer, site

films = UploadServer(upload_dir="films", base_path="/films/", max_size="100G")
letters = UploadServer(upload_dir="letters", base_path="/letters/", max_size="10M")

root = Resource()
root.putChild(b"films", films.resource)
root.putChild(b"letters", letters.resource)

application = Application("uploads")
films.setServiceParent(application)
letters.setServiceParent(application)
port = serverFromString(reactor, "tcp:8080")
StreamServerEndpointService(port, site(root, films, letters)).setServiceParent(application)
