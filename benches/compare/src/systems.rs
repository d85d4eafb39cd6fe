//! How each measured system comes into being.
use crate::Result;
use crate::rows::SystemName;
use crate::system::System;

/// A system that is ready, or the reason why it is not here.
pub enum Presence {
    /// Ready.
    Here(Box<dyn System>),
    /// Not on this machine, or not in this build.
    Missing(String),
}

const NO_PYTHON: &str = "python3 is not installed (not in PATH)";

/// Starts a system. An error: it is here, but does not work.
pub fn start(name: SystemName) -> Result<Presence> {
    let here = |system: Option<Box<dyn System>>, reason: &str| match system {
        Some(system) => Presence::Here(system),
        None => Presence::Missing(reason.to_owned()),
    };
    Ok(match name {
        SystemName::Commonhold => commonhold()?,
        SystemName::Hashmap => Presence::Here(Box::new(crate::hashmap::Hashmap::new())),
        SystemName::Crossbeam => Presence::Here(Box::new(crate::crossbeam::Crossbeam)),
        SystemName::IpcChannel => Presence::Here(Box::new(crate::ipc_channel::IpcChannel)),
        SystemName::Iceoryx2 => here(boxed(crate::iceoryx2::Iceoryx2::start()?), crate::iceoryx2::NOT_BUILT),
        SystemName::UnixStream => Presence::Here(Box::new(crate::unix_stream::UnixStreams)),
        SystemName::Lmdb => Presence::Here(Box::new(crate::lmdb::Lmdb::new()?)),
        SystemName::Redis => here(boxed(crate::redis::Redis::start()?), "redis-server is not installed (not in PATH)"),
        SystemName::Python => here(boxed(crate::python::Python::start()?), NO_PYTHON),
        SystemName::PythonMp => here(boxed(crate::python::Python::start_locks()?), NO_PYTHON),
        SystemName::RawSync => Presence::Here(Box::new(crate::rawlocks::RawLocks::new("raw_sync")?)),
        SystemName::Pthread => Presence::Here(Box::new(crate::rawlocks::RawLocks::new("pthread")?)),
        SystemName::Rayon => Presence::Here(Box::new(crate::pools::Rayon)),
        SystemName::Procspawn => Presence::Here(Box::new(crate::processes::Procspawn)),
        SystemName::PythonSpawn => here(boxed(crate::python::Python::start_processes("spawn")?), NO_PYTHON),
        SystemName::PythonFork => here(boxed(crate::python::Python::start_processes("fork")?), NO_PYTHON),
        SystemName::PythonForkserver => here(boxed(crate::python::Python::start_processes("forkserver")?), NO_PYTHON),
    })
}

fn boxed<S: System + 'static>(system: Option<S>) -> Option<Box<dyn System>> {
    system.map(|system| Box::new(system) as Box<dyn System>)
}

fn commonhold() -> Result<Presence> {
    Ok(Presence::Here(Box::new(crate::commonhold::Commonhold::start()?)))
}
