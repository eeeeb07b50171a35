"""The child process of the ``rapidocr`` provider."""

import io
import sys
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import orjson
from PIL import Image
from rapidocr import RapidOCR

from voicechat.processes.child import serve
from voicechat.providers.rapidocr import RapidOCROptions

MAX_SIDE = 4000
"""Larger pictures are scaled down, because the models use at most 2,000 pixels."""


class RapidOCRJob:
    """Reads one picture."""

    def __init__(self, engine: Any, least_score: float) -> None:
        self._engine = engine
        self._least_score = least_score
        self._content = bytearray()

    def feed_payload(self, payload: bytes) -> Iterable[bytes]:
        """Keep the next bytes."""
        self._content += payload
        return ()

    def finish_input(self) -> Iterator[bytes]:
        """Return the lines as JSON."""
        with Image.open(io.BytesIO(self._content)) as image:
            width = image.width
            # Transparent areas become white.
            upright = image.convert("RGBA")
        paper = Image.new("RGB", upright.size, "white")
        paper.paste(upright, mask=upright.getchannel("A"))
        paper.thumbnail((MAX_SIDE, MAX_SIDE))
        scale = width / paper.width
        found = self._engine(np.asarray(paper)[:, :, ::-1])
        lines = [
            {"text": text, "corners": [[float(x) * scale, float(y) * scale] for x, y in box]}
            for text, score, box in zip(
                found.txts or (),
                found.scores or (),
                [] if found.boxes is None else found.boxes,
                strict=True,
            )
            if score >= self._least_score and text.strip()
        ]
        yield orjson.dumps(lines)

    def close(self) -> None:
        """Do nothing: no resources are held."""


def main() -> None:
    """Serve pictures; the argument is `RapidOCROptions` as JSON."""
    options = RapidOCROptions(**orjson.loads(sys.argv[1]))

    def load() -> Any:
        engine = RapidOCR(
            params={
                "Global.log_level": "error",
                # Disabled, because its model for upside-down lines misclassifies
                # upright ones.
                "Global.use_cls": False,
                "EngineConfig.onnxruntime.intra_op_num_threads": options.threads,
            }
        )
        return lambda _: RapidOCRJob(engine, options.least_score)

    serve(load, niceness=options.niceness)


if __name__ == "__main__":
    main()
