//! Every public method once for what it promises and once for what it refuses, over a manager in a process of its own, the
//! same with the socket as the only road of calls, and one in a thread: one list of behaviours for all.

mod commits;
mod dicts;
mod lists;
#[path = "../peers_support/mod.rs"]
mod peers_support;
mod sessions;
mod snapshots;
mod values;
mod writers;

use commonhold::{Any, Counter, Dict, Error, ErrorKind, Handle, Key, List, Manager, Namespace, Session, Shared, Token, Value};
use commonhold_ipc::{socket::Channel, sys};
use peers_support::{process_manager, socket_manager, thread_manager};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::fmt::Debug;
use std::time::{Duration, Instant};

commonhold::init_in_tests!();

/// Runs each behaviour over each kind of manager, and audits after it.
macro_rules! behaviours {
    ($($module:ident: $($name:ident)*;)*) => {
        mod process {
            $($(#[test] fn $name() { super::audited(super::$module::$name, &super::process_manager()); })*)*
        }
        mod by_socket {
            $($(#[test] fn $name() { super::audited(super::$module::$name, &super::socket_manager()); })*)*
        }
        mod in_process {
            $($(#[test] fn $name() { super::audited(super::$module::$name, &super::thread_manager()); })*)*
        }
    };
}

behaviours! {
    dicts: dict_reads dict_writes dict_reads_and_writes_at_once dict_keeps_the_order_of_insertion dict_refusals;
    lists: list_reads list_writes list_orders list_slices list_refusals;
    values: value_methods counter_methods namespace_methods keys_of_all_kinds values_of_all_kinds sizes limits printing;
    commits: batch_methods batch_refusals transaction_dicts transaction_lists transaction_values transaction_refusals;
    writers: writer_methods writer_keeps_the_order writer_refusals writer_and_the_rest more_writers_than_lanes;
    snapshots: snapshots_stay snapshot_slices versions_and_changes waiting_without_end;
    sessions: session_names session_open_or_create session_objects session_figures session_pid tokens handles_in_values
        handles_given_away everything_fails_once_the_manager_is_gone;
}

fn audited(behaviour: fn(&Manager), manager: &Manager) {
    behaviour(manager);
    if manager.is_alive() {
        manager.audit().unwrap();
    }
}

/// The call fails with this kind, and its message has these words.
#[track_caller]
fn refused<T: Debug>(result: commonhold::Result<T>, kind: ErrorKind, words: &[&str]) {
    let error = match result {
        Ok(value) => panic!("not refused: {value:?}"),
        Err(error) => error,
    };
    assert_eq!(error.kind(), kind, "{error}");
    for word in words {
        assert!(error.to_string().contains(word), "{error:?} does not say {word:?}");
    }
}

fn none<K, V>() -> [(K, V); 0] {
    []
}

#[derive(Shared, Key, Debug, PartialEq, Eq, Clone, Hash)]
enum Place {
    Nowhere,
    Point(i32, i32),
    Named { name: String, part: Option<u8> },
}

#[derive(Shared, Key, Debug, PartialEq, Eq, Clone, Hash)]
struct Compound {
    place: Place,
    path: Vec<String>,
    id: [u16; 3],
}

#[derive(Shared, Debug, PartialEq, Clone)]
struct Rich {
    number: f64,
    place: Option<Place>,
    map: HashMap<String, Vec<i64>>,
    tree: BTreeMap<u8, (i32, String)>,
    boxed: Box<[u8; 5]>,
    any: Any,
    nested: Vec<Option<Rich>>,
}

#[test]
fn settings_that_cannot_be() {
    refused(Manager::builder().capacity(1 << 20).start(), ErrorKind::OutOfRange, &["capacity", "8388608"]);
    refused(Manager::builder().sessions_max(0).in_process().start(), ErrorKind::OutOfRange, &["at least one"]);
    refused(Manager::builder().authkey("short").start(), ErrorKind::OutOfRange, &["8"]);
    refused(Manager::connect("@no-such-manager-is-there"), ErrorKind::NotFound, &["no-such-manager-is-there"]);
    refused(Manager::connect("a/b"), ErrorKind::OutOfRange, &["name"]);
    refused(Manager::connect(""), ErrorKind::OutOfRange, &["name"]);
    refused(Manager::builder().executable("/no/such/program").start(), ErrorKind::System, &["/no/such/program"]);
    refused(Manager::builder().executable("/bin/true").start(), ErrorKind::System, &["init"]);
}
