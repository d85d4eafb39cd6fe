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
//! | [`waiting`] | how methods wait, and what they say when it was in vain |
//! | [`deaths`] | what happens when who dies |
//! | [`security`] | who is let in; the maximum of everything |
//! | [`performance`] | what costs what |
//! | [`testing`] | programs that use commonhold |
//! | [`troubleshooting`] | by error message |
//! | [`from_python`] | a translation table from Python's `multiprocessing` |

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
    waiting deaths security performance testing troubleshooting from_python
}
