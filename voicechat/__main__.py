"""``python -m voicechat``: the same as the ``voicechat`` command."""

import sys

from voicechat.cli import main

sys.exit(main())
