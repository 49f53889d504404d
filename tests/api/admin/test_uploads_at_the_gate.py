"""How much is read of somebody who has not shown a token."""

from tests.api.admin.conftest import Hire

PATH = "/reconciliation/files?source=mail&day=2026-11-20"


async def test_only_an_operator_is_read_for_more_than_a_megabyte(hire: Hire) -> None:
    fang = await hire("finance", "fang")
    large = b"x" * 2_000_000
    assert (await fang.post(PATH, content=large)).status_code == 404  # read, and no such source
    refused = await fang.post(PATH, content=large, headers={"authorization": "Bearer op_nobody"})
    assert (refused.status_code, refused.json()["code"]) == (413, "body_too_large")
    small = await fang.post(PATH, content=b"x", headers={"authorization": "Bearer op_nobody"})
    assert small.status_code == 401
