"""``resumable completion``: a script that completes commands and flags in bash, zsh or fish, written by shtab.

It is generated from the parsers of all commands, so that it has what they have.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Final

from resumable.cli.line_parser import LineParser

SHELLS: Final = ("bash", "zsh", "fish")
_EPILOG: Final = (
    "bash: resumable completion bash > ~/.local/share/bash-completion/completions/resumable; zsh: write it to a file"
    " _resumable in a directory of $fpath; fish: resumable completion fish > ~/.config/fish/completions/resumable.fish"
)


def parser() -> argparse.ArgumentParser:
    """The parser of what follows ``resumable completion``."""
    told = "Prints a script that completes commands and flags."
    root = LineParser("resumable completion", description=told, epilog=_EPILOG, allow_abbrev=False)
    root.add_argument("shell", choices=SHELLS, help="the shell that reads it")
    root.add_argument("--twistd", action="store_true", help="complete twistd resumable instead")
    return root


def main(arguments: Sequence[str], environ: Mapping[str, str] = os.environ) -> int:
    """Print the script. The exit status."""
    given = parser().parse_args(arguments)
    sys.stdout.write(script(given.shell, twistd=given.twistd))
    return 0


def script(shell: str, *, twistd: bool = False) -> str:
    """The script for that shell."""
    import shtab

    from resumable.cli.described import made_for_shells
    from resumable.cli.flags import all_commands, twistd_parser

    root = made_for_shells(twistd_parser() if twistd else all_commands())
    return f"{shtab.complete(root, shell).rstrip()}\n"
