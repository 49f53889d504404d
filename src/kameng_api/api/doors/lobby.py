"""What the doors of one process share: whom they know, and which numbers are being placed at this moment."""

from dataclasses import dataclass, field

from kameng_api.api.doors.accounts import Accounts


@dataclass(slots=True)
class InHand:
    """Numbers that this process is placing at this moment: (book, number) → how many requests."""

    _numbers: dict[tuple[int, str], int] = field(default_factory=dict)

    def take(self, key: tuple[int, str]) -> None:
        self._numbers[key] = self._numbers.get(key, 0) + 1

    def put_down(self, key: tuple[int, str]) -> None:
        left = self._numbers[key] - 1
        if left:
            self._numbers[key] = left
        else:
            del self._numbers[key]

    def count(self, key: tuple[int, str]) -> int:
        return self._numbers.get(key, 0)


@dataclass(slots=True)
class Lobby:
    """What the doors of one process share."""

    accounts: Accounts
    in_hand: InHand = field(default_factory=InHand)
