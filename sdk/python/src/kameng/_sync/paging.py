"""Lists that come in pages, walked as one."""

from collections.abc import Iterator, Callable
from typing import Generic, TypeVar

from kameng.calls import Page

T = TypeVar("T")


class Pager(Generic[T]):
    """Iterate it for every item, fetched page by page while you go; `pages()` for the pages, `page()` for one of them."""

    def __init__(self, fetch: Callable[[str | None], Page[T]], cursor: str | None = None) -> None:
        self._fetch = fetch
        self._cursor = cursor

    def page(self) -> Page[T]:
        """The first page alone."""
        return self._fetch(self._cursor)

    def pages(self) -> Iterator[Page[T]]:
        cursor = self._cursor
        while True:
            page = self._fetch(cursor)
            yield page
            cursor = page.next_cursor
            if cursor is None:
                return

    def __iter__(self) -> Iterator[T]:
        for page in self.pages():
            for item in page.items:
                yield item
