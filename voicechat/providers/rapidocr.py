"""Reads text in pictures by RapidOCR: its package contains the PP-OCR models for
Chinese and English, which onnxruntime computes on the CPU.

The package is an extra: ``pip install 'voicechat[ocr]'``. See ``docs/compat.md``.
"""

from dataclasses import dataclass
from typing import Annotated

import orjson
from pydantic import Field

from voicechat.errors import FailureKind, ProviderError
from voicechat.pictures.picture import Picture
from voicechat.providers.media import TextBlock, TextReader
from voicechat.providers.model_process import ModelProcess, default_threads, need_package
from voicechat.providers.page_layout import TextLine, lay_out

PROVIDER = "rapidocr"
PIECE_BYTES = 512 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class RapidOCROptions:
    """The options of the child process."""

    threads: int
    niceness: int
    least_score: float


def open_text_reader(
    *,
    threads: Annotated[int, Field(ge=1, le=64)] | None = None,
    pictures: Annotated[int, Field(ge=1, le=64)] = 4,
    wait_ms: Annotated[int, Field(ge=0, le=600_000)] = 60_000,
    least_score: Annotated[float, Field(ge=0, le=1)] = 0.5,
    niceness: Annotated[int, Field(ge=0, le=19)] = 5,
) -> "RapidOCRReader":
    """Open the reader. The first picture loads its models, which takes a few seconds.

    ``threads``: of one picture; unset: the cores, at most 4. ``pictures``: accepted at
    once and read one after the other; another one waits for ``wait_ms``.
    ``least_score``: lines with a lower score are omitted. ``niceness``: of the child
    process. Raises `ConfigError` when the package is missing.
    """
    need_package("rapidocr", PROVIDER, extra="ocr")
    options = RapidOCROptions(
        threads=threads or default_threads(), niceness=niceness, least_score=least_score
    )
    process = ModelProcess(
        PROVIDER, "voicechat.providers.rapidocr_worker", options, jobs=pictures, wait_ms=wait_ms
    )
    return RapidOCRReader(process)


class RapidOCRReader(TextReader):
    """A `TextReader` in a child process."""

    def __init__(self, process: ModelProcess) -> None:
        self._process = process

    @property
    def patience_s(self) -> float:
        """As `ModelProcess.patience_s`."""
        return self._process.patience_s

    async def aclose(self) -> None:
        """End the child."""
        await self._process.aclose()

    async def read_text(self, picture: Picture, prompt: str = "") -> tuple[TextBlock, ...]:
        """Read a picture. Raises `ProviderError` as `ModelProcess.job`."""
        answer = b""
        async with self._process.job() as channel:
            content = picture.content
            for begin in range(0, len(content), PIECE_BYTES):
                await channel.send(content[begin : begin + PIECE_BYTES])
            channel.finish_input()
            async for piece in channel:
                answer += piece
        try:
            lines = [
                TextLine(item["text"], tuple(map(tuple, item["corners"])))  # type: ignore[arg-type]
                for item in orjson.loads(answer)
            ]
        except (orjson.JSONDecodeError, KeyError, TypeError) as error:
            raise ProviderError(PROVIDER, FailureKind.BROKEN, "its answer is no list") from error
        return lay_out(lines)
