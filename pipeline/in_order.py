"""Work on threads, a bounded number of tasks ahead of the consumer, in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

T = TypeVar("T")


def in_order(
    tasks: Iterable[Callable[[], T]], threads: int, ahead: int, name: str
) -> Generator[T, None, None]:
    """Run tasks on threads and yield their results in the order of the tasks.

    Args:
        tasks: Taken lazily, in the caller's thread.
        threads: How many.
        ahead: Tasks that may be under way or waiting for the consumer, at most.
        name: Of the threads.
    """
    source = iter(tasks)
    pending: deque[Future[T]] = deque()
    pool = ThreadPoolExecutor(threads, thread_name_prefix=name)
    try:
        while True:
            for task in islice(source, ahead - len(pending)):
                pending.append(pool.submit(task))
            if not pending:
                return
            yield pending.popleft().result()
    finally:
        # The consumer may have stopped early: nothing that has not begun is worth beginning.
        pool.shutdown(wait=True, cancel_futures=True)
