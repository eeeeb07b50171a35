"""``python -m voicechat``: the same as the ``voicechat`` command."""

import os
import sys

# -m puts the current folder first on the import path. Unless this package itself lies
# there, it is taken off before anything else is imported. os and sys are loaded before
# any path is searched.
if not sys.flags.safe_path and sys.path[0] == os.getcwd() != os.path.dirname(
    os.path.dirname(os.path.abspath(__file__))
):
    del sys.path[0]

from voicechat.cli import main

sys.exit(main())
