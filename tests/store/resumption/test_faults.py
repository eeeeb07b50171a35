"""What happens to states when processes are killed, disks are full, Redis restarts or
clocks are wrong.
"""

import asyncio
import stat
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from redis import Redis

from tests.redis_server import RedisServer, redis_server
from tests.unused_port import unused_port
from voicechat.errors import ConfigError
from voicechat.store.redis_connection import connect, run_script
from voicechat.store.resumption.interface import LeaseLostError, StoreUnavailableError
from voicechat.store.resumption.redis import PREFIX, RedisResumptionStore
from voicechat.store.resumption.sqlite import SqliteResumptionStore

__all__ = ["redis_server"]

LIFETIME_S = 600.0
DEADLINE_S = 60.0
_WRITER = """
import asyncio, sys
from pathlib import Path
from voicechat.store.resumption.sqlite import SqliteResumptionStore

async def save_for_ever():
    store = SqliteResumptionStore(Path(sys.argv[1]), 600.0)
    lease, _ = await store.acquire("c", "child")
    count = 0
    while True:
        await store.save(lease, str(count).encode() * 1000)
        print(count, flush=True)
        count += 1

asyncio.run(save_for_ever())
"""


@pytest.fixture
async def sqlite(tmp_path: Path) -> AsyncIterator[SqliteResumptionStore]:
    store = SqliteResumptionStore(tmp_path / "data" / "states.sqlite3", LIFETIME_S)
    await store.start()
    yield store
    await store.aclose()


@pytest.mark.real_time
async def test_a_full_disk_is_told_and_what_was_kept_is_still_kept(
    sqlite: SqliteResumptionStore,
) -> None:
    lease, _ = await sqlite.acquire("c", "one")
    await sqlite.save(lease, b"before")
    database = sqlite._database()
    (pages,) = database.execute("PRAGMA page_count").fetchone()
    database.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(StoreUnavailableError, match="full"):
        await sqlite.save(lease, bytes(500_000))
    database.execute(f"PRAGMA max_page_count = {pages + 1000}")
    assert (await sqlite.acquire("c", "two"))[1] == b"before"
    with pytest.raises(LeaseLostError):
        await sqlite.save(lease, bytes(500_000))


@pytest.mark.real_time
async def test_only_its_owner_can_read_the_file(
    sqlite: SqliteResumptionStore, tmp_path: Path
) -> None:
    lease, _ = await sqlite.acquire("c", "one")
    await sqlite.save(lease, b"state")
    files = list((tmp_path / "data").iterdir())
    assert {path.name for path in files} >= {"states.sqlite3", "states.sqlite3-wal"}
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}


@pytest.mark.real_time
async def test_a_state_of_before_a_reboot_is_dropped(tmp_path: Path) -> None:
    path = tmp_path / "states.sqlite3"
    before = SqliteResumptionStore(path, LIFETIME_S, lambda: 1_000_000.0)
    lease, _ = await before.acquire("c", "one")
    await before.save(lease, b"state")
    await before.aclose()
    after = SqliteResumptionStore(path, LIFETIME_S, lambda: 5.0)
    assert (await after.acquire("c", "two"))[1] is None
    await after.aclose()


@pytest.mark.real_time
async def test_a_file_that_is_no_database_stops_the_start(tmp_path: Path) -> None:
    path = tmp_path / "states.sqlite3"
    path.write_bytes(b"no database at all" * 1000)
    store = SqliteResumptionStore(path, LIFETIME_S)
    with pytest.raises(ConfigError, match=r"states\.sqlite3"):
        await store.start()
    await store.aclose()


@pytest.mark.long
@pytest.mark.real_time
async def test_a_killed_process_loses_nothing_that_was_saved(
    sqlite: SqliteResumptionStore, tmp_path: Path
) -> None:
    path = tmp_path / "data" / "states.sqlite3"
    for _ in range(3):
        with subprocess.Popen(  # noqa: ASYNC220 - the loop has nothing else to do
            [sys.executable, "-c", _WRITER, str(path)], stdout=subprocess.PIPE, text=True
        ) as child:
            assert child.stdout is not None
            for _ in range(50):
                child.stdout.readline()
            child.kill()
            saved = [int(line) for line in child.stdout.read().split()]
        last = saved[-1] if saved else 49
        _, state = await sqlite.acquire("c", "parent")
        # The last one may have been saved although it was not told any more.
        assert state in (str(last).encode() * 1000, str(last + 1).encode() * 1000)


@pytest.mark.long
@pytest.mark.real_time
async def test_two_processes_at_once_never_both_keep_the_conversation(tmp_path: Path) -> None:
    path = tmp_path / "states.sqlite3"
    stores = [SqliteResumptionStore(path, LIFETIME_S) for _ in range(2)]
    for turn in range(50):
        got = await asyncio.gather(*(store.acquire("c", f"{turn}") for store in stores))
        leases = [lease for lease, _ in got]
        results = await asyncio.gather(
            *(
                store.save(lease, f"{lease.fence}".encode())
                for store, lease in zip(stores, leases, strict=True)
            ),
            return_exceptions=True,
        )
        winner = max(leases, key=lambda lease: lease.fence)
        outcomes = dict(zip([lease.fence for lease in leases], results, strict=True))
        assert outcomes.pop(winner.fence) is None
        assert [type(outcome) for outcome in outcomes.values()] == [LeaseLostError]
        assert (await stores[0].acquire("c", "check"))[1] == f"{winner.fence}".encode()
    for store in stores:
        await store.aclose()


@pytest.mark.long
@pytest.mark.real_time
async def test_redis_that_restarts_empty_keeps_the_next_state(redis_server: RedisServer) -> None:
    store = RedisResumptionStore(redis_server.url, LIFETIME_S, deadline_s=DEADLINE_S)
    older, _ = await store.acquire("restart", "zero")
    lease, _ = await store.acquire("restart", "one")
    await store.save(lease, b"state")
    redis_server.stop()
    with pytest.raises(StoreUnavailableError):
        await store.save(lease, b"while it is away")
    redis_server.start()
    assert (await store.renew([lease])).missing == {lease}
    with pytest.raises(LeaseLostError):
        await store.save(older, b"of an owner that had lost it")
    await store.save(lease, b"again")
    newer, state = await store.acquire("restart", "two")
    assert state == b"again"
    assert newer.fence > lease.fence
    await store.aclose()


@pytest.mark.long
@pytest.mark.real_time
async def test_the_clocks_of_the_machines_do_not_matter(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Redis.from_url(redis_server.url) as client:
        client.flushall()
        store = RedisResumptionStore(redis_server.url, LIFETIME_S, deadline_s=DEADLINE_S)
        wall = time.time
        fences: list[int] = []
        for ahead_s in (0, 300, -300, 0):
            monkeypatch.setattr(time, "time", lambda s=ahead_s: wall() + s)
            lease, state = await store.acquire("clock", f"{ahead_s}")
            assert state == (b"state" if fences else None)
            await store.save(lease, b"state")
            assert LIFETIME_S - 60 < client.pttl(f"{PREFIX}clock") / 1000 <= LIFETIME_S
            fences.append(lease.fence)
        assert fences == sorted(set(fences))
        await store.aclose()


@pytest.mark.long
@pytest.mark.real_time
async def test_a_cancelled_request_to_redis_ends(redis_server: RedisServer) -> None:
    client = connect(redis_server.url, DEADLINE_S, "cluster.redis")
    answers = asyncio.Queue[int]()

    async def ask_often() -> None:
        for _ in range(500):
            answers.put_nowait(await run_script(client, "return 1", [], []))

    for wanted in range(200):
        async with asyncio.TaskGroup() as tasks:
            asking = tasks.create_task(ask_often())
            for _ in range(wanted % 3):
                await answers.get()
            asking.cancel()
        assert asking.cancelled()
    await client.aclose()


@pytest.mark.real_time
async def test_redis_that_is_away_does_not_stop_the_start() -> None:
    url = f"redis://127.0.0.1:{unused_port()}/0"
    store = RedisResumptionStore(url, LIFETIME_S, deadline_s=DEADLINE_S)
    await store.start()
    with pytest.raises(StoreUnavailableError):
        await store.acquire("c", "one")
    await store.aclose()
