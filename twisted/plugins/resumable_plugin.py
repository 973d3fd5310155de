"""Tells ``twistd`` that there is a ``resumable`` command; everything else is in `resumable.daemon.service`."""

from twisted.application.service import ServiceMaker

resumable = ServiceMaker("resumable", "resumable.daemon.service", "A resumable upload server (tus 1.0).", "resumable")
