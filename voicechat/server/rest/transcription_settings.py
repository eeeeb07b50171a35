"""The limits and folders of transcription."""

import os
from dataclasses import dataclass, field
from pathlib import Path

from voicechat.config import Config
from voicechat.processes.machine_share import machine_share
from voicechat.server.fetch import FetchPolicy
from voicechat.server.rest.media.files import MediaSettings
from voicechat.server.rest.uploads import DiskLimits
from voicechat.store.tasks.on_demand import TaskSettings

TASK_FOLDER = "tasks"
MINUTE_MS = 60_000
HOUR_S = 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class TranscriptionSettings:
    """Where tasks and recordings are stored, and how much may be stored."""

    tasks: TaskSettings
    disk: DiskLimits = field(default_factory=DiskLimits)
    fetch: FetchPolicy = field(default_factory=FetchPolicy)
    keep_s: float = 24 * HOUR_S
    """How long a result is kept, and the recording with it."""
    max_audio_ms: int = 300 * MINUTE_MS
    """Longest recording of a task."""
    max_synchronous_ms: int = 30 * MINUTE_MS
    """Longest recording of a request that waits for its result."""
    requests: int = 4
    """Recordings of such requests that this process recognises at once."""
    key_tasks: int = 10_000
    """Most tasks of a key, finished ones that are kept included."""


MEDIA_FOLDER = "media"


def configured_media(config: Config) -> MediaSettings:
    """Read the section ``[media]``. The files are stored beside those of the tasks."""
    section = config.media
    return MediaSettings(
        folder=configured(config).tasks.folder / MEDIA_FOLDER,
        public_url=section.public_url,
        keep_s=section.keep_hours * HOUR_S,
        image_deadline_s=section.image_deadline_s,
        disk=DiskLimits(owner_bytes=section.max_key_bytes, total_bytes=section.max_disk_bytes),
    )


def configured(config: Config) -> TranscriptionSettings:
    """Read the settings from the section ``[transcription]`` of the configuration."""
    section = config.transcription
    return TranscriptionSettings(
        tasks=TaskSettings(
            folder=Path(section.folder) if section.folder else config.data_dir / TASK_FOLDER,
            database_url=section.database_url,
            workers=max(1, machine_share().part_of(section.workers)),
            max_attempts=section.max_attempts,
        ),
        disk=DiskLimits(
            file_bytes=section.max_recording_bytes,
            owner_bytes=section.max_key_bytes,
            total_bytes=section.max_disk_bytes,
        ),
        fetch=FetchPolicy(
            allowed_networks=section.allowed_networks,
            ports=frozenset(section.allowed_ports),
            max_bytes=section.max_recording_bytes,
        ),
        keep_s=section.keep_hours * HOUR_S,
        max_audio_ms=section.max_task_minutes * MINUTE_MS,
        max_synchronous_ms=section.max_request_minutes * MINUTE_MS,
        requests=max(1, machine_share().part_of(section.requests or 2 * (os.cpu_count() or 1))),
        key_tasks=section.max_key_tasks,
    )
