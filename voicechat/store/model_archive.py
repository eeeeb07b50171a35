"""Unpacks an archive of unknown origin: nothing outside the folder, no links out of it, no more than a bound."""

import shutil
import tarfile
from pathlib import Path

from voicechat.errors import VoiceChatError

MAX_MEMBERS = 50_000
MAX_UNPACKED_BYTES = 16 * 1024**3
SPARE_BYTES = 200 * 1024**2
"""So much of the disk is left free."""


class ArchiveError(VoiceChatError):
    """An archive is damaged, or holds what may not be unpacked. The message is one line for a person."""


def unpack(archive: Path, folder: Path, max_bytes: int = MAX_UNPACKED_BYTES, spare_bytes: int = SPARE_BYTES) -> Path:
    """Unpack into ``folder``, which must not exist. Gives the folder of the content: the only one in it, or itself.

    Raises `ArchiveError`; what was unpacked by then is the caller's to remove. Refused are absolute names, names and
    links that lead out of the folder, and devices (the ``data`` filter of PEP 706).
    """
    if not hasattr(tarfile, "data_filter"):
        raise ArchiveError("Python is too old to unpack archives safely; 3.11.4 or newer does")
    folder.mkdir(parents=True)
    room_bytes = min(max_bytes, shutil.disk_usage(folder).free - spare_bytes)
    try:
        with tarfile.open(archive) as tar:
            for count, member in enumerate(tar):
                room_bytes -= member.size
                if room_bytes < 0 or count >= MAX_MEMBERS:
                    raise ArchiveError(f"{archive.name} unpacks to more than the bound, or than the disk has room for")
                tar.extract(member, folder, filter="data")
    except (tarfile.FilterError, KeyError) as error:
        raise ArchiveError(f"{archive.name} holds what may not be unpacked: {error}") from error
    except (tarfile.TarError, EOFError, ValueError) as error:
        raise ArchiveError(f"{archive.name} is damaged: {error}") from error
    except OSError as error:
        # bz2 and lzma tell of damage this way, too.
        raise ArchiveError(f"{archive.name} cannot be unpacked: {error.strerror or error}") from error
    inside = list(folder.iterdir())
    return inside[0] if len(inside) == 1 and inside[0].is_dir() else folder
