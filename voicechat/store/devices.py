"""The devices that may connect to the server: their ids and keys, the codes that pair
new ones, and the agents' memories of them. A SQLite file of the data directory.

A device sends its id, which is printed on it, and a client id, which it has generated
and sends only to the server. Only both together identify the device. The SHA-256 of the
client id is stored. Each device has a key of ``keys``, restricted to conversations. The
text of the key is computed from the server's device secret, so a device always receives
the same key, and no key is stored.
"""

import base64
import hashlib
import hmac
import json
import os
import secrets
import sqlite3
from dataclasses import dataclass
from pathlib import Path

from voicechat.store.access import ApiEndpoint, Grant, Quota, Scope
from voicechat.store.keys import KEY_PREFIX, SECRET_BYTES, KeyStore, digest
from voicechat.store.private_database import PrivateDatabase

DEVICE_FILE = "devices.sqlite3"
SECRET_FILE = "devices.secret"
CODE_S = 600
"""Validity of a code after the device last requested it."""
MOST_CODES = 256
"""Most devices that wait to be paired."""
CODES_OF_ADDRESS = 16
"""Most of these from one network address, so that it cannot use up the codes of the
others.
"""
DEVICE_SESSIONS = 2
"""Most concurrent conversations of one device: two, because a lost connection may still
count.
"""

_SCHEMA = (
    "CREATE TABLE IF NOT EXISTS device (id TEXT PRIMARY KEY, client BLOB NOT NULL, "
    "key_id TEXT NOT NULL, agent TEXT NOT NULL, name TEXT NOT NULL, about TEXT NOT NULL, "
    "created_s INTEGER NOT NULL, seen_s INTEGER NOT NULL, revoked_s INTEGER)",
    "CREATE TABLE IF NOT EXISTS code (code TEXT PRIMARY KEY, id TEXT NOT NULL, "
    "client BLOB NOT NULL, about TEXT NOT NULL, address TEXT NOT NULL, "
    "expires_s INTEGER NOT NULL, UNIQUE (id, client))",
    "CREATE TABLE IF NOT EXISTS memory (id TEXT NOT NULL, agent TEXT NOT NULL, "
    "summary TEXT NOT NULL, turns TEXT NOT NULL, updated_s INTEGER NOT NULL, "
    "PRIMARY KEY (id, agent))",
)
_COLUMNS = "id, key_id, agent, name, about, created_s, seen_s, revoked_s"
_GRANT = Grant(
    scope=Scope(endpoints=(ApiEndpoint.CONVERSATION,)),
    quota=Quota(max_sessions=DEVICE_SESSIONS),
)


@dataclass(frozen=True, slots=True)
class Device:
    """A device that was paired. Times are Unix seconds."""

    id: str
    """The id that the device reports: its MAC address."""
    key_id: str
    agent: str
    """The agent that answers the device; empty for the configured default."""
    name: str
    """A name for people to read."""
    about: str
    """The board and firmware that the device reports."""
    created_s: int
    seen_s: int
    """When the device last requested its configuration."""
    revoked_s: int | None


@dataclass(frozen=True, slots=True)
class Waiting:
    """A device that waits to be paired."""

    code: str
    id: str
    about: str
    expires_s: int


@dataclass(frozen=True, slots=True)
class Memory:
    """An agent's memory of a device."""

    summary: str
    turns: tuple[str, ...]
    """The last messages, verbatim."""
    updated_s: int


class UnknownCodeError(Exception):
    """No device waits with that code."""


class TooManyCodesError(Exception):
    """Too many devices wait to be paired."""


class DeviceStore:
    """The file of the devices. Every method opens it and blocks for some milliseconds
    of disk access, or up to two seconds while another process writes, so a server calls
    the methods in a thread. They raise ConfigError on a disk or lock error.
    """

    def __init__(self, data_dir: Path, keys: KeyStore) -> None:
        self._database = PrivateDatabase(data_dir / DEVICE_FILE, "device", (_SCHEMA,))
        self._secret_path = data_dir / SECRET_FILE
        self._keys = keys
        self._secret = b""

    # --- the server -------------------------------------------------------------------

    def check_in(self, device_id: str, client_id: str, now_s: int) -> Device | None:
        """Return the device if it is paired and not revoked, and store the time of this
        request.
        """
        with self._database.transaction() as database:
            row = database.execute(
                f"UPDATE device SET seen_s = ? WHERE id = ? AND client = ? "
                f"AND revoked_s IS NULL RETURNING {_COLUMNS}",
                (now_s, device_id, digest(client_id)),
            ).fetchone()
        return Device(*row) if row is not None else None

    def is_known(self, device_id: str) -> bool:
        """Return whether a device with that id was ever paired. Another device that
        reports the same id must not be accepted without a code.
        """
        with self._database.transaction() as database:
            found = database.execute("SELECT 1 FROM device WHERE id = ?", (device_id,))
            return found.fetchone() is not None

    def is_revoked(self, device_id: str) -> bool:
        """Return whether the device with that id was paired and later revoked."""
        if not self._database.exists:
            return False
        with self._database.transaction() as database:
            query = "SELECT 1 FROM device WHERE id = ? AND revoked_s IS NOT NULL"
            return database.execute(query, (device_id,)).fetchone() is not None

    def wait_for_code(
        self, device_id: str, client_id: str, about: str, address: str, now_s: int
    ) -> str:
        """Return the code that pairs the device: six digits, the same as long as the
        device keeps requesting it.

        Raises TooManyCodesError.
        """
        client = digest(client_id)
        with self._database.transaction() as database:
            database.execute("DELETE FROM code WHERE expires_s <= ?", (now_s,))
            kept = database.execute(
                "UPDATE code SET expires_s = ? WHERE id = ? AND client = ? RETURNING code",
                (now_s + CODE_S, device_id, client),
            ).fetchone()
            if kept is not None:
                return str(kept[0])
            total, of_address = database.execute(
                "SELECT count(*), count(*) FILTER (WHERE address = ?) FROM code", (address,)
            ).fetchone()
            if total >= MOST_CODES or of_address >= CODES_OF_ADDRESS:
                raise TooManyCodesError
            code = _new_code(database)
            database.execute(
                "INSERT INTO code (code, id, client, about, address, expires_s) "
                "VALUES (?, ?, ?, ?, ?, ?)",
                (code, device_id, client, about, address, now_s + CODE_S),
            )
            return code

    def accept(self, device_id: str, client_id: str, about: str, now_s: int) -> Device:
        """Pair a device without a code."""
        return self._add(device_id, digest(client_id), about, "", "", now_s)

    def key_of(self, device: Device) -> str:
        """Return the text of the device's key, which never changes."""
        return f"{KEY_PREFIX}{device.key_id}{self._key_secret(device.key_id)}"

    def sign(self, text: str) -> str:
        """Return a signature of ``text`` that only this server can make."""
        mac = hmac.new(self._server_secret(), b"sign:" + text.encode(), hashlib.sha256)
        return _written(mac.digest())

    # --- memory -----------------------------------------------------------------------

    def recall(self, key_id: str, agent: str) -> Memory | None:
        """Return the memory that ``agent`` has of the device with this key, if any."""
        if not self._database.exists:
            return None
        with self._database.transaction() as database:
            row = database.execute(
                "SELECT summary, turns, updated_s FROM memory JOIN device USING (id) "
                "WHERE key_id = ? AND memory.agent = ? AND revoked_s IS NULL",
                (key_id, agent),
            ).fetchone()
        return None if row is None else Memory(row[0], tuple(json.loads(row[1])), row[2])

    def remember(self, key_id: str, agent: str, memory: Memory) -> bool:
        """Store the memory that ``agent`` has of the device with this key, replacing
        the previous one. Returns False if no device has the key, or it is revoked.
        """
        if not self._database.exists:
            return False
        with self._database.transaction() as database:
            changed = database.execute(
                "INSERT OR REPLACE INTO memory (id, agent, summary, turns, updated_s) "
                "SELECT id, ?, ?, ?, ? FROM device WHERE key_id = ? AND revoked_s IS NULL",
                (agent, memory.summary, json.dumps(memory.turns), memory.updated_s, key_id),
            )
            return changed.rowcount == 1

    def memories_of(self, device_id: str) -> dict[str, Memory]:
        """Return the memories of a device by agent."""
        if not self._database.exists:
            return {}
        with self._database.transaction() as database:
            rows = database.execute(
                "SELECT agent, summary, turns, updated_s FROM memory WHERE id = ? ORDER BY agent",
                (device_id,),
            ).fetchall()
        return {row[0]: Memory(row[1], tuple(json.loads(row[2])), row[3]) for row in rows}

    def forget(self, device_id: str) -> bool:
        """Delete all memories of a device. Returns False if there were none."""
        if not self._database.exists:
            return False
        with self._database.transaction() as database:
            erased = database.execute("DELETE FROM memory WHERE id = ?", (device_id,))
            return erased.rowcount > 0

    # --- the command line -------------------------------------------------------------

    def pair(self, code: str, agent: str, name: str, now_s: int) -> Device:
        """Pair the device that waits with ``code``. Another device with the same id is
        revoked. Raises UnknownCodeError.
        """
        with self._database.transaction() as database:
            row = database.execute(
                "DELETE FROM code WHERE code = ? AND expires_s > ? RETURNING id, client, about",
                (code, now_s),
            ).fetchone()
        if row is None:
            raise UnknownCodeError(code)
        device_id, client, about = row
        return self._add(device_id, client, about, agent, name, now_s)

    def list_devices(self) -> list[Device]:
        """Return every device ever paired, the oldest first."""
        if not self._database.exists:
            return []
        with self._database.transaction() as database:
            query = f"SELECT {_COLUMNS} FROM device ORDER BY created_s, id"
            return [Device(*row) for row in database.execute(query)]

    def list_waiting(self, now_s: int) -> list[Waiting]:
        """Return the devices that wait to be paired."""
        if not self._database.exists:
            return []
        with self._database.transaction() as database:
            query = "SELECT code, id, about, expires_s FROM code WHERE expires_s > ? ORDER BY code"
            return [Waiting(*row) for row in database.execute(query, (now_s,))]

    def revoke(self, device_id: str, now_s: int) -> bool:
        """Revoke a device now. Returns False if no valid device has that id."""
        if not self._database.exists:
            return False
        with self._database.transaction() as database:
            row = database.execute(
                "UPDATE device SET revoked_s = ? WHERE id = ? AND revoked_s IS NULL "
                "RETURNING key_id",
                (now_s, device_id),
            ).fetchone()
        if row is None:
            return False
        self._keys.revoke_key(row[0])
        return True

    # --- internals --------------------------------------------------------------------

    def _add(
        self, device_id: str, client: bytes, about: str, agent: str, name: str, now_s: int
    ) -> Device:
        self.revoke(device_id, now_s)
        key, _ = self._keys.create_key(f"device {device_id}", _GRANT, make_secret=self._key_secret)
        with self._database.transaction() as database:
            # Another device with the same id must not learn what was said to this one.
            database.execute(
                "DELETE FROM memory WHERE id = ? AND NOT EXISTS "
                "(SELECT 1 FROM device WHERE id = ? AND client = ?)",
                (device_id, device_id, client),
            )
            row = database.execute(
                "INSERT OR REPLACE INTO device (id, client, key_id, agent, name, about, "
                f"created_s, seen_s) VALUES (?, ?, ?, ?, ?, ?, ?, ?) RETURNING {_COLUMNS}",
                (device_id, client, key.id, agent, name, about, now_s, now_s),
            ).fetchone()
            database.execute("DELETE FROM code WHERE id = ?", (device_id,))
        return Device(*row)

    def _key_secret(self, key_id: str) -> str:
        """Return the secret part of a device's key."""
        mac = hmac.new(self._server_secret(), b"key:" + key_id.encode(), hashlib.sha256)
        return _written(mac.digest())

    def _server_secret(self) -> bytes:
        """Read the secret, or create it on the first call. A crash leaves no partial
        secret.
        """
        if self._secret:
            return self._secret
        try:
            if not self._secret_path.exists():
                self._secret_path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
                draft = self._secret_path.with_name(f"{SECRET_FILE}.{secrets.token_hex(4)}")
                flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY
                with os.fdopen(os.open(draft, flags, 0o600), "wb") as file:
                    file.write(secrets.token_bytes(SECRET_BYTES))
                try:
                    os.link(draft, self._secret_path)  # the first of several processes wins
                except FileExistsError:
                    pass
                finally:
                    draft.unlink()
            self._secret = self._secret_path.read_bytes()
        except OSError as error:
            raise self._database.unusable(error) from error
        return self._secret


def _new_code(database: sqlite3.Connection) -> str:
    while True:
        code = f"{secrets.randbelow(1_000_000):06}"
        taken = database.execute("SELECT 1 FROM code WHERE code = ?", (code,)).fetchone()
        if taken is None:
            return code


def _written(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()
