"""The interfaces of services for pictures and videos. Third parties implement them:
they are stable.

Each has one method, and the optional capabilities of `Provider`. A service may
implement several: one that makes pictures usually changes them too. Cancelling a method
releases everything it holds. A provider raises ``ProviderError`` and nothing else.
"""

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Protocol

from voicechat.pictures.picture import Picture
from voicechat.providers.interfaces import Provider


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageRequest:
    """A request for pictures. Empty values and None mean the service's own default."""

    prompt: str
    negative_prompt: str = ""
    """What the picture should not show."""
    model: str = ""
    """The model that the client named. A service with a configured model ignores it."""
    width: int | None = None
    height: int | None = None
    """In pixels. Width and height are both given or both None."""
    count: int = 1
    """Number of pictures."""
    seed: int | None = None
    options: Mapping[str, object] = field(default_factory=dict)
    """Further options with the names of OpenAI's images API. A service ignores options
    that it does not know.
    """
    pictures: tuple[Picture, ...] = ()
    """The pictures to change; empty to make a new one."""
    mask: Picture | None = None
    """A mask of the size of the first picture. Its transparent areas are to be changed.
    """


class RemoteJob(Protocol):
    """The server's side of a job that a service performs by itself. It survives the
    process.
    """

    @property
    def key(self) -> str:
        """Names the job, and is the same in each attempt: an idempotency key."""

    async def begin(self, submit: Callable[[], Awaitable[str]]) -> str:
        """Return the service's own name of the job.

        ``submit`` begins the job at the service and returns its name, which is stored:
        an attempt after a crash continues that job, and ``submit`` is not called again.
        Cancelling waits, for some seconds at most, until a job that is being submitted
        has its name, so that it can be stopped.
        """


class ImageGenerator(Provider, ABC):
    """Makes pictures from a text, or changes pictures according to a text."""

    @property
    def edits(self) -> bool:
        """Whether requests may have ``pictures``."""
        return False

    @abstractmethod
    async def make_images(
        self, request: ImageRequest, job: RemoteJob | None = None
    ) -> tuple[Picture, ...]:
        """Make ``count`` pictures, or as many as the service makes for one request.

        ``job`` is for services that make them by jobs of their own; None: a client
        waits, and nothing survives the process.
        """

    async def stop_job(self, remote_id: str) -> None:
        """Stop a job that nobody wants any more, if the service can."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoRequest:
    """A request for a video. Empty values and None mean the service's own default."""

    prompt: str
    negative_prompt: str = ""
    model: str = ""
    """As in `ImageRequest`."""
    width: int | None = None
    height: int | None = None
    """In pixels. Width and height are both given or both None."""
    resolution: str = ""
    """``480p`` or ``720p``, for services that accept no size."""
    ratio: str = ""
    """Width to height, such as ``16:9``."""
    seconds: float | None = None
    frame_rate: int | None = None
    seed: int | None = None
    watermark: bool | None = None
    pictures: tuple[Picture, ...] = ()
    """Pictures that the video begins with or should resemble."""
    source: str = ""
    """The service's own name of the video to change; empty to make a new one."""


class VideoJob(RemoteJob, Protocol):
    """The server's side of a video in progress."""

    def report(self, done: float) -> None:
        """Report progress from 0 to 1."""

    async def write_piece(self, piece: bytes) -> None:
        """Append to the video's file. Raises ``RemoteProtocolError`` (TOO_LARGE)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoMade:
    """What a service reports about a finished video. Values that it does not report are
    None or empty.
    """

    content_type: str = "video/mp4"
    seconds: float | None = None
    resolution: str = ""
    frame_rate: int | None = None
    ratio: str = ""
    source: str = ""
    """The service's own name of the video, for `VideoRequest.source`."""


class VideoGenerator(Provider, ABC):
    """Makes videos from a text and pictures, or changes a video that it has made."""

    @property
    def edits(self) -> bool:
        """Whether requests may have a ``source``."""
        return False

    @abstractmethod
    async def make_video(self, request: VideoRequest, job: VideoJob) -> VideoMade:
        """Make a video and write it to the job. It may take many minutes."""

    async def stop_job(self, remote_id: str) -> None:
        """Stop a job that nobody wants any more, if the service can."""


class ImageDescriber(Provider, ABC):
    """Describes pictures."""

    @abstractmethod
    async def describe_image(self, picture: Picture, question: str) -> str:
        """Answer a question about a picture."""


class ImageEnhancer(Provider, ABC):
    """Makes pictures larger or clearer."""

    @abstractmethod
    async def enhance_image(self, picture: Picture) -> Picture:
        """Return an enhanced copy."""


class VideoOperation(Enum):
    """An operation on a video."""

    TRACK = "track"
    """Mark the objects that move, with the same number in each frame."""
    INTERPOLATE = "interpolate"
    """Insert frames between the existing ones."""


class VideoProcessor(Provider, ABC):
    """Processes videos."""

    @property
    @abstractmethod
    def operations(self) -> frozenset[VideoOperation]:
        """The supported operations."""

    @abstractmethod
    async def process_video(self, source: Path, target: Path, operation: VideoOperation) -> None:
        """Read the file ``source`` and write an MP4 file ``target``."""


class BlockKind(Enum):
    """The kind of a block of text."""

    TEXT = "text"
    TABLE = "table"


@dataclass(frozen=True, slots=True, kw_only=True)
class TextBlock:
    """A paragraph or table of a picture. Positions are in pixels from the top left
    corner.
    """

    kind: BlockKind = BlockKind.TEXT
    text: str
    """The text. Of a table, its rows as a Markdown table."""
    left: int
    top: int
    right: int
    bottom: int


class TextReader(Provider, ABC):
    """Reads the text in pictures (OCR)."""

    @abstractmethod
    async def read_text(self, picture: Picture, prompt: str = "") -> tuple[TextBlock, ...]:
        """Return the blocks in reading order; none for a picture without text.

        ``prompt`` is for services that accept one.
        """
