"""Inspects the picture in a file as the process for pictures does, without its sandbox:
``python -m tests.pictures.inspect_one FILE``. It exits with 1 if the picture is refused.
"""

import signal
import sys
from pathlib import Path

from voicechat.errors import RemoteProtocolError
from voicechat.pictures.child import bound_cpu
from voicechat.pictures.inspection import PictureLimits, inspect_picture

if __name__ == "__main__":
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    try:
        inspect_picture(Path(sys.argv[1]).read_bytes(), PictureLimits(), bound_cpu)
    except RemoteProtocolError:
        sys.exit(1)
