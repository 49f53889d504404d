"""Why an order is not accepted, or a step not taken. In every case nothing has changed.

Problem
├── OrderNoConflict       merchant_order_no_conflict   the number stands for another order
├── NumberClosed          state_conflict               a door has answered that no order stands under it; so none ever will, by no way
├── ProductUnavailable    product_unavailable          not sold here, or paused
├── ProductNotAuthorised  product_not_authorised       sold, but not to you
├── PriceChanged          price_changed                dearer than max_unit_price
├── OutOfStock            out_of_stock
├── TargetNotSupported    target_not_supported         not a number or account this product can charge
├── DuplicateTarget       duplicate_target             charged a moment ago; confirm_duplicate overrides
├── TestValueInLive       test_value_in_live           a magic target under a live key
├── MerchantSuspended     merchant_suspended
└── NotEnoughMoney        insufficient_balance
"""

from kameng_api.kit.errors import Problem, StateConflict


class OrderNoConflict(Problem):
    """The same number with other content; carries `existing_order_id`."""

    code = "merchant_order_no_conflict"


class NumberClosed(StateConflict):
    """A no was said about this number through a door, see `closing`."""


class ProductUnavailable(Problem):
    code = "product_unavailable"


class ProductNotAuthorised(Problem):
    code = "product_not_authorised"


class PriceChanged(Problem):
    code = "price_changed"


class OutOfStock(Problem):
    code = "out_of_stock"


class TargetNotSupported(Problem):
    code = "target_not_supported"


class DuplicateTarget(Problem):
    code = "duplicate_target"


class TestValueInLive(Problem):
    code = "test_value_in_live"


class NotEnoughMoney(Problem):
    code = "insufficient_balance"
