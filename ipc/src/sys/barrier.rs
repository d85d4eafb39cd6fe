//! Memory barriers in the threads of other processes, by the kernel.

use rustix::thread::{MembarrierCommand, membarrier, membarrier_query};

use crate::error::{Error, Result};

/// Whether [`barrier_for_registered`] will work in this process.
pub fn has_barriers() -> bool {
    let there = membarrier_query();
    there.contains_command(MembarrierCommand::GlobalExpedited) && there.contains_command(MembarrierCommand::RegisterGlobalExpedited)
}

/// Asks the kernel to put a memory barrier into the threads of this process whenever somebody calls [`barrier_for_registered`].
/// It holds until the process executes another program; a forked child has it too. The first time costs half a microsecond
/// in a process of one thread, and about ten milliseconds in one of several.
pub fn register_for_barriers() -> Result<()> {
    membarrier(MembarrierCommand::RegisterGlobalExpedited).map_err(|errno| Error::system("could not register for memory barriers", errno))
}

/// A full memory barrier in every running thread of every registered process, and in the calling one: while this runs, each of
/// them comes to a point in its program up to which all others see its stores, and from which on it sees theirs.
pub fn barrier_for_registered() -> Result<()> {
    membarrier(MembarrierCommand::GlobalExpedited)
        .map_err(|errno| Error::system("could not put a memory barrier into all readers (membarrier)", errno))
}

/// Whether the calling thread is surely the only one of its process.
pub fn is_single_threaded() -> bool {
    // The directory has a link from each thread's, and two of its own.
    rustix::fs::stat("/proc/self/task").is_ok_and(|tasks| tasks.st_nlink == 3)
}
