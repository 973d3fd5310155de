"""``python -m resumable``: the same as the command ``resumable``."""

import sys

from resumable.cli.entry import main

sys.exit(main())
