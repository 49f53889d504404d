"""How a process should use Python's garbage collector: not at all while it starts, and rarely while it answers."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def keep_what_is_made() -> Iterator[None]:
    """For imports: what is made inside stays as long as the process, so it is not looked at now, later, or when the process ends.

    A third of a million objects come with the API's imports: to look through them while they come, and once more at the end, takes a
    third of the start.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if was_on:
            gc.enable()


def settle_memory() -> None:
    """Call once when a process is ready: what was made until now stays for ever and is not looked at again.

    Requests make few cycles; looking for them after every 700 allocations costs several per cent, after every 20,000 next to nothing.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)
