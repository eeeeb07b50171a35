"""Writes the golden transcripts of the Realtime dialect anew, after a change that is
meant: ``python -m tools.realtime_transcripts``.
"""

import json

from tests.openai_realtime.transcripts import FOLDER, SCENARIOS, play
from voicechat.testing.virtual_time import VirtualTimeLoop


def main() -> None:
    """Write all transcripts."""
    FOLDER.mkdir(exist_ok=True)
    for name in SCENARIOS:
        loop = VirtualTimeLoop()
        lines = loop.run_until_complete(play(name))
        loop.close()
        text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
        (FOLDER / f"{name}.jsonl").write_text(text, "utf-8")


if __name__ == "__main__":
    main()
