//! [`Manager`]: a session with a manager. The ways to get one are in `builder`.

use commonhold_ipc::error::{Error, ErrorKind, Result};
use commonhold_ipc::runtime::RuntimeDir;
use commonhold_proxy::Session;
use std::fmt;
use std::ops::Deref;
use std::time::Duration;

/// A manager: the process that owns shared containers, as seen from here.
///
/// Everything that one does with it stands in [`Session`], to which it derefs. `Clone + Send + Sync`.
#[derive(Clone)]
pub struct Manager {
    session: Session,
}

/// How long an orderly end may take.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(30);

impl Manager {
    pub(crate) fn of(session: Session) -> Self {
        Manager { session }
    }

    /// Ends the manager, whoever is connected to it, and waits until it has ended. Everything it holds is gone; guards and
    /// snapshots that are held stay readable, everything else fails with [`is_disconnected`](Error::is_disconnected).
    ///
    /// # Errors
    /// `TimedOut` if it has not ended after half a minute.
    pub fn shutdown(&self) -> Result<()> {
        self.session.shutdown()?;
        if self.session.wait_for_end(SHUTDOWN_TIMEOUT)? {
            return Ok(());
        }
        Err(Error::new(ErrorKind::TimedOut, "the manager was told to end and has not: is its process stopped?"))
    }
}

impl Deref for Manager {
    type Target = Session;

    fn deref(&self) -> &Session {
        &self.session
    }
}

impl fmt::Debug for Manager {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<Manager at {}>", self.session.address())
    }
}

/// In a method of an object that lives beside a manager: that manager. To make new objects, and return handles on them.
///
/// ```
/// # commonhold::init_in_tests!();
/// use commonhold::{List, Manager, current_manager};
///
/// struct Office;
/// #[commonhold::remote]
/// impl Office {
///     pub fn new() -> Self { Office }
///     pub fn list(&self, first: u64) -> commonhold::Result<List<u64>> { current_manager()?.list([first]) }
/// }
/// # fn main() -> commonhold::Result<()> {
/// let manager = Manager::start()?;
/// let list = manager.create(Office::new, ())?.list(7)??;
/// assert_eq!(list.to_string(), "[7]");
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// `NotFound` anywhere else.
pub fn current_manager() -> Result<Manager> {
    commonhold_proxy::remote::own_session().map(Manager::of)
}

/// The named managers of this user: their names, and whether each is alive (or only its leftovers are there, which the next
/// [`Manager::open_or_start`] clears away).
///
/// # Errors
/// If the directory of named managers cannot be read.
pub fn list_managers() -> Result<Vec<(String, bool)>> {
    RuntimeDir::open()?.list()
}
