"""Inspects the picture in a file as the process for pictures does, without its sandbox:
``python -m tests.pictures.inspect_one FILE``. If the picture is refused, it prints its
largest memory in KiB and exits with 3.
"""

import signal
import sys
from pathlib import Path

from voicechat.errors import RemoteProtocolError
from voicechat.pictures.child import bound_cpu
from voicechat.pictures.inspection import PictureLimits, inspect_picture

REFUSED = 3

if __name__ == "__main__":
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    try:
        inspect_picture(Path(sys.argv[1]).read_bytes(), PictureLimits(), bound_cpu)
    except RemoteProtocolError:
        # Not ru_maxrss, which counts the process that started this one.
        status = Path("/proc/self/status").read_text()
        print(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")))
        sys.exit(REFUSED)
