"""Hooks: they hear what happens to uploads, and are asked before something is done.

The names here are for authors of hooks in Python, see docs/hooks.md.
"""

from resumable.hooks.functions import before, on
from resumable.hooks.interfaces import (
    Allow,
    Event,
    EventKind,
    HookFailed,
    IGuard,
    IHook,
    IWatcher,
    Question,
    Refuse,
    Verdict,
)
from resumable.model.hooks import Answer, Changes, QuestionKind, RequestView, UploadView

__all__ = [
    "Allow",
    "Answer",
    "Changes",
    "Event",
    "EventKind",
    "HookFailed",
    "IGuard",
    "IHook",
    "IWatcher",
    "Question",
    "QuestionKind",
    "Refuse",
    "RequestView",
    "UploadView",
    "Verdict",
    "before",
    "on",
]
