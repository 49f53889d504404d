"""Lists that come in pages, walked as one."""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Generic, TypeVar

from kameng.calls import Page

T = TypeVar("T")


class AsyncPager(Generic[T]):
    """Iterate it for every item, fetched page by page while you go; `pages()` for the pages, `page()` for one of them."""

    def __init__(self, fetch: Callable[[str | None], Awaitable[Page[T]]], cursor: str | None = None) -> None:
        self._fetch = fetch
        self._cursor = cursor

    async def page(self) -> Page[T]:
        """The first page alone."""
        return await self._fetch(self._cursor)

    async def pages(self) -> AsyncIterator[Page[T]]:
        cursor = self._cursor
        while True:
            page = await self._fetch(cursor)
            yield page
            cursor = page.next_cursor
            if cursor is None:
                return

    async def __aiter__(self) -> AsyncIterator[T]:
        async for page in self.pages():
            for item in page.items:
                yield item
