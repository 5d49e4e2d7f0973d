"""The journal: what outlives a server, and what must not."""

from __future__ import annotations

import stat
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import anyio
import pytest

from sandpool.errors import BackendUnavailable, InvalidSpec
from sandpool.models import PoolSpec
from sandpool.server import journal as journals
from sandpool.server.journal import Journal, PoolRecord
from sandpool.server.settings import KeySettings

pytestmark = pytest.mark.anyio

KEY = KeySettings(name="one", sha256="a" * 64, namespace="team")
ADD = f"journal.add_key(database, KeySettings(**{KEY.model_dump()}))"


def opened(directory: Path) -> Journal:
    journal = Journal(directory)
    journal.open()
    return journal


async def test_a_definition_outlives_the_server(tmp_path: Path) -> None:
    record = PoolRecord("team", "pool-1", PoolSpec(name="rl", warm=2, env={"A": "secret"}))
    with closing(opened(tmp_path)) as journal:
        await journal.put_pool(record)
    with closing(opened(tmp_path)) as journal:
        assert journal.pools() == [record]
        await journal.remove_pool("other", "rl")
        assert journal.pools() == [record]
        await journal.remove_pool("team", "rl")
    with closing(opened(tmp_path)) as journal:
        assert journal.pools() == []


async def test_a_later_definition_takes_the_place_of_an_earlier_one(tmp_path: Path) -> None:
    with closing(opened(tmp_path)) as journal:
        for warm in (1, 3):
            await journal.put_pool(PoolRecord("team", "pool-1", PoolSpec(name="rl", warm=warm)))
        assert [record.spec.warm for record in journal.pools()] == [3]


async def test_epochs_grow_with_every_start(tmp_path: Path) -> None:
    first_epochs: list[int] = []
    for _ in range(3):
        with closing(opened(tmp_path)) as journal:
            first_epochs.append(journal.first_epoch)
    assert first_epochs == sorted(set(first_epochs))
    assert first_epochs[1] - first_epochs[0] > 10**9


async def test_what_was_held_when_a_server_died_is_known_to_the_next(tmp_path: Path) -> None:
    with closing(opened(tmp_path)) as journal:
        journal.note_lease("team", "box-1", "lease-1")
        journal.note_lease("team", "box-2", "lease-2")
        journal.note_end("team", "box-2", "lease-2")
        assert journal.lost() == []
    with closing(opened(tmp_path)) as journal:
        assert journal.lost() == [("team", "box-1")]


async def test_a_lease_that_is_over_before_it_was_written_is_not_written_at_all(
    tmp_path: Path,
) -> None:
    with closing(opened(tmp_path)) as journal, closing(journals.connect(tmp_path)) as other:

        def version() -> int:
            return int(other.execute("PRAGMA data_version").fetchone()[0])

        begun = version()
        journal.note_lease("team", "box", "short")
        journal.note_end("team", "box", "short")
        journal.close()
        assert version() == begun
        journal.open()
        begun = version()
        journal.note_lease("team", "box", "long")
        journal.close()
        assert version() != begun


async def test_what_a_cancelled_journal_has_not_written_is_written_by_its_end(
    tmp_path: Path,
) -> None:
    with closing(opened(tmp_path)) as journal:
        async with anyio.create_task_group() as group:
            group.start_soon(journal.run)
            await anyio.wait_all_tasks_blocked()
            journal.note_lease("team", "box", "lease")
            group.cancel_scope.cancel()
    with closing(opened(tmp_path)) as journal:
        assert journal.lost() == [("team", "box")]


async def test_the_end_of_an_earlier_lease_does_not_hide_a_later_one(tmp_path: Path) -> None:
    with closing(opened(tmp_path)) as journal:
        journal.note_lease("team", "box", "lease-1")
        journal.note_lease("team", "box", "lease-2")
        journal.note_end("team", "box", "lease-1")
    with closing(opened(tmp_path)) as journal:
        assert journal.lost() == [("team", "box")]


async def test_the_lost_are_forgotten_after_some_starts(tmp_path: Path) -> None:
    with closing(opened(tmp_path)) as journal:
        journal.note_lease("team", "box", "lease")
    lost: list[int] = []
    for _ in range(4):
        with closing(opened(tmp_path)) as journal:
            lost.append(len(journal.lost()))
    assert lost == [1, 1, 0, 0]


async def test_notes_are_written_while_the_server_runs(tmp_path: Path) -> None:
    with closing(opened(tmp_path)) as journal, closing(journals.connect(tmp_path)) as reader:
        async with anyio.create_task_group() as group:
            group.start_soon(journal.run)
            journal.note_lease("team", "box", "lease")
            with anyio.fail_after(60):
                while not reader.execute("SELECT count(*) FROM leases").fetchone()[0]:
                    await anyio.lowlevel.checkpoint()
            group.cancel_scope.cancel()


async def test_a_directory_belongs_to_one_server(tmp_path: Path) -> None:
    with closing(opened(tmp_path)), pytest.raises(BackendUnavailable, match="another server"):
        Journal(tmp_path).open()
    with closing(opened(tmp_path)):
        pass


async def test_only_its_owner_can_read_it(tmp_path: Path) -> None:
    directory = tmp_path / "state"
    with closing(opened(directory)):
        assert stat.S_IMODE(directory.stat().st_mode) == 0o700
        for path in directory.iterdir():
            assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0


async def test_a_newer_version_is_left_alone(tmp_path: Path) -> None:
    with closing(opened(tmp_path)):
        pass
    with closing(journals.connect(tmp_path)) as database:
        database.execute("PRAGMA user_version = 99")
    with pytest.raises(BackendUnavailable, match="newer"):
        Journal(tmp_path).open()


async def test_a_definition_of_another_version_is_named_and_kept(tmp_path: Path) -> None:
    with closing(opened(tmp_path)) as journal:
        await journal.put_pool(PoolRecord("team", "pool-1", PoolSpec(name="rl")))
    with closing(journals.connect(tmp_path)) as database, database:
        database.execute('UPDATE pools SET spec = \'{"name": "rl", "later": 1}\'')
    with closing(opened(tmp_path)) as journal, pytest.raises(InvalidSpec, match="later"):
        journal.pools()


async def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BackendUnavailable, match="file"):
        Journal(tmp_path / "file").open()


async def test_a_closed_journal_writes_nothing(tmp_path: Path) -> None:
    journal = opened(tmp_path)
    journal.close()
    journal.close()
    with pytest.raises(BackendUnavailable, match="stopping"):
        await journal.put_pool(PoolRecord("team", "pool-1", PoolSpec(name="rl")))


async def test_a_running_server_sees_keys_come_and_go(tmp_path: Path) -> None:
    with closing(opened(tmp_path)) as journal, closing(journals.connect(tmp_path)) as database:
        assert journal.changed_keys() == []
        assert journal.changed_keys() is None
        journals.add_key(database, KEY)
        assert journal.changed_keys() == [KEY]
        assert journal.changed_keys() is None
        journals.remove_keys(database, ["one"])
        assert journal.changed_keys() == []


def elsewhere(directory: Path, change: str) -> None:
    """Change keys as `sandpool key` does: in a process that opens the file and closes it."""
    code = (
        "import pathlib, sys\n"
        "from contextlib import closing\n"
        "from sandpool.server import journal\n"
        "from sandpool.server.settings import KeySettings\n"
        "with closing(journal.connect(pathlib.Path(sys.argv[1]))) as database:\n"
        f"    {change}\n"
    )
    subprocess.run([sys.executable, "-c", code, str(directory)], check=True)


async def test_another_process_that_closes_the_file_leaves_it_to_the_server(tmp_path: Path) -> None:
    with closing(opened(tmp_path)) as journal:
        assert journal.changed_keys() == []
        elsewhere(tmp_path, ADD)
        assert journal.changed_keys() == [KEY]
        elsewhere(tmp_path, "journal.remove_keys(database, ['one'])")
        assert journal.changed_keys() == []
        record = PoolRecord("team", "pool-1", PoolSpec(name="rl"))
        await journal.put_pool(record)
        elsewhere(tmp_path, ADD)
        assert journal.changed_keys() == [KEY]
    with closing(opened(tmp_path)) as journal:
        assert journal.pools() == [record]
        assert journal.changed_keys() == [KEY]


async def test_a_key_has_one_name_and_is_revoked_by_it(tmp_path: Path) -> None:
    with closing(opened(tmp_path)), closing(journals.connect(tmp_path)) as database:
        journals.add_key(database, KEY)
        with pytest.raises(InvalidSpec, match="already"):
            journals.add_key(database, KEY.model_copy(update={"sha256": "b" * 64}))
        with pytest.raises(InvalidSpec, match="no key 'two'"):
            journals.remove_keys(database, ["one", "two"])
        assert journals.read_keys(database) == [KEY]
