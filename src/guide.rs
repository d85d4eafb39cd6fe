//! The guide: one chapter after the other, or the one that you need. All programs in it are compiled and run as tests.
//!
//! | to begin | |
//! |---|---|
//! | [`getting_started`] | five minutes |
//! | [`own_manager`] | the first use: a program shares data among its threads and processes |
//! | [`children`] | the second: it gives handles to processes that it has started |
//! | [`unrelated_programs`] | the third: programs that meet by a name |
//!
//! | the parts | |
//! |---|---|
//! | [`containers`] | dicts, lists, values, counters, namespaces; guards and snapshots |
//! | [`raw_memory`] | arrays and bytes that processes write themselves; blocks with a name |
//! | [`transactions`] | several writes as one |
//! | [`queues`] | work and messages, leases; pipes; waiting for several things; awaiting |
//! | [`locks`] | and the death of their owners |
//! | [`processes`] | functions in processes; started again when they die |
//! | [`pools`] | processes that stay, and call functions for whoever asks |
//! | [`own_objects`] | your own types, called from any process |
//!
//! | to look up | |
//! |---|---|
//! | [`deaths`] | what happens when who dies |
//! | [`security`] | who is let in; the maximum of everything |
//! | [`performance`] | what costs what |
//! | [`testing`] | programs that use commonhold |
//! | [`troubleshooting`] | by error message |
//! | [`from_python`] | a translation table from Python's `multiprocessing` |
//!
//! # How methods wait
//!
//! The name says how long, and what it gives says whether it was in vain:
//!
//! | form | waits | in vain |
//! |---|---|---|
//! | `recv()`, `lock()`, `join()`, `get()`: the plain verb | as long as it takes; a death that concerns it ends it with an error | – |
//! | `try_recv()`, `try_lock()`, … | not at all | `None`; of `try_send(item)` it is `Err(item)`, inside of the `Ok` |
//! | `lock_timeout(t)`, `get_timeout(t)`, `join_timeout(t)`, … | `t` at the most | `None`, or `false` where there is nothing to give |
//! | `recv_timeout(t)`, `lease_timeout(t)`, `send_timeout(item, t)` of queues and pipes; a barrier's `wait_timeout(t)`; calls [with a time-out](crate::remote) | `t` at the most | the error `TimedOut` |
//! | `wait(t)`, `poll(t)`, `wait_for_change(…, t)`: they look and take nothing; `None` for `t` is as long as it takes | `t` at the most | `false`; of [`wait`](crate::wait()) for several things an empty list |
//! | `recv_async()`, … | awaited | your runtime's time-out |
//!
//! A time-out is a value, unless that value means something else already (`recv_timeout` gives `None` when the queue is closed and drained) or
//! nobody may overlook it (the item was not sent, the barrier is broken for all, the call was given up): then it is an error, whose
//! [`is_timed_out`](crate::Error::is_timed_out) is true. `Event` and `Condition` have the pair `wait()` and `wait_timeout(t)`, as the standard library's have.
//!
//! ```
//! use commonhold::Manager;
//! use std::time::Duration;
//!
//! fn main() -> commonhold::Result<()> {
//!     commonhold::init();
//!     let (manager, soon) = (Manager::start()?, Duration::from_millis(1));
//!     let (queue, event) = (manager.queue::<u8>(1)?, manager.event()?);
//!     assert_eq!(queue.try_recv()?, None);
//!     assert!(queue.recv_timeout(soon).is_err_and(|error| error.is_timed_out()));
//!     assert!(!event.wait_timeout(soon)?);
//!     assert!(commonhold::wait(&[&queue, &event], soon)?.is_empty());
//!     queue.close()?;
//!     assert_eq!(queue.recv_timeout(soon)?, None);
//!     Ok(())
//! }
//! ```

macro_rules! chapters {
    ($($name:ident)*) => {$(
        pub mod $name {
            #![doc = include_str!(concat!("guide/", stringify!($name), ".md"))]
        }
    )*};
}

chapters! {
    getting_started own_manager children unrelated_programs
    containers raw_memory transactions queues locks processes pools own_objects
    deaths security performance testing troubleshooting from_python
}
