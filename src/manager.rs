//! [`Manager`]: a session with a manager, and the ways to get one.

use crate::builder::ManagerBuilder;
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

    /// Starts a manager that belongs to this program, in a process of its own. It ends when the last handle and clone of it
    /// here is dropped, and with this process, however that ends.
    ///
    /// # Errors
    /// `NotInitialised` if `main` has not called [`init`](crate::init) first; `System` if no process can be started.
    ///
    /// ```
    /// # fn main() -> commonhold::Result<()> {
    /// # commonhold::init();
    /// let manager = commonhold::Manager::start()?;
    /// let squares = manager.list([0, 1, 4])?;
    /// assert_eq!(squares.len()?, 3);
    /// # Ok(())
    /// # }
    /// ```
    pub fn start() -> Result<Manager> {
        Manager::builder().start()
    }

    /// Connects to the manager with a name; if there is none, starts one, which outlives this program and ends by
    /// [`shutdown`](Self::shutdown). Race-free among any number of programs.
    ///
    /// # Errors
    /// As [`start`](Self::start) and [`connect`](Self::connect).
    pub fn open_or_start(name: &str) -> Result<Manager> {
        Manager::builder().open_or_start(name)
    }

    /// Connects to the manager with a name, or at the [address](Session::address) of one.
    ///
    /// # Errors
    /// `NotFound` if there is none; `Refused` if it does not let this program in.
    pub fn connect(name_or_address: &str) -> Result<Manager> {
        Manager::builder().connect(name_or_address)
    }

    /// A manager of this process, as a thread: for tests, and for programs that have just one process but may get more.
    ///
    /// ```
    /// let manager = commonhold::Manager::in_process()?;
    /// let totals = manager.dict([("ada".to_string(), 1u64)])?;
    /// assert_eq!(totals.add("ada", 2)?, 3);
    /// # Ok::<(), commonhold::Error>(())
    /// ```
    pub fn in_process() -> Result<Manager> {
        Manager::builder().in_process().start()
    }

    /// Says how a manager is to be.
    pub fn builder() -> ManagerBuilder {
        ManagerBuilder::new()
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
