"""Work for other processes: a pool that ends with its parent, and one of the same shape that works right here."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from contextlib import contextmanager

import torch

BATCH_ATTENTION = 2**26  # numbers in the attention maps that are kept of a batch, at most: a quarter of a gigabyte
WAITING = 4  # jobs that may wait in memory for each process


class Here(Executor):
    """An executor without processes or threads: what is submitted is done before `submit` returns."""

    def submit(self, function: Callable, /, *args, **kwargs) -> Future:
        future = Future()
        try:
            future.set_result(function(*args, **kwargs))
        except Exception as error:  # whatever it is, it belongs to the one who asks for the result
            future.set_exception(error)
        return future


@contextmanager
def workers_pool(workers: int) -> Iterator[Executor]:
    """Where jobs are done: in this process (1), or in so many others, of one thread each, while PyTorch here takes half its threads.

    On leaving, what has not begun is cancelled and what has is waited for. More than one worker need a script guarded by
    `if __name__ == "__main__"`.
    """
    if workers == 1:
        yield Here()
        return
    threads = torch.get_num_threads()
    torch.set_num_threads(max(1, threads // 2))  # the other half of the cores is the workers'
    # Spawned, not forked: a fork would copy torch's locks without the threads that hold them.
    pool = ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn"), initializer=_begin)
    for _ in range(workers):
        pool.submit(os.getpid)  # they take seconds to start: now, not when the first job is there
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(threads)


def _begin() -> None:
    """One process a core, deaf to Ctrl-C, which is the parent's to answer, and gone when the parent is."""
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """A pool's process would wait for work for ever if its parent was killed."""
    multiprocessing.parent_process().join()
    os._exit(1)
