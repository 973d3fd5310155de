"""Uploads in a Klein application: a route of their own, and a page.

Run it with `python embed_klein.py`, and open http://127.0.0.1:8080/.
"""

from klein import Klein
from twisted.internet import reactor

from resumable.embed import UploadServer

app = Klein()
server = UploadServer(upload_dir="uploads")


@app.route("/")
def home(request):
    return "Uploads are taken at /files/."


@app.route("/files/", branch=True)
def files(request):
    return server.resource


server.start()
reactor.listenTCP(8080, server.site(app.resource()))  # in place of app.run("localhost", 8080)
reactor.run()
