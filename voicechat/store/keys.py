"""API keys, kept as hashes in a SQLite file of the data directory.

A key reads ``vc_`` + 8 hexadecimal digits (its public id) + 43 random URL-safe characters (256 bits). Only the SHA-256
of the whole key is stored: a slow password hash protects secrets that people invent and that can be guessed; 256 random
bits cannot be, so a fast hash gives away nothing and costs the event loop a microsecond.
"""

import hashlib
import hmac
import os
import secrets
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from voicechat.errors import ConfigError

KEY_PREFIX = "vc_"
ID_DIGITS = 8
SECRET_BYTES = 32
MAX_KEY_CHARACTERS = 512
"""Longer tokens are refused before they are hashed."""

_LOCK_TIMEOUT_S = 2.0
_NO_FILE = (0, 0)
_NO_DIGEST = bytes(hashlib.sha256().digest_size)
_SCHEMA = """
CREATE TABLE IF NOT EXISTS api_key (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL,
    digest BLOB NOT NULL,
    created_s INTEGER NOT NULL DEFAULT (CAST(strftime('%s', 'now') AS INTEGER)),
    revoked_s INTEGER
)
"""


@dataclass(frozen=True, slots=True)
class ApiKey:
    """What may be shown of a key. Times are Unix seconds; ``revoked_s`` None: the key is valid."""

    id: str
    name: str
    created_s: int
    revoked_s: int | None


def digest(key: str) -> bytes:
    """Hash a key with SHA-256, as it is stored and compared."""
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()


class KeyStore:
    """The key file, for the command line (``create``, ``list``, ``revoke``) and the server (``find``).

    Methods that open the database block for some milliseconds of disk, or up to two seconds while another process
    writes. ``find`` and ``stale`` do not: a server asks ``stale`` and calls ``refresh`` in a thread. The file appears
    with the first key.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._valid: Mapping[str, tuple[ApiKey, bytes]] = {}
        self._read_version = _NO_FILE

    def create(self, name: str) -> tuple[ApiKey, str]:
        """Make a key; the second of the pair is the key itself, which is kept nowhere. ConfigError: disk or lock."""
        key_id = secrets.token_hex(ID_DIGITS // 2)
        key = f"{KEY_PREFIX}{key_id}{secrets.token_urlsafe(SECRET_BYTES)}"
        with self._database() as database:
            row = database.execute(
                "INSERT INTO api_key (id, name, digest) VALUES (?, ?, ?) RETURNING id, name, created_s, revoked_s",
                (key_id, name, digest(key)),
            ).fetchone()
        return ApiKey(*row), key

    def list(self) -> list[ApiKey]:
        """Every key ever made, oldest first."""
        if not self._path.exists():
            return []
        with self._database() as database:
            rows = database.execute("SELECT id, name, created_s, revoked_s FROM api_key ORDER BY created_s, id")
            return [ApiKey(*row) for row in rows]

    def revoke(self, key_id: str) -> bool:
        """Make a key invalid from now on. False when no valid key has that id."""
        if not self._path.exists():
            return False
        with self._database() as database:
            changed = database.execute(
                "UPDATE api_key SET revoked_s = CAST(strftime('%s', 'now') AS INTEGER) "
                "WHERE id = ? AND revoked_s IS NULL",
                (key_id,),
            )
            return changed.rowcount == 1

    def find(self, key: str) -> ApiKey | None:
        """Return the valid key that reads ``key``, as the file stood at the last ``refresh``; None: there is none.

        The comparison takes the same time wherever the first difference is.
        """
        if not key.startswith(KEY_PREFIX) or len(key) > MAX_KEY_CHARACTERS:
            return None
        found, expected = self._valid.get(key[len(KEY_PREFIX) :][:ID_DIGITS], (None, _NO_DIGEST))
        return found if hmac.compare_digest(expected, digest(key)) else None

    def has_valid_keys(self) -> bool:
        """Whether anybody can be let in by a key of this store."""
        self.refresh()
        return bool(self._valid)

    @property
    def stale(self) -> bool:
        """Whether the file has been changed since the last ``refresh``, by whomever."""
        return _version(self._path) != self._read_version

    def refresh(self) -> None:
        """Read the valid keys if they are stale. May be called from any thread. ConfigError: the file is broken."""
        version = _version(self._path)
        if version != self._read_version:
            # The version is older than what is read: a change in between is seen at the next call.
            self._valid = self._read_valid() if version != _NO_FILE else {}
            self._read_version = version

    def _read_valid(self) -> Mapping[str, tuple[ApiKey, bytes]]:
        with self._database() as database:
            rows = database.execute(
                "SELECT id, name, created_s, revoked_s, digest FROM api_key WHERE revoked_s IS NULL"
            )
            return {row[0]: (ApiKey(*row[:4]), row[4]) for row in rows}

    @contextmanager
    def _database(self) -> Iterator[sqlite3.Connection]:
        """One transaction. The file is made readable by its owner alone before SQLite writes to it."""
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            os.close(os.open(self._path, os.O_CREAT | os.O_RDWR, 0o600))
            with closing(sqlite3.connect(self._path, timeout=_LOCK_TIMEOUT_S)) as database, database:
                database.execute(_SCHEMA)
                yield database
        except (OSError, sqlite3.Error) as error:
            raise ConfigError(f"the key file {self._path} cannot be used: {error}") from error


def _version(path: Path) -> tuple[int, int]:
    """Which file it is, and SQLite's change counter: four bytes at offset 24 that each transaction increments.

    Unlike a modification time it tells two changes within one clock tick apart. It is kept in rollback-journal mode
    only, which is why the database must not be switched to WAL. Source: sqlite.org/fileformat2.html, 1.3.7.
    """
    try:
        with path.open("rb") as file:
            file.seek(24)
            return os.fstat(file.fileno()).st_ino, int.from_bytes(file.read(4), "big")
    except FileNotFoundError:
        return _NO_FILE
    except OSError as error:
        raise ConfigError(f"the key file {path} cannot be read: {error}") from error
