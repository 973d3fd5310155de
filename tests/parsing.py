"""The command line, parsed as `twistd` does it."""

from __future__ import annotations

import pytest
from twisted.python import usage

from resumable.config.options import Options, Settings


def parse(*flags: str, **environ: str) -> Settings:
    options = Options(environ)
    options.parseOptions(list(flags))
    return options.settings()


def refusal(*flags: str, **environ: str) -> str:
    with pytest.raises(usage.UsageError) as caught:
        parse(*flags, **environ)
    message = str(caught.value)
    assert "\n" not in message
    return message


SWITCHES = {"disable-download", "check"}
