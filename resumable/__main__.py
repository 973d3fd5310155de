"""``python -m resumable``: the same as the command ``resumable``."""

import sys

from resumable.client.main import main

sys.exit(main())
