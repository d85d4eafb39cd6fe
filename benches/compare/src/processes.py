"""Python's processes: starts and joins them by the method that is the first argument, as the Rust side asks for it.

The protocol is that of manager.py. The function is a built-in one, so that the spawned interpreter need not find this script.
"""

import json
import multiprocessing
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

    # A fork server is started once.
    one()
    answer(ready=True)
    for line in sys.stdin:
        asked = json.loads(line)
        try:
            if "end" in asked:
                break
            clock = time.perf_counter_ns
            times = []
            for _ in range(asked["groups"]):
                start = clock()
                for _ in range(asked["operations"]):
                    one()
                times.append(clock() - start)
            answer(ns=times)
        except Exception as error:
            answer(error=f"{type(error).__name__}: {error}")
    answer(ended=True)


if __name__ == "__main__":
    main()
