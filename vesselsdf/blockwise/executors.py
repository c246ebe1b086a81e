"""Who does the tasks of a phase: this process, several, the workers of a Dask cluster, or one part of a job array.

An executor is a context; in it a function of the folder and the tasks of a phase that returns when all are done. What a
task needs it reads, and what it finds it writes (`blockwise.tasks`): three small arguments are all that is handed on.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path

from vesselsdf.blockwise.plan import Task, mark
from vesselsdf.blockwise.tasks import run_task
from vesselsdf.errors import InputError, RunError
from vesselsdf.progress import track

Execute = Callable[[Path, Sequence[Task]], None]
Executor = AbstractContextManager[Execute]

AGAIN = "give the same command again; what is finished is kept"


def chosen(workers: int = 1, numbered: str | None = None, address: str | None = None) -> Executor:
    """The executor that the options of the command line ask for: `numbered`: "3/8", `address`: of Dask, or "local"."""
    if numbered is not None and (address is not None or workers != 1):
        raise InputError("--part is for jobs of one process: leave --workers and --dask out.")
    if numbered is not None:
        number, _, of = numbered.partition("/")
        if not (number.isdecimal() and of.isdecimal()):
            raise InputError(f"--part is {numbered}: give it as 3/8.")
        return part(int(number), int(of))
    if address is not None:
        return dask(None if address == "local" else address, workers)
    return processes(workers) if workers != 1 else serial()


@contextmanager
def serial() -> Iterator[Execute]:
    """One after the other."""
    yield _in_turn


@contextmanager
def part(number: int, of: int) -> Iterator[Execute]:
    """A share of the tasks, then whatever others have not done: so no part waits for one that has died."""
    if not 1 <= number <= of:
        raise InputError(f"--part is {number}/{of}: give a part from 1/{of} to {of}/{of}.")

    def execute(folder: Path, tasks: Sequence[Task]) -> None:
        # By their places, so that all parts agree on whose a task is, whatever is done already.
        shares = [[task for task in tasks if sum(task[1]) % of == k] for k in range(of)]
        # The others' last ones first, each part beginning with another's: two seldom do the same.
        others = [task for step in range(1, of) for task in shares[(number - 1 + step) % of][::-1]]
        _in_turn(folder, [*shares[number - 1], *others])

    yield execute


@contextmanager
def processes(workers: int) -> Iterator[Execute]:
    """On so many processes of this machine, which share its cores."""
    import multiprocessing
    from concurrent.futures import ProcessPoolExecutor, as_completed
    from concurrent.futures.process import BrokenProcessPool

    if workers < 1:
        raise InputError(f"--workers is {workers}: give a number from 1.")
    threads = max(1, (os.cpu_count() or 1) // workers)
    pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), _use_threads, (threads,))

    def execute(folder: Path, tasks: Sequence[Task]) -> None:
        futures = [pool.submit(run_task, folder, *task) for task in tasks]
        for future in track(as_completed(futures), tasks[0][0], len(tasks), unit="block"):
            future.result()

    try:
        yield execute
    except BrokenProcessPool as error:
        raise RunError(f"A worker was killed, perhaps for want of memory: {AGAIN}, with fewer --workers.") from error
    finally:
        pool.shutdown(cancel_futures=True)


@contextmanager
def dask(address: str | None, workers: int) -> Iterator[Execute]:
    """On the workers of a Dask cluster, one task each; `address`: of its scheduler, or None for a cluster made here."""
    try:
        from distributed import Client, LocalCluster, as_completed
        from distributed.client import FutureCancelledError
        from distributed.scheduler import KilledWorker
    except ImportError as error:
        raise InputError("Dask is not installed: pip install 'vesselsdf[cluster]'.") from error
    import logging

    for name in list(logging.root.manager.loggerDict):
        if name.partition(".")[0] == "distributed":
            logging.getLogger(name).setLevel(logging.CRITICAL)  # what goes wrong is said once, by an error
    try:
        with ExitStack() as stack:
            where = address or stack.enter_context(
                LocalCluster(n_workers=workers, threads_per_worker=1, dashboard_address=None)
            )
            client = stack.enter_context(Client(where, set_as_default=False))

            def execute(folder: Path, tasks: Sequence[Task]) -> None:
                place = str(folder.resolve())
                futures = [client.submit(run_task, place, *task, key=f"{place}-{task}", pure=False) for task in tasks]
                done = as_completed(futures, loop=client.loop)
                for future in track(done, tasks[0][0], len(tasks), unit="block"):
                    future.result()

            yield execute
    except (OSError, FutureCancelledError, KilledWorker) as error:
        raise RunError(f"The Dask cluster was lost ({type(error).__name__}): {AGAIN}.") from error


def undone(folder: Path, tasks: Sequence[Task]) -> list[Task]:
    """The tasks that have not left their mark."""
    return [task for task in tasks if not mark(folder, *task).is_file()]


def _in_turn(folder: Path, tasks: Sequence[Task]) -> None:
    for task in track(tasks, tasks[0][0], unit="block"):
        run_task(folder, *task)


def _use_threads(number: int) -> None:
    import torch

    torch.set_num_threads(number)
