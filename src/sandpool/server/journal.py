"""What a server remembers over its own death: pools, keys, and which sandboxes were held.

Sandboxes do not outlive their server, so a lease in the journal of a server that has just started
is one that ended with the last one: whoever asks for it is told so, and nobody gets it again.

Definitions and keys are written before their caller is answered.  Leases are noted off the path of
a claim, and written together a moment later; a crash in between loses only the better words for
what has ended anyway.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
from collections.abc import Callable, Iterable
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path

import anyio
import anyio.to_thread
from pydantic import ValidationError

from sandpool.errors import BackendUnavailable, InvalidSpec
from sandpool.models import PoolSpec
from sandpool.server.settings import KeySettings

_Lease = tuple[str, str, str]
"""A namespace, and the ids of a sandbox and of its lease."""
_Notes = dict[_Lease, tuple[str, tuple[str | int, ...]]]
"""A statement and its values for each."""

_VERSION = 1
_FILE = "journal.sqlite"
_LOCK = "lock"

_SCHEMA = """
CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS pools (
    namespace TEXT NOT NULL, name TEXT NOT NULL, pool_id TEXT NOT NULL, spec TEXT NOT NULL,
    PRIMARY KEY (namespace, name)
);
CREATE TABLE IF NOT EXISTS leases (
    namespace TEXT NOT NULL, sandbox_id TEXT NOT NULL, lease_id TEXT NOT NULL,
    boot INTEGER NOT NULL,
    PRIMARY KEY (namespace, sandbox_id)
);
CREATE TABLE IF NOT EXISTS keys (
    name TEXT PRIMARY KEY, sha256 TEXT NOT NULL UNIQUE, namespace TEXT NOT NULL
);
"""

_EPOCHS_PER_BOOT = 1 << 32
"""More leases than one pool can give out in one life of the server."""

_GATHER = 0.02
"""Seconds in which notes are gathered before they are written."""

_KEPT_BOOTS = 2
"""For how many starts the leases of an earlier life are remembered."""


@dataclass(frozen=True, slots=True)
class PoolRecord:
    """A pool as it was defined."""

    namespace: str
    pool_id: str
    spec: PoolSpec


class Journal:
    """The file in a state directory; one server at a time has it open."""

    def __init__(self, directory: Path) -> None:
        """Name the directory; `open` makes it."""
        self._directory = directory
        self._database: sqlite3.Connection | None = None
        self._lock_file = -1
        self._limiter = anyio.CapacityLimiter(1)
        self._notes: _Notes = {}
        """What is to be written of leases, by these."""
        self._noted = anyio.Event()
        self._reader: sqlite3.Connection | None = None
        self._seen = -1
        """The version of the file when the keys were last read."""
        self.boot = 0
        """How often a server has started on this directory."""

    @property
    def first_epoch(self) -> int:
        """What the epochs of this life's leases begin with: more than any earlier one's."""
        return self.boot * _EPOCHS_PER_BOOT + 1

    def open(self) -> None:
        """Take the directory and count the start.

        Raises `BackendUnavailable` if it cannot be written, another server has it, or a newer
        sandpool wrote it.
        """
        try:
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock_file = os.open(
                self._directory / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600
            )
            fcntl.flock(self._lock_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._database = connect(self._directory)
            self._reader = connect(self._directory)
            self.boot = _count_boot(self._database)
        except BlockingIOError as error:
            self.close()
            raise BackendUnavailable(
                f"another server has {self._directory}; stop it, or give another --state-dir"
            ) from error
        except (OSError, sqlite3.Error) as error:
            self.close()
            raise BackendUnavailable(f"{self._directory} cannot be used: {error}") from error
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Write what was noted, and let the directory go; idempotent."""
        database, self._database = self._database, None
        if self._reader is not None:
            self._reader.close()
            self._reader = None
        if database is not None:
            with closing(database), suppress(sqlite3.Error):
                _write(database, self._notes)
        if self._lock_file >= 0:
            os.close(self._lock_file)
            self._lock_file = -1

    async def run(self) -> None:
        """Write notes as they come, until cancelled."""
        while True:
            await self._noted.wait()
            # Else each lease would be a transaction, in a thread that is in the way of its answer.
            await anyio.sleep(_GATHER)
            self._noted = anyio.Event()
            if self._notes:
                await self._write_notes()

    # Pools.

    async def put_pool(self, record: PoolRecord) -> None:
        """Remember a pool's definition, in place of an earlier one."""
        row = (record.namespace, record.spec.name, record.pool_id, record.spec.model_dump_json())
        await self._execute("INSERT OR REPLACE INTO pools VALUES (?, ?, ?, ?)", row)

    async def remove_pool(self, namespace: str, name: str) -> None:
        """Forget a pool."""
        await self._execute("DELETE FROM pools WHERE namespace = ? AND name = ?", (namespace, name))

    def pools(self) -> list[PoolRecord]:
        """Return the pools that were defined.

        Raises `InvalidSpec` for a definition that this version does not understand.
        """
        rows = self._need().execute("SELECT namespace, pool_id, spec FROM pools ORDER BY rowid")
        return [_pool_record(*row) for row in rows]

    # Leases.

    def note_lease(self, namespace: str, sandbox_id: str, lease_id: str) -> None:
        """Note that a sandbox is held; never waits."""
        lease = (namespace, sandbox_id, lease_id)
        row = (*lease, self.boot)
        self._notes[lease] = "INSERT OR REPLACE INTO leases VALUES (?, ?, ?, ?)", row
        self._noted.set()

    def note_end(self, namespace: str, sandbox_id: str, lease_id: str) -> None:
        """Note that a lease has ended; never waits."""
        lease = (namespace, sandbox_id, lease_id)
        if self._notes.pop(lease, None) is not None:
            return  # it was over before anything was written
        self._notes[lease] = (
            "DELETE FROM leases WHERE namespace = ? AND sandbox_id = ? AND lease_id = ?",
            lease,
        )
        self._noted.set()

    def lost(self) -> list[tuple[str, str]]:
        """Return namespace and id of the sandboxes that were held when an earlier server ended."""
        rows = self._need().execute(
            "SELECT namespace, sandbox_id FROM leases WHERE boot < ?", (self.boot,)
        )
        return [(str(namespace), str(sandbox_id)) for namespace, sandbox_id in rows]

    # Keys.

    def changed_keys(self) -> list[KeySettings] | None:
        """Return the keys if they may have changed since this was last called; None if not."""
        # By a connection of its own, which never waits for a writer.
        if self._reader is None:
            return None
        version = int(self._reader.execute("PRAGMA data_version").fetchone()[0])
        if version == self._seen:
            return None
        keys = read_keys(self._reader)
        # Only now: a change that could not be read is still to be read.
        self._seen = version
        return keys

    # How it is written.

    async def _write_notes(self) -> None:
        notes, self._notes = self._notes, {}
        try:
            await self._in_thread(lambda database: _write(database, notes))
        except BaseException:
            # Cancel: what is not written yet is written by `close`; and nothing is half written.
            self._notes = {**notes, **self._notes}
            raise

    async def _execute(self, statement: str, row: tuple[str, ...]) -> None:
        def write(database: sqlite3.Connection) -> None:
            with database:
                database.execute(statement, row)

        await self._in_thread(write)

    async def _in_thread(self, write: Callable[[sqlite3.Connection], None]) -> None:
        """Run `write` in a thread, one at a time; `BackendUnavailable` if the disk refuses."""
        database = self._need()
        try:
            await anyio.to_thread.run_sync(write, database, limiter=self._limiter)
        except sqlite3.Error as error:
            raise BackendUnavailable(f"{self._directory} cannot be written: {error}") from error

    def _need(self) -> sqlite3.Connection:
        if self._database is None:
            raise BackendUnavailable("the journal is closed; the server is stopping")
        return self._database


def _write(database: sqlite3.Connection, notes: _Notes) -> None:
    with database:
        for statement, row in notes.values():
            database.execute(statement, row)


def connect(directory: Path) -> sqlite3.Connection:
    """Open the journal of a state directory; `BackendUnavailable` if a newer sandpool wrote it."""
    path = directory / _FILE
    # Made by us first: definitions hold environments, which are nobody else's to read.  One that is
    # there is never opened here: to close it again would drop the locks of this process's other
    # connections, and whoever else closes it then takes its log away from under them.
    with suppress(FileExistsError):
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    database = sqlite3.connect(path, timeout=5.0, check_same_thread=False)
    try:
        _check_version(path, database)
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA synchronous = NORMAL")
        database.executescript(_SCHEMA)
        database.execute(f"PRAGMA user_version = {_VERSION}")
    except BaseException:
        database.close()
        raise
    return database


def _check_version(path: Path, database: sqlite3.Connection) -> None:
    if database.execute("PRAGMA user_version").fetchone()[0] > _VERSION:
        raise BackendUnavailable(
            f"{path} was written by a newer sandpool; update this one, or give another --state-dir"
        )


def _count_boot(database: sqlite3.Connection) -> int:
    with database:
        database.execute(
            "INSERT INTO meta VALUES ('boot', 1) ON CONFLICT (name) DO UPDATE SET value = value + 1"
        )
        boot = int(database.execute("SELECT value FROM meta WHERE name = 'boot'").fetchone()[0])
        database.execute("DELETE FROM leases WHERE boot < ?", (boot - _KEPT_BOOTS,))
    return boot


def _pool_record(namespace: str, pool_id: str, spec: str) -> PoolRecord:
    try:
        return PoolRecord(namespace, pool_id, PoolSpec.model_validate_json(spec))
    except ValidationError as error:
        wrong = error.errors(include_input=False)[0]
        where = ".".join(map(str, wrong["loc"]))
        raise InvalidSpec(
            f"pool {pool_id} of namespace {namespace} was defined by another version of sandpool "
            f"({where}: {wrong['msg']}); give another --state-dir, or use that version"
        ) from None


# --- keys -----------------------------------------------------------------------------------------
# Written by `sandpool key` while a server runs, which looks for changes by itself.


def read_keys(database: sqlite3.Connection) -> list[KeySettings]:
    """Return the keys of a state directory."""
    rows = database.execute("SELECT name, sha256, namespace FROM keys ORDER BY name")
    return [KeySettings(name=name, sha256=sha, namespace=space) for name, sha, space in rows]


def add_key(database: sqlite3.Connection, key: KeySettings) -> None:
    """Remember a key; `InvalidSpec` if there is one of this name."""
    try:
        with database:
            row = (key.name, key.sha256, key.namespace)
            database.execute("INSERT INTO keys VALUES (?, ?, ?)", row)
    except sqlite3.IntegrityError:
        raise InvalidSpec(f"there is a key {key.name!r} already; revoke it first") from None


def remove_keys(database: sqlite3.Connection, names: Iterable[str]) -> None:
    """Forget keys; `InvalidSpec` for a name that there is none of."""
    with database:
        for name in names:
            if database.execute("DELETE FROM keys WHERE name = ?", (name,)).rowcount == 0:
                raise InvalidSpec(f"there is no key {name!r}")
