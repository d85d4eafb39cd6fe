"""Python's processes, started and joined by the method that is the first argument, and its Pool of them, as the Rust side asks for it.

The protocol is that of manager.py. The function is a built-in one, so that the spawned interpreter need not find this script.
"""

import json
import multiprocessing
import os
import sys
import time


def answer(**fields):
    print(json.dumps(fields), flush=True)


def main():
    context = multiprocessing.get_context(sys.argv[1])

    def one():
        process = context.Process(target=abs, args=(-41,))
        process.start()
        process.join()
        if process.exitcode != 0:
            raise RuntimeError(f"exit code {process.exitcode}")

    workers = len(os.sched_getaffinity(0))
    rows = {
        "pool_task": lambda pool: pool.apply(abs, (-41,)),
        "pool_task_1m": lambda pool: pool.apply(bytes, (1 << 20,)),
        "pool_map_10k": lambda pool: pool.map(abs, range(10_000)),
        "pool_map_10k_chunk1": lambda pool: pool.map(abs, range(10_000), chunksize=1),
    }

    def start_pool():
        pool = context.Pool(workers)
        pool.apply(abs, (-41,))
        return pool

    def time_starts(groups, operations):
        times = []
        for _ in range(groups):
            spent = 0
            for _ in range(operations):
                start = time.perf_counter_ns()
                pool = start_pool()
                spent += time.perf_counter_ns() - start
                pool.terminate()
                pool.join()
            times.append(spent)
        return times

    # A fork server is started once.
    one()
    answer(ready=True)
    for line in sys.stdin:
        asked = json.loads(line)
        try:
            if "end" in asked:
                break
            if asked["row"] == "pool_start":
                answer(ns=time_starts(asked["groups"], asked["operations"]))
                continue
            clock = time.perf_counter_ns
            pool = start_pool() if asked["row"] in rows else None
            operation = (lambda: rows[asked["row"]](pool)) if pool else one
            times = []
            for _ in range(asked["groups"]):
                start = clock()
                for _ in range(asked["operations"]):
                    operation()
                times.append(clock() - start)
            if pool:
                pool.terminate()
                pool.join()
            answer(ns=times)
        except Exception as error:
            answer(error=f"{type(error).__name__}: {error}")
    answer(ended=True)


if __name__ == "__main__":
    main()
