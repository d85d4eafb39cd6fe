//! All children of this process together: [`active_children`], [`join_children`], [`ChildrenGuard`].

#[cfg(doc)]
use super::Process;
use super::children::ChildProcess;
use commonhold_ipc::error::Result;
use commonhold_ipc::fork::PerLife;

/// Children of this process that were not seen to have ended.
static CHILDREN: PerLife<Vec<ChildProcess>> = PerLife::new();

/// One more.
pub(super) fn add(child: &ChildProcess) {
    forget_ended();
    CHILDREN.lock().push(child.clone());
}

/// Forgets children that have ended, and tells failures that nobody will ask for.
fn forget_ended() {
    // Looked at without the lock.
    let children = CHILDREN.lock().clone();
    let ended: Vec<_> = children.into_iter().filter(ChildProcess::has_ended).collect();
    if !ended.is_empty() {
        CHILDREN.lock().retain(|child| !ended.contains(child));
        ended.iter().for_each(ChildProcess::tell);
    }
}

/// The children of this process that have not ended, in the order in which they were started. Clears the others away,
/// and tells of failures that nobody will join (see [`Process`]).
///
/// ```
/// # commonhold::init_in_tests!();
/// # fn main() -> commonhold::Result<()> {
/// use commonhold::{Process, active_children, parent_process};
/// let child = Process::spawn(|| parent_process().unwrap().wait(None).map(drop), ())?;
/// assert_eq!(active_children(), [(*child).clone()]);
/// child.kill()?;
/// assert!(child.join().unwrap_err().is_died() && child.exit_code() == Some(-9));
/// assert_eq!(active_children(), []);
/// # Ok(())
/// # }
/// ```
pub fn active_children() -> Vec<ChildProcess> {
    forget_ended();
    CHILDREN.lock().clone()
}

/// Waits for all children of this process that are not daemonic: what Python does at a program's end. Rust runs nothing after `main`,
/// so a `main` that wants it calls this in the end, or has a [`ChildrenGuard`].
///
/// # Errors
/// `System` if this process cannot wait.
pub fn join_children() -> Result<()> {
    loop {
        let Some(child) = active_children().into_iter().find(|child| !child.is_daemon()) else { return Ok(()) };
        child.wait(None)?;
    }
}

/// Calls [`join_children`] when it is dropped: at the end of `main`, also if that ends by `?` or by a panic. Not if it ends by
/// [`exit`](std::process::exit).
///
/// Make it after the manager that the children use: what is declared last is dropped first, so it waits while that manager lives. How
/// they ended it says of those whose handle was dropped and who failed (see [`Process`]): [`join`](Process::join) those whose errors matter.
///
/// It waits as long as they take. If they wait for this process, for the end of a queue perhaps that a `?` has kept it from closing, nobody ever
/// goes on, and the error is not seen: have the queue filled and closed before they start, or make them [daemonic](super::ProcessBuilder::daemon).
///
/// ```
/// # commonhold::init_in_tests!();
/// fn main() -> commonhold::Result<()> {
///     commonhold::init();
///     let _children = commonhold::ChildrenGuard::new();
///     commonhold::Process::spawn(|| println!("I end before my parent does"), ())?;
///     Ok(())
/// }
/// ```
#[derive(Debug, Default)]
#[must_use = "it waits where it is dropped: give it a name that begins with `_`"]
pub struct ChildrenGuard(());

impl ChildrenGuard {
    /// A guard.
    pub fn new() -> Self {
        ChildrenGuard(())
    }
}

impl Drop for ChildrenGuard {
    fn drop(&mut self) {
        // There is nobody to tell.
        let _ = join_children();
    }
}
