//! The guide's translation table has every public name of Python's module: of whatever Python is here.

use std::collections::BTreeSet;
use std::process::Command;

const TABLES: &str = include_str!("../src/guide/from_python.md");

/// Prints the public names of the modules that users import, and of the classes that they meet, one to a line.
const NAMES: &str = "
import inspect, multiprocessing
from multiprocessing import connection, managers, pool, process, queues, shared_memory, sharedctypes, synchronize

classes = [
    process.BaseProcess, queues.Queue, queues.JoinableQueue, queues.SimpleQueue, connection.Connection, connection.Listener,
    synchronize.Lock, synchronize.RLock, synchronize.Semaphore, synchronize.BoundedSemaphore, synchronize.Condition,
    synchronize.Event, synchronize.Barrier, managers.BaseManager, managers.SyncManager, managers.SharedMemoryManager,
    managers.BaseProxy, managers.ListProxy, managers.DictProxy, managers.NamespaceProxy, managers.ValueProxy, managers.ArrayProxy,
    shared_memory.SharedMemory, shared_memory.ShareableList, sharedctypes.Synchronized, sharedctypes.SynchronizedArray,
    sharedctypes.SynchronizedString, pool.Pool, pool.ThreadPool, pool.AsyncResult, pool.IMapIterator,
]
for of in [multiprocessing, connection, managers, shared_memory, sharedctypes] + classes:
    for name in getattr(of, '__all__', dir(of)):
        if not name.startswith('_') and not inspect.ismodule(getattr(of, name)):
            print(of.__name__, name)
for parameter in inspect.signature(managers.BaseManager.register).parameters:
    print('register', parameter)
";

/// The words of the tables' first columns: what is said of Python.
fn translated(tables: &str) -> BTreeSet<String> {
    let cells = tables.lines().filter_map(|line| line.strip_prefix("| ")?.split(" | ").next());
    let words = cells.flat_map(|cell| cell.split(|c: char| !c.is_alphanumeric() && c != '_'));
    words.filter(|word| !word.is_empty()).map(str::to_owned).collect()
}

/// What of `Class name` lines the tables do not have.
fn missing<'n>(names: &'n str, tables: &str) -> Vec<&'n str> {
    // Its first argument, and levels of a logger.
    let untold = ["cls", "SUBDEBUG", "SUBWARNING"];
    let known = translated(tables);
    let unknown = |line: &&str| line.split(' ').nth(1).is_some_and(|name| !known.contains(name) && !untold.contains(&name));
    names.lines().filter(unknown).collect()
}

#[test]
fn every_public_name_is_in_the_table() {
    let Ok(python) = Command::new("python3").args(["-c", NAMES]).output() else { return println!("skipped: no python3 here") };
    let complaint = String::from_utf8_lossy(&python.stderr);
    if complaint.contains("ModuleNotFoundError") {
        return println!("skipped: this python3 has no multiprocessing: {complaint}");
    }
    assert!(python.status.success(), "{complaint}");
    let names = String::from_utf8(python.stdout).unwrap();
    assert!(names.lines().count() > 200, "{names}");
    assert_eq!(missing(&names, TABLES), [""; 0]);
}

#[test]
fn names_of_newer_versions_are_there() {
    assert_eq!(missing("Lock locked\nRLock locked\nProcess interrupt\nSyncManager set\nmultiprocessing reducer", TABLES), [""; 0]);
}

#[test]
fn canary() {
    let table = "| Python | ours |\n|---|---|\n| `Lock`: `acquire()` | `lock()`, `locked` |\n";
    assert_eq!(missing("Lock acquire\nLock locked\nregister cls", table), ["Lock locked"]);
}
