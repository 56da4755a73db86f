"""Ordered execution of tasks on threads, with a limited number of tasks ahead of the consumer."""

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
        threads: Number of threads.
        ahead: Largest number of tasks that run or wait for the consumer.
        name: Name prefix of the threads.
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
        # The consumer may have stopped early: cancel tasks that have not started.
        pool.shutdown(wait=True, cancel_futures=True)
