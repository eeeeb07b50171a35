"""Writes the golden transcripts of the Realtime and RTVI dialects anew, after a change
that is meant: ``python -m tools.realtime_transcripts``.
"""

import json

from tests.openai_realtime import transcripts as realtime
from tests.rtvi import transcripts as rtvi
from voicechat.testing.virtual_time import VirtualTimeLoop


def main() -> None:
    """Write all transcripts."""
    for protocol in (realtime, rtvi):
        protocol.FOLDER.mkdir(exist_ok=True)
        for name in protocol.SCENARIOS:
            loop = VirtualTimeLoop()
            lines = loop.run_until_complete(protocol.play(name))
            loop.close()
            text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
            (protocol.FOLDER / f"{name}.jsonl").write_text(text, "utf-8")


if __name__ == "__main__":
    main()
