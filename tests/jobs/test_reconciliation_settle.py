"""What the books refuse of a round is left to a person, and only that; what the database does not answer is tried again."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

import asyncpg
import pytest
from sqlalchemy.engine import make_url
from tests.rooms.test_reconciliation import Desk, desk

from kameng_api.embedded.servers import Servers
from kameng_api.jobs import reconciliation as jobs
from kameng_api.kit.errors import Unavailable

__all__ = ["desk"]

_TRAP = """
CREATE FUNCTION trap_of_test() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
  IF NEW.state = 'closed' AND NEW.attempt_id = '{attempt_id}' THEN RAISE EXCEPTION 'trouble' USING ERRCODE = '{code}'; END IF;
  RETURN NEW; END $$;
CREATE TRIGGER trap_of_test BEFORE UPDATE ON recon_breaks FOR EACH ROW EXECUTE FUNCTION trap_of_test()
"""


@asynccontextmanager
async def refused(migrated: Servers, bought: Any, code: str) -> AsyncIterator[None]:
    """Closing the break of this purchase raises the database's `code`."""
    owner = await asyncpg.connect(make_url(migrated.owner_url).set(drivername="postgresql").render_as_string(hide_password=False))
    try:
        await owner.execute(_TRAP.format(attempt_id=bought.submission.attempt_key[1], code=code))
        try:
            yield
        finally:
            await owner.execute("DROP TRIGGER trap_of_test ON recon_breaks; DROP FUNCTION trap_of_test()")
    finally:
        await owner.close()


async def two_unknown(desk: Desk) -> tuple[Any, Any]:
    """Both were charged for, by the supplier's statement."""
    first, second = await desk.buy("R6"), await desk.buy("R6")
    for bought in (first, second):
        await desk.tell_lines(bought, ("charge", -900_000))
    assert [(b.class_, b.evidence["automatic"]) for b in await desk.breaks()] == [("R6", True)] * 2
    return first, second


async def settle(desk: Desk) -> int:
    return await jobs.settle(cast(jobs.Desk, desk))


async def by_attempt(desk: Desk) -> dict[Any, tuple[str, bool]]:
    return {b.attempt_id: (b.state, b.evidence["automatic"]) for b in await desk.breaks()}


@pytest.mark.parametrize("code", ["P0001", "23514", "22003"])  # raised by a trigger, a check that is violated, a number out of range
async def test_what_the_books_refuse_goes_to_a_person_and_holds_up_nothing(desk: Desk, migrated: Servers, code: str) -> None:
    poisoned, sound = await two_unknown(desk)
    async with refused(migrated, poisoned, code):
        assert await settle(desk) == 1
        assert await by_attempt(desk) == {poisoned.submission.attempt_key[1]: ("open", False), sound.submission.attempt_key[1]: ("closed", True)}
    assert await settle(desk) == 0, "a person's now"
    await desk.holds()


async def test_what_the_database_does_not_answer_is_tried_again(desk: Desk, migrated: Servers) -> None:
    """A deadlock, a lock that is not given, a line that is cut: nothing is known about the break, and no person is asked."""
    poisoned, _ = await two_unknown(desk)
    async with refused(migrated, poisoned, "40P01"):
        with pytest.raises(Unavailable):
            await settle(desk)
        assert set((await by_attempt(desk)).values()) == {("open", True)}
    assert await settle(desk) == 2
    await desk.holds()


async def test_a_database_that_goes_away_among_single_ones_is_no_verdict_on_them(desk: Desk, migrated: Servers) -> None:
    poisoned, _ = await two_unknown(desk)
    async with refused(migrated, poisoned, "40P01"):
        with pytest.raises(Unavailable):
            await jobs._settle_one_by_one(cast(jobs.Desk, desk))
        assert (await by_attempt(desk))[poisoned.submission.attempt_key[1]] == ("open", True)
    await settle(desk)
    assert {state for state, _ in (await by_attempt(desk)).values()} == {"closed"}
    await desk.holds()
