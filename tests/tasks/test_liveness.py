"""Who is alive: a lock that is held, and free when its holder has died, in each kind of
database.
"""

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest

from voicechat.store.tasks.liveness import (
    FileLiveness,
    Liveness,
    LivenessUnknownError,
    PostgresLiveness,
)

pytestmark = pytest.mark.real_time

_HOLD_AND_SAY_SO = """
import sys
from pathlib import Path
from voicechat.store.tasks.liveness import FileLiveness, PostgresLiveness
where = sys.argv[1]
life = PostgresLiveness(where, "child") if where.startswith("postgresql") else FileLiveness(Path(where), "child")
life.hold()
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture(params=["files", "postgresql"])
def where(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(
        request.getfixturevalue("postgres_url")
        if request.param == "postgresql"
        else tmp_path / "locks"
    )


@pytest.fixture
def liveness(where: str) -> Iterator[Callable[[str], Liveness]]:
    """Makes executors' locks, and releases them when the test is over."""
    made: list[Liveness] = []

    def make(executor_id: str) -> Liveness:
        postgres = where.startswith("postgresql")
        made.append(
            PostgresLiveness(where, executor_id)
            if postgres
            else FileLiveness(Path(where), executor_id)
        )
        return made[-1]

    yield make
    for each in made:
        each.release()


def wait_until_dead(heir: Liveness, executor_id: str) -> None:
    """A database frees a lock when it notices that its holder is gone: soon, not at
    once.
    """
    give_up_at = time.monotonic() + 30
    while time.monotonic() < give_up_at:
        with heir.inherit(executor_id) as is_dead:
            if is_dead:
                return
        time.sleep(0.01)
    pytest.fail(f"{executor_id} is not found dead")


def test_the_living_are_not_inherited_and_the_dead_are(
    liveness: Callable[[str], Liveness], where: str
) -> None:
    heir = liveness("heir")
    heir.hold()
    child = subprocess.Popen(
        [sys.executable, "-c", _HOLD_AND_SAY_SO, where],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"held\n"
        heir.hold()
        with heir.inherit("child") as is_dead:
            assert not is_dead
        child.kill()
        child.wait()
    wait_until_dead(heir, "child")
    with heir.inherit("child") as is_dead:
        assert is_dead


def test_two_do_not_inherit_at_once(liveness: Callable[[str], Liveness]) -> None:
    heirs = [liveness("one"), liveness("two")]
    for heir in heirs:
        heir.hold()
    with heirs[0].inherit("gone") as first, heirs[1].inherit("gone") as second:
        assert (first, second) == (True, False)
    with heirs[1].inherit("gone") as again:
        assert again
    heirs[0].release()
    with heirs[1].inherit("one") as is_dead:
        assert is_dead


@pytest.mark.parametrize("where", ["postgresql"], indirect=True)
def test_a_lost_connection_is_a_lost_lock_which_is_taken_again(
    liveness: Callable[[str], Liveness], postgres_url: str
) -> None:
    one, two = liveness("a"), liveness("b")
    one.hold()
    two.hold()
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        ended = connection.execute(
            "SELECT count(pg_terminate_backend(pid, 5000)) FROM pg_stat_activity WHERE pid <> "
            "pg_backend_pid() "
            "AND query LIKE 'SELECT pg_advisory_lock%'"
        ).fetchone()
    assert ended == (2,)
    with pytest.raises(LivenessUnknownError), two.inherit("a"):
        raise AssertionError("must not be entered")
    two.hold()
    with two.inherit("a") as is_dead:
        assert is_dead
    one.hold()
    with two.inherit("a") as is_dead:
        assert not is_dead


def test_files_of_the_dead_do_not_pile_up(tmp_path: Path) -> None:
    for number in range(3):
        (tmp_path / f"dead{number}.lock").touch()
    living = FileLiveness(tmp_path, "living")
    living.hold()
    other = FileLiveness(tmp_path, "other")
    other.hold()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["living.lock", "other.lock"]
    other.release()
    living.release()
    assert list(tmp_path.iterdir()) == []
