"""Accounts of users by name and password. A SQLite file of the data directory.

Passwords are hashed with argon2id by argon2-cffi's defaults (RFC 9106's second
recommendation). A user's id is an HMAC of the name with the file's secret, so it never
changes and is not stored in the file.
"""

import hashlib
import hmac
import secrets
from pathlib import Path

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from voicechat.store.private_database import PrivateDatabase

FILE = "accounts.sqlite3"
MOST_ACCOUNTS = 100_000
_MIGRATIONS = (
    (
        "CREATE TABLE secret (id INTEGER PRIMARY KEY CHECK (id = 1), text TEXT NOT NULL)",
        "CREATE TABLE account (name TEXT PRIMARY KEY, hash TEXT NOT NULL, email TEXT NOT NULL, "
        "created_s INTEGER NOT NULL)",
    ),
)


class AccountStore:
    """The accounts of one server. Methods take some tens of milliseconds and 64 MiB:
    call them in a thread.
    """

    def __init__(self, folder: Path, hasher: PasswordHasher | None = None) -> None:
        self._database = PrivateDatabase(folder / FILE, "account", _MIGRATIONS)
        self._hasher = hasher or PasswordHasher()
        self._nobody = self._hasher.hash(secrets.token_hex(8))
        """A hash that matches no password. It is verified for unknown names, so that
        they take as long as known names.
        """

    def register(self, name: str, password: str, email: str, now_s: int) -> bool:
        """Create an account. Returns False if the name is taken or there are
        ``MOST_ACCOUNTS`` accounts. Takes the same time in each case. ``now_s`` is Unix
        time.
        """
        password_hash = self._hasher.hash(password)
        with self._database.transaction() as connection:
            (count,) = connection.execute("SELECT COUNT(*) FROM account").fetchone()
            if count >= MOST_ACCOUNTS:
                return False
            made = connection.execute(
                "INSERT OR IGNORE INTO account VALUES (?, ?, ?, ?)",
                (name, password_hash, email, now_s),
            )
        return made.rowcount == 1

    def log_in(self, name: str, password: str) -> str:
        """Return the user's id; empty if the name or the password is wrong."""
        with self._database.transaction() as connection:
            row = connection.execute("SELECT hash FROM account WHERE name = ?", (name,)).fetchone()
        try:
            self._hasher.verify(row[0] if row else self._nobody, password)
        except (VerificationError, InvalidHashError):
            return ""
        return self._id_of(name) if row else ""

    def knows(self, name: str, user_id: str) -> bool:
        """Return whether this is the id of that user, and the account exists."""
        with self._database.transaction() as connection:
            row = connection.execute("SELECT 1 FROM account WHERE name = ?", (name,)).fetchone()
        expected = self._id_of(name)
        return hmac.compare_digest(expected.encode(), user_id.encode()) and row is not None

    def _id_of(self, name: str) -> str:
        with self._database.transaction() as connection:
            connection.execute(
                "INSERT OR IGNORE INTO secret VALUES (1, ?)", (secrets.token_hex(32),)
            )
            (secret,) = connection.execute("SELECT text FROM secret").fetchone()
        return hmac.new(secret.encode(), name.encode(), hashlib.sha256).hexdigest()[:32]
