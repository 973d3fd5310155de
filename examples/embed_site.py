"""Uploads beside your own pages, on one port of your Twisted program.

Run it with `python embed_site.py`, and open http://127.0.0.1:8080/.
"""

from twisted.internet import reactor
from twisted.web.resource import Resource

from resumable.embed import UploadServer


class Home(Resource):
    isLeaf = True

    def render_GET(self, request):
        return b"Uploads are taken at <a href='files/'>/files/</a>, and this page is yours."


server = UploadServer(upload_dir="uploads", max_size="10G")


@server.before("create")
def allowed(question):
    """Called before the server takes an upload: return `Refuse()` to say no."""
    print("somebody wants to upload", question.upload.metadata.get("filename", b"something").decode())


@server.on("finished")
def finished(event):
    """Called when the whole file is here; again after a crash, so do your work once for each ``event.id``."""
    print(f"here is uploads/{event.upload.id}, {event.upload.length} bytes", flush=True)


root = Resource()
root.putChild(b"", Home())
root.putChild(b"files", server.resource)

server.start()  # it stops with the reactor
reactor.listenTCP(8080, server.site(root))  # in place of Site(root)
reactor.run()
