"""The Python side of the comparison: runs rows against multiprocessing.Manager() as the Rust side asks for them.

Reads one JSON object per line from standard input, {"row": ..., "groups": ..., "operations": ..., "think_ns": ...} or {"prepare": ...} or {"end": ...}, and
prints one JSON object per line: {"ns": [nanoseconds per group, ...]}, {"ready": true}, {"ended": true} or {"error": ...}. Sizes arrive as the
first argument.
"""

import contextlib
import ctypes  # noqa: F401  (so that forked managers find it imported)
import functools
import itertools
import json
import multiprocessing
import multiprocessing.managers
import multiprocessing.pool
import os
import random
import sys
import threading
import time

SIZES = json.loads(sys.argv[1])
# The manager shall not outlive us, should we be killed: PR_SET_PDEATHSIG is 1, SIGKILL is 9.
DIE_WITH_PARENT = "import ctypes; ctypes.CDLL(None).prctl(1, 9)"


# Nanoseconds of work between two groups of operations, not under the clock.
THINK_NS = 0


def start_manager():
    """What multiprocessing.Manager() does, with an initializer."""
    # A registered type whose method takes bytes and returns them.
    multiprocessing.managers.SyncManager.register("Echo", bytes)
    manager = multiprocessing.managers.SyncManager(ctx=multiprocessing.get_context())
    manager.start(exec, (DIE_WITH_PARENT,))
    return manager


def key(index):
    return (index * 0x9E3779B97F4A7C15) & 0xFFFFFFFFFFFFFFFF


@functools.cache
def value(size):
    return bytes(at % 251 + 1 for at in range(size))


def distinct(size, index):
    """A value that no other index has: pickle sends an object that occurs twice in one message only once."""
    return value(size)[:-8] + (index + 1).to_bytes(8, "big")


def touch(found):
    return found[0] + found[-1]


def endless(items):
    """A function that returns random items, drawn beforehand so that drawing is not on the clock."""
    drawn = random.Random(1).choices(items, k=10_000)
    return itertools.cycle(drawn).__next__


def timed(groups, operations, operation):
    clock = time.perf_counter_ns
    result = []
    for _ in range(groups):
        turns = range(operations)
        start = clock()
        for _ in turns:
            operation()
        end = clock()
        result.append(end - start)
        while clock() - end < THINK_NS:
            pass
    return result


class Rows:
    def __init__(self):
        self.manager = None if SIZES["without_manager"] else start_manager()
        # Whose locks are measured.
        self.sync = self.manager or multiprocessing
        self.data = {}

    def prepare(self, name):
        entries, size = SIZES[name]
        if name == "list_64":
            self.data[name] = self.manager.list([distinct(size, index) for index in range(entries)])
            return
        indices = list(range(entries))
        random.Random(2).shuffle(indices)
        made = self.manager.dict()
        for at in range(0, entries, 1000):
            made.update({key(index): distinct(size, index) for index in indices[at : at + 1000]})
        self.data[name] = made

    def run(self, row, groups, operations):
        return getattr(self, row)(groups, operations)

    def keys(self, name):
        return [key(index) for index in range(SIZES[name][0])]

    def get(self, name, groups, operations):
        made = self.data[name]
        next_key = endless(self.keys(name))
        return timed(groups, operations, lambda: touch(made[next_key()]))

    def set(self, name, groups, operations):
        made = self.data[name]
        next_key = endless(self.keys(name))
        one = value(SIZES[name][1])
        # made[k] = v, in the form that is an expression; it is the same single call.
        return timed(groups, operations, lambda: made.__setitem__(next_key(), one))

    def dict_get_64(self, groups, operations):
        return self.get("dict_64", groups, operations)

    def dict_get_1k(self, groups, operations):
        return self.get("dict_1k", groups, operations)

    def dict_get_1m(self, groups, operations):
        return self.get("dict_1m", groups, operations)

    def dict_set_64(self, groups, operations):
        return self.set("dict_64", groups, operations)

    def dict_set_64_socket(self, groups, operations):
        return self.set("dict_64", groups, operations)

    def dict_set_64_by_2(self, _groups, _operations):
        return self.set_together(2)

    def dict_set_64_by_8(self, _groups, _operations):
        return self.set_together(8)

    def set_together(self, clients):
        """Nanoseconds of a set when so many processes set at once. Forked, as Partner is."""
        context = multiprocessing.get_context("fork")
        start, rates = context.Barrier(clients), context.SimpleQueue()
        made = self.data["dict_64"]
        keys = self.keys("dict_64")
        one = value(SIZES["dict_64"][1])

        def work(number):
            chosen = random.Random(number)
            drawn = itertools.cycle(chosen.choices(keys, k=10_000)).__next__
            made[drawn()] = one
            start.wait()
            began, done = time.perf_counter_ns(), 0
            end = began + SIZES["together_s"] * 1e9
            while time.perf_counter_ns() < end:
                made[drawn()] = one
                done += 1
            rates.put(done / (time.perf_counter_ns() - began))

        processes = [context.Process(target=work, args=(number,), daemon=True) for number in range(clients)]
        for process in processes:
            process.start()
        together = sum(rates.get() for _ in processes)
        for process in processes:
            process.join()
        return [1 / together]

    def session_bytes(self, _groups, _operations):
        """Growth of the manager's resident memory with each thread that calls, which has a connection of its own."""
        made, one = self.manager.dict(), value(8)
        made[0] = one
        before = resident_bytes(self.manager)
        called, measured = threading.Barrier(SIZES["each"] + 1), threading.Barrier(SIZES["each"] + 1)

        def call():
            made[0] = one
            called.wait()
            measured.wait()

        threads = [threading.Thread(target=call, daemon=True) for _ in range(SIZES["each"])]
        for thread in threads:
            thread.start()
        called.wait()
        grown = resident_bytes(self.manager) - before
        measured.wait()
        for thread in threads:
            thread.join()
        return [max(grown, 0) / SIZES["each"]]

    def lane_bytes(self, groups, operations):
        return self.session_bytes(groups, operations)

    def dict_set_1m(self, groups, operations):
        return self.set("dict_1m", groups, operations)

    def dict_set_batch_10k(self, groups, operations):
        made = self.data["dict_64"]
        entries, size = SIZES["dict_64"]
        chosen = random.Random(3).sample(range(entries), SIZES["batch"])
        batch = {key(index): distinct(size, index) for index in chosen}
        return timed(groups, operations, lambda: made.update(batch))

    def dict_iterate_100k(self, groups, operations):
        made = self.data["dict_64"]

        def iterate():
            for _, found in made.items():
                touch(found)

        return timed(groups, operations, iterate)

    def list_push_64(self, groups, operations):
        made = self.manager.list()
        one = value(SIZES["list_64"][1])
        return timed(groups, operations, lambda: made.append(one))

    def list_get(self, groups, operations):
        made = self.data["list_64"]
        next_index = endless(range(SIZES["list_64"][0]))
        return timed(groups, operations, lambda: touch(made[next_index()]))

    def method_call_64(self, groups, operations):
        echo = self.manager.Echo()
        one = value(SIZES["list_64"][1])
        return timed(groups, operations, lambda: touch(echo.join((one,))))

    def method_call_100(self, groups, operations):
        echoes = [self.manager.Echo() for _ in range(100)]
        one = value(SIZES["list_64"][1])
        with multiprocessing.pool.ThreadPool(len(echoes)) as threads:
            call = lambda echo: touch(echo.join((one,)))  # noqa: E731
            threads.map(call, echoes, 1)
            return timed(groups, operations, lambda: threads.map(call, echoes, 1))

    def snapshot(self, groups, operations):
        made = self.data["dict_64"]
        next_key = endless(self.keys("dict_64"))
        return timed(groups, operations, lambda: touch(made.copy()[next_key()]))

    def bytes_per_entry(self, _groups, _operations):
        """Growth of a fresh manager's resident memory; no figure could be had from inside, as proxies do not tell."""
        entries, size = SIZES["dict_64"]
        manager = start_manager()
        try:
            made = manager.dict()
            made.update({0: value(size)})
            before = resident_bytes(manager)
            for at in range(0, entries, 1000):
                made.update({key(index): distinct(size, index) for index in range(at, at + 1000)})
            return [(resident_bytes(manager) - before) / entries]
        finally:
            manager.shutdown()

    def lock_uncontended(self, groups, operations):
        lock = self.sync.Lock()

        def take():
            with lock:
                pass

        return timed(groups, operations, take)

    def lock_contended(self, groups, operations):
        lock = self.sync.Lock()

        def take():
            with lock:
                pass

        with Partner(take):
            return timed(groups, operations, take)

    def array(self):
        """An array, and the lock under which additions to it are not lost."""
        made = self.sync.Array("q", [0] * SIZES["elements"])
        return made, made.get_lock() if hasattr(made, "get_lock") else self.sync.Lock(), endless(range(SIZES["elements"]))

    def array_get(self, groups, operations):
        made, _, next_index = self.array()
        return timed(groups, operations, lambda: made[next_index()])

    def array_set(self, groups, operations):
        made, _, next_index = self.array()
        return timed(groups, operations, lambda: made.__setitem__(next_index(), 7))

    def array_fetch_add(self, groups, operations):
        made, lock, next_index = self.array()

        def add():
            index = next_index()
            with lock:
                made[index] += 1

        return timed(groups, operations, add)

    def counter(self):
        made = self.sync.Value("q", 0)
        lock = made.get_lock() if hasattr(made, "get_lock") else self.sync.Lock()

        def add():
            with lock:
                made.value += 1

        return add

    def counter_add(self, groups, operations):
        return timed(groups, operations, self.counter())

    def counter_add_contended(self, groups, operations):
        add = self.counter()
        with Partner(add):
            return timed(groups, operations, add)

    def queue(self, size, groups, operations, senders=1, receivers=1):
        items = self.sync.Queue(SIZES["depth"])
        one = value(size)
        with contextlib.ExitStack() as partners:
            for _ in range(receivers):
                partners.enter_context(Partner(lambda: touch(items.get())))
            for _ in range(senders - 1):
                partners.enter_context(Partner(lambda: items.put(one)))
            for _ in range(SIZES["depth"]):
                items.put(one)
            return timed(groups, operations, lambda: items.put(one))

    def there_and_back(self, pause_ns, groups, operations):
        global THINK_NS
        there, back = self.sync.Queue(SIZES["depth"]), self.sync.Queue(SIZES["depth"])
        one = value(64)

        def ask_one():
            there.put(one)
            touch(back.get())

        with Partner(lambda: back.put(there.get())):
            if pause_ns == 0:
                return timed(groups, operations, ask_one)
            THINK_NS = pause_ns
            return timed(groups * operations, 1, ask_one)

    def pipe_round_trip(self, groups, operations):
        ours, theirs = multiprocessing.Pipe()
        one = value(64)

        def ask_one():
            ours.send_bytes(one)
            touch(ours.recv_bytes())

        with Partner(lambda: theirs.send_bytes(theirs.recv_bytes())):
            return timed(groups, operations, ask_one)

    def queue_4_to_1(self, groups, operations):
        return self.queue(64, groups, operations, senders=4)

    def queue_1_to_4(self, groups, operations):
        return self.queue(64, groups, operations, receivers=4)

    def queue_4_to_4(self, groups, operations):
        return self.queue(64, groups, operations, senders=4, receivers=4)

    def queue_round_trip(self, groups, operations):
        return self.there_and_back(0, groups, operations)

    def queue_wake(self, groups, operations):
        return self.there_and_back(200_000, groups, operations)

    def queue_64(self, groups, operations):
        return self.queue(64, groups, operations)

    def queue_4k(self, groups, operations):
        return self.queue(4 << 10, groups, operations)

    def queue_1m(self, groups, operations):
        return self.queue(1 << 20, groups, operations)

    def event_wake(self, groups, operations):
        ping, pong = self.sync.Event(), self.sync.Event()

        def answer_one():
            ping.wait()
            ping.clear()
            pong.set()

        def ask_one():
            ping.set()
            pong.wait()
            pong.clear()

        with Partner(answer_one):
            return timed(groups, operations, ask_one)

    def barrier_wake(self, groups, operations):
        barrier = self.sync.Barrier(2)
        with Partner(barrier.wait):
            return timed(groups, operations, barrier.wait)

    def manager_start(self, groups, operations):
        one = value(SIZES["dict_64"][1])
        result = []
        for _ in range(groups):
            spent = 0
            for _ in range(operations):
                start = time.perf_counter_ns()
                manager = start_manager()
                manager.dict()[key(1)] = one
                spent += time.perf_counter_ns() - start
                manager.shutdown()
            result.append(spent)
        return result


class Partner:
    """A process that does something again and again until it is killed. Forked, since the script has no file to be imported from."""

    def __init__(self, operation):
        def work(ready):
            ready.set()
            while True:
                operation()

        self.ready = multiprocessing.Event()
        self.process = multiprocessing.get_context("fork").Process(target=work, args=(self.ready,), daemon=True)

    def __enter__(self):
        self.process.start()
        self.ready.wait()

    def __exit__(self, *_):
        self.process.kill()
        self.process.join()


def resident_bytes(manager):
    with open(f"/proc/{manager._process.pid}/statm") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def answer(**fields):
    print(json.dumps(fields), flush=True)


def main():
    global THINK_NS
    rows = Rows()
    answer(ready=True)
    for line in sys.stdin:
        asked = json.loads(line)
        try:
            if "end" in asked:
                break
            if "prepare" in asked:
                rows.prepare(asked["prepare"])
                answer(ready=True)
            else:
                THINK_NS = asked["think_ns"]
                answer(ns=rows.run(asked["row"], asked["groups"], asked["operations"]))
        except Exception as error:
            answer(error=f"{type(error).__name__}: {error}")
    if rows.manager:
        rows.manager.shutdown()
    answer(ended=True)


if __name__ == "__main__":
    main()
