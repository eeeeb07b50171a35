"""API keys, kept as hashes in a SQLite file of the data directory.

A key reads ``vc_`` + 8 hexadecimal digits (its public id) + 43 random URL-safe
characters (256 bits). Only the SHA-256 of the whole key is stored. A slow password hash
protects secrets that people invent and that can be guessed. 256 random bits cannot be
guessed, so a fast hash is as safe, and takes a microsecond of the event loop.
"""

import hashlib
import hmac
import json
import os
import secrets
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import Any

from voicechat.errors import ConfigError
from voicechat.store.access import EVERYTHING, ApiEndpoint, Grant, Quota, Scope
from voicechat.store.private_database import PrivateDatabase

KEY_PREFIX = "vc_"
ID_DIGITS = 8
SECRET_BYTES = 32
MAX_KEY_CHARACTERS = 512
"""Longer texts are rejected before they are hashed."""

_NO_FILE = (0, 0)
_NO_DIGEST = bytes(hashlib.sha256().digest_size)
_MIGRATIONS = (
    (
        "CREATE TABLE IF NOT EXISTS api_key (id TEXT PRIMARY KEY, name TEXT NOT NULL, digest "
        "BLOB NOT NULL, created_s INTEGER NOT NULL DEFAULT (CAST(strftime('%s', 'now') AS "
        "INTEGER)), revoked_s INTEGER)",
    ),
    (
        "ALTER TABLE api_key ADD COLUMN expires_s INTEGER",
        "ALTER TABLE api_key ADD COLUMN projects TEXT NOT NULL DEFAULT '[]'",
        "ALTER TABLE api_key ADD COLUMN endpoints TEXT NOT NULL DEFAULT '[]'",
        "ALTER TABLE api_key ADD COLUMN max_sessions INTEGER",
        "ALTER TABLE api_key ADD COLUMN requests_per_minute INTEGER",
        "ALTER TABLE api_key ADD COLUMN audio_seconds_per_day INTEGER",
    ),
)
_COLUMNS = (
    "id, name, created_s, revoked_s, expires_s, projects, endpoints, "
    "max_sessions, requests_per_minute, audio_seconds_per_day"
)


@dataclass(frozen=True, slots=True)
class ApiKey:
    """The public part of a key.

    Times are Unix seconds; ``revoked_s`` None: valid until it expires.
    """

    id: str
    name: str
    created_s: int
    revoked_s: int | None
    grant: Grant = EVERYTHING

    def expired(self, now_s: float) -> bool:
        """Return whether the key has expired at Unix time ``now_s``."""
        return self.grant.expires_s is not None and now_s >= self.grant.expires_s


def digest(key: str) -> bytes:
    """Return the SHA-256 of a key, the form in which keys are stored and compared."""
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()


class KeyStore:
    """The key file, for the command line (``create_key``, ``list_keys``,
    ``revoke_key``) and the server (``find_key``).

     Methods that open the database block for some milliseconds of disk access, or up to
     two seconds while another process writes. ``find_key`` and ``stale`` do not block:
     a server checks ``stale`` and calls ``refresh`` in a thread. The file is created
     with the first key.
    """

    def __init__(self, path: Path) -> None:
        self._database = PrivateDatabase(path, "key", _MIGRATIONS)
        self._unrevoked: Mapping[str, tuple[ApiKey, bytes]] = {}
        self._in_file: Mapping[str, tuple[ApiKey, bytes]] = {}
        """Like ``_unrevoked``, but from the last time that the file existed."""
        self._read_version = _NO_FILE
        self._watch = _FileWatch(path)

    def create_key(
        self,
        name: str,
        grant: Grant = EVERYTHING,
        *,
        make_secret: Callable[[str], str] = lambda _: secrets.token_urlsafe(SECRET_BYTES),
    ) -> tuple[ApiKey, str]:
        """Create a key. Returns its public part and the key itself, which is not
        stored.

        ``make_secret`` computes the secret part of a key from its id: 256 bits that no
        one else can compute. Raises ConfigError on a disk or lock error.
        """
        key_id = secrets.token_hex(ID_DIGITS // 2)
        key = f"{KEY_PREFIX}{key_id}{make_secret(key_id)}"
        row: tuple[object, ...] = (
            key_id,
            name,
            digest(key),
            grant.expires_s,
            json.dumps(grant.scope.projects),
        )
        row += (json.dumps([endpoint.value for endpoint in grant.scope.endpoints]),)
        row += (
            grant.quota.max_sessions,
            grant.quota.requests_per_minute,
            grant.quota.audio_seconds_per_day,
        )
        with self._database.transaction() as database:
            made = database.execute(
                "INSERT INTO api_key (id, name, digest, expires_s, projects, endpoints, "
                "max_sessions, requests_per_minute, audio_seconds_per_day) VALUES (?, ?, ?, ?, "
                f"?, ?, ?, ?, ?) RETURNING {_COLUMNS}",
                row,
            ).fetchone()
        return _api_key(made), key

    def list_keys(self) -> list[ApiKey]:
        """Return all keys ever created, oldest first."""
        if not self._database.exists:
            return []
        with self._database.transaction() as database:
            return [
                _api_key(row)
                for row in database.execute(
                    f"SELECT {_COLUMNS} FROM api_key ORDER BY created_s, id"
                )
            ]

    def revoke_key(self, key_id: str) -> bool:
        """Revoke a key now. Returns False if no valid key has that id."""
        if not self._database.exists:
            return False
        with self._database.transaction() as database:
            changed = database.execute(
                "UPDATE api_key SET revoked_s = CAST(strftime('%s', 'now') AS INTEGER) "
                "WHERE id = ? AND revoked_s IS NULL",
                (key_id,),
            )
            return changed.rowcount == 1

    def find_key(self, key: str, now_s: float) -> ApiKey | None:
        """Return the key whose text is ``key``, if it is valid at Unix time ``now_s``;
        else None.

        The state is that of the last ``refresh``. The comparison takes constant time.
        """
        if not key.startswith(KEY_PREFIX) or len(key) > MAX_KEY_CHARACTERS:
            return None
        key_id = key[len(KEY_PREFIX) :][:ID_DIGITS]
        _, expected = self._unrevoked.get(key_id, (None, _NO_DIGEST))
        return self.valid_key(key_id, now_s) if hmac.compare_digest(expected, digest(key)) else None

    def valid_key(self, key_id: str, now_s: float) -> ApiKey | None:
        """Return the key with that id if it is valid at Unix time ``now_s``, as of the
        last ``refresh``.
        """
        key, _ = self._unrevoked.get(key_id, (None, _NO_DIGEST))
        return key if key is not None and not key.expired(now_s) else None

    def valid_ids(self, now_s: float) -> frozenset[str]:
        """Return the ids of the keys that are valid at Unix time ``now_s``, as of the
        last ``refresh``.
        """
        return frozenset(
            key_id for key_id, (key, _) in self._unrevoked.items() if not key.expired(now_s)
        )

    def ended_keys(self, key_ids: Iterable[str], now_s: float) -> frozenset[str]:
        """Return the subset of the keys that are revoked or expired at Unix time
        ``now_s``, as of the last ``refresh``.

        If the file no longer exists, the keys keep the state that they had in it, but
        do not authorise new requests.
        """
        valid = (key_id for key_id, (key, _) in self._in_file.items() if not key.expired(now_s))
        return frozenset(key_ids) - frozenset(valid)

    def has_valid_keys(self, now_s: float) -> bool:
        """Read the file, and return whether any key is valid at Unix time ``now_s``."""
        self.refresh()
        return bool(self.valid_ids(now_s))

    @property
    def stale(self) -> bool:
        """Whether the file has changed since the last ``refresh``."""
        return self._watch.version() != self._read_version

    def refresh(self) -> None:
        """Read the unrevoked keys, if the file has changed. Raises ConfigError when it
        is broken.

        May be called from any thread.
        """
        version = self._watch.version()
        if version != self._read_version:
            # The version was read before the keys, so a change in between is seen at
            # the next call.
            if version == _NO_FILE:
                self._unrevoked = {}
            else:
                self._unrevoked = self._in_file = self._read_unrevoked()
            self._read_version = version

    def _read_unrevoked(self) -> Mapping[str, tuple[ApiKey, bytes]]:
        query = f"SELECT {_COLUMNS}, digest FROM api_key WHERE revoked_s IS NULL"
        rows: Sequence[Any] | None = self._database.read(query)
        if rows is None:
            with self._database.transaction() as database:
                rows = database.execute(query).fetchall()
        return {row[0]: (_api_key(row[:-1]), row[-1]) for row in rows}


def _api_key(row: tuple[Any, ...]) -> ApiKey:
    """Convert a row of ``_COLUMNS``."""
    (
        key_id,
        name,
        created_s,
        revoked_s,
        expires_s,
        projects,
        endpoints,
        sessions,
        requests,
        audio_s,
    ) = row
    scope = Scope(
        projects=tuple(json.loads(projects)),
        endpoints=tuple(map(ApiEndpoint, json.loads(endpoints))),
    )
    quota = Quota(
        max_sessions=sessions, requests_per_minute=requests, audio_seconds_per_day=audio_s
    )
    return ApiKey(
        key_id, name, created_s, revoked_s, Grant(scope=scope, quota=quota, expires_s=expires_s)
    )


class _FileWatch:
    """Identifies a version of the file by its inode and SQLite's change counter, four
    bytes at offset 24 that each transaction increments.

    Unlike a modification time, the counter distinguishes two changes within one clock
    tick. SQLite maintains it only in rollback-journal mode, so the database must not be
    switched to WAL. Source: sqlite.org/fileformat2.html, 1.3.7.

    The file stays open as long as it is the same one, because closing it would release
    the locks that SQLite's connections of this process hold on it (POSIX;
    sqlite.org/howtocorrupt.html, 2.2).
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._file: tuple[FileIO, int] | None = None
        """The file, and its inode."""

    def version(self) -> tuple[int, int]:
        """Return the inode and the counter; ``_NO_FILE`` without a file or for an empty
        one, as a full disk or an interrupted copy leaves it. May be called from any
        thread.

        Raises ConfigError if the file cannot be read.
        """
        with self._lock:
            try:
                found = self._path.stat()
                if found.st_size == 0:
                    return _NO_FILE
                if self._file is None or self._file[1] != found.st_ino:
                    self._close()
                    opened = self._path.open("rb", buffering=0)
                    self._file = (opened, os.fstat(opened.fileno()).st_ino)
                file, inode = self._file
                file.seek(24)
                return inode, int.from_bytes(file.read(4), "big")
            except FileNotFoundError:
                self._close()
                return _NO_FILE
            except OSError as error:
                message = f"the key file {self._path} cannot be read: {error}"
                raise ConfigError(message) from error

    def _close(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            file[0].close()

    def __reduce__(self) -> tuple[type["_FileWatch"], tuple[Path]]:
        """Pickle only the path: each worker opens the file itself."""
        return _FileWatch, (self._path,)

    def __del__(self) -> None:
        """Close the file."""
        self._close()
