"""A no about an order number, said so that it stays true: what was not there when it was said can never be bought later.

Some who ask at a door act on "no such order" or on a refusal at once and for good: they refund their own buyer. A purchase under that number
may still be on its way to us, in a socket, a queue or another process. So the no is decided where purchases are decided: under the lock of the
book's spendable account, which `actions.place` takes before it looks whether a number exists. Either the purchase is first and is seen here, or
the no is first and is seen there: by every purchase, through whatever door, API, batch or till it comes.
"""

from kameng_api.kit.db import Tx, execute
from kameng_api.ledger import actions as ledger
from kameng_api.ledger import rules as books
from kameng_api.orders import queries
from kameng_api.orders.rules import Order


async def find_settled(tx: Tx, book_id: int, currency: str, number: str) -> Order | None:
    """The order under this number, after every purchase of the book that had begun to be decided is decided."""
    locked = await ledger.lock(tx, [(book_id, books.AVAILABLE, currency)])
    assert locked, "a book without its account: nothing would keep purchases apart from this look"
    _, known = await queries.find_by_numbers(tx, [(book_id, number)])
    return known.get((book_id, number))


async def close_number(tx: Tx, book_id: int, currency: str, number: str, door: str) -> Order | None:
    """The order under this number; or None, and then there will never be one. Again: the same answer."""
    order = await find_settled(tx, book_id, currency, number)
    if order is None:
        await execute(
            tx, "INSERT INTO closed_numbers (book_id, merchant_order_no, door) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING", book_id, number, door
        )
    return order
