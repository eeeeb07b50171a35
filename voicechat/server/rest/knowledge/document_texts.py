"""Documents as text: read in processes with limits, shared fairly among keys, their
scanned pages by the OCR service.
"""

from collections.abc import Callable
from pathlib import Path

from voicechat.documents.reader import AT_ONCE, DocumentReader, DocumentText
from voicechat.pictures.inspector import PictureInspector
from voicechat.runtime.media_services import MediaServices
from voicechat.server.fair_semaphore import FairSemaphore


class DocumentTexts:
    """Reads documents. Between the first use and ``aclose`` a fork server runs."""

    def __init__(self, services: MediaServices, inspector: PictureInspector) -> None:
        self._services = services
        self._inspector = inspector
        self._reader = DocumentReader()
        self._slots = FairSemaphore(AT_ONCE)

    async def read(
        self,
        path: Path,
        title: str,
        key: str,
        report: Callable[[float], None] = lambda _: None,
    ) -> DocumentText:
        """Read the document at ``path``, whose name was ``title``, on behalf of
        ``key``.

        Raises as ``DocumentReader.read``, and ``ProviderError`` when the OCR service
        fails.
        """
        has_ocr = bool(self._services.ocr.services)
        async with self._slots.slot(key):
            return await self._reader.read(
                path, title, read_picture=self._read_picture if has_ocr else None, report=report
            )

    async def aclose(self) -> None:
        """Stop the fork server. Idempotent."""
        await self._reader.aclose()

    async def _read_picture(self, content: bytes) -> str:
        picture = await self._inspector.inspect(content, "page")
        blocks = await self._services.ocr.find("file").read_text(picture)
        return "\n\n".join(block.text for block in blocks)
