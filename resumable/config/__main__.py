"""``python -m resumable.config README.md docs/configuration.md`` writes their tables anew."""

import sys
from pathlib import Path

from resumable.config.pages import rewrite

for name in sys.argv[1:]:
    Path(name).write_text(rewrite(Path(name).read_text(encoding="utf-8")), encoding="utf-8")
