"""The pool of processes: one shape for here and elsewhere, and nobody left behind."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from kit.jobs import workers_pool

ROOT = Path(__file__).parents[1]

SLEEPER = """
import os, time
from kit.jobs import workers_pool

if __name__ == "__main__":
    with workers_pool(2) as pool:
        print(pool.submit(os.getpid).result(), flush=True)
        time.sleep(300)
"""


def test_one_worker_is_this_process_and_works_at_once():
    with workers_pool(1) as pool:
        done = pool.submit(os.getpid)
        assert done.done() and done.result() == os.getpid()


def test_an_error_waits_for_whoever_asks_for_the_result():
    with workers_pool(1) as pool:
        wrong = pool.submit(int, "seven")
        with pytest.raises(ValueError, match="seven"):
            wrong.result()


def test_several_workers_are_others_of_one_thread_and_threads_come_back():
    threads = torch.get_num_threads()
    with workers_pool(2) as pool:
        assert torch.get_num_threads() == max(1, threads // 2)
        ids, counts = pool.submit(os.getpid), pool.submit(torch.get_num_threads)
        assert ids.result() != os.getpid() and counts.result() == 1
    assert torch.get_num_threads() == threads


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="needs /proc to look for processes")
def test_the_workers_of_a_killed_process_end(tmp_path):
    (tmp_path / "sleeper.py").write_text(SLEEPER)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        [sys.executable, tmp_path / "sleeper.py"], env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as parent:
        try:
            worker = int(parent.stdout.readline())
            assert worker != parent.pid and alive(worker)
        finally:
            parent.kill()
    deadline = time.monotonic() + 20
    while alive(worker):
        assert time.monotonic() < deadline, "the worker outlives its parent"
        time.sleep(0.05)


def alive(process):
    try:
        return Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False
