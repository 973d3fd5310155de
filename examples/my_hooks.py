"""Hooks in Python: functions that hear of uploads, and decide about them.

In the directory of this file: `twistd -n resumable --hook python:my_hooks --guard python:my_hooks`
"""

from resumable.hooks import Answer, Refuse, before, on


@before("create")
def only_pictures(question):
    """Return `Refuse` to say no; without it, the upload is allowed."""
    name = question.upload.metadata.get("filename", b"").decode("utf-8", "replace")
    if not name.lower().endswith((".jpg", ".png")):
        return Refuse(Answer(415, body=b"Only .jpg and .png are taken here."))


@on("finished")
def finished(event):
    """Runs in a thread, so it may take its time. After an exception or a crash it is called again, with the same id."""
    print(f"{event.id}: uploads/{event.upload.id} has {event.upload.length} bytes", flush=True)


@on("terminated", "expired")
async def gone(event):
    """An ``async def`` runs in Twisted's own thread: await Deferreds, and never block."""
    print(f"{event.upload.id} is gone: {event.kind.value}", flush=True)
