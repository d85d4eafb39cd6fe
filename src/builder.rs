//! The ways to get a manager: [`Manager`]'s short ones, and [`ManagerBuilder`], which says how it is to be.

use crate::boot::{self, Orders, Outcome};
use crate::manager::Manager;
use crate::started::{StartedProcess, StartedThread};
use commonhold_ipc::auth::AuthKey;
use commonhold_ipc::error::{Error, ErrorKind, Result};
use commonhold_ipc::limits::SESSIONS_MAX;
use commonhold_ipc::runtime::{RuntimeDir, check_name};
use commonhold_ipc::socket::{Address, Channel, Listener};
use commonhold_ipc::task::Build;
use commonhold_manager::server::{CAPACITY_BYTES_MIN, Config, OPTION_CHECK_ALWAYS, Server};
use commonhold_proxy::Session;
use commonhold_proxy::remote::{Registered, Remote};
use std::path::PathBuf;
use std::time::Duration;

/// Says how a manager is to be, then starts it, or connects to it. Made by [`Manager::builder`].
///
/// ```
/// # fn main() -> commonhold::Result<()> {
/// # commonhold::init();
/// use commonhold::Manager;
/// let manager = Manager::builder().capacity(64 << 20).start()?;
/// assert_eq!(manager.stats()?.budget_bytes, 64 << 20);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
#[must_use = "a builder does nothing before `start`, `open_or_start` or `connect`"]
pub struct ManagerBuilder {
    config: Config,
    authkey: Option<Vec<u8>>,
    executable: Option<PathBuf>,
    in_process: bool,
    registered: Vec<Registered>,
    lanes: bool,
}

impl Manager {
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
}

/// Tries of `open_or_start`: more than two happen only while others start and end managers of that name.
const TRIES_MAX: u32 = 64;

impl ManagerBuilder {
    fn new() -> Self {
        let (config, registered) = (Config::default(), Vec::new());
        ManagerBuilder { config, authkey: None, executable: None, in_process: false, lanes: true, registered }
    }

    /// Bytes of memory that the manager's containers may take at the most. By default half of what the machine has, or of
    /// what the memory control group of this process allows. At least 8 MiB. Some 3 MiB of it are kept free, so that what is full
    /// can still be emptied. Arrays, blocks, queues and locks lie beside it, and may take half as much together.
    pub fn capacity(mut self, bytes: u64) -> Self {
        self.config.capacity_bytes = bytes;
        self
    }

    /// A key of 8 to 1024 bytes that everybody must know who connects. Without one, only processes of the same user are let
    /// in; with one, any user's who knows it. The key itself never travels.
    pub fn authkey(mut self, key: impl Into<Vec<u8>>) -> Self {
        self.authkey = Some(key.into());
        self
    }

    /// Sessions at a time, at the most: 4096 unless this says less.
    pub fn sessions_max(mut self, sessions: usize) -> Self {
        self.config.sessions_max = sessions.min(SESSIONS_MAX);
        self
    }

    /// A named manager ends when nobody has been connected for so long, though not before who has started it could connect. By default it
    /// stays until it is [shut down](Session::shutdown), as with [`Duration::MAX`].
    pub fn idle_timeout(mut self, timeout: Duration) -> Self {
        self.config.idle_timeout = Some(timeout);
        self
    }

    /// Clients check every value at every read. By default values of 4 KiB and more are checked once per thread and
    /// remembered; smaller ones always.
    pub fn check_always(mut self, always: bool) -> Self {
        self.config.options = if always { OPTION_CHECK_ALWAYS } else { 0 };
        self
    }

    /// Runs the manager as a thread of this process, instead of a process of its own: for tests, and for programs that have
    /// just one process but may get more. It serves other processes as well. If this process dies, so does it.
    pub fn in_process(mut self) -> Self {
        self.in_process = true;
        self
    }

    /// Whether calls may go through shared memory (*lanes*), which both sides look at for some microseconds before they sleep: the
    /// default, and much faster. Without, all calls go by the socket. Of a manager that is started, this holds for all its clients; of
    /// one that is connected to, for this process.
    ///
    /// ```
    /// let manager = commonhold::Manager::builder().in_process().lanes(false).start()?;
    /// let list = manager.list([1, 2])?;
    /// list.push(3)?;
    /// assert_eq!(manager.stats()?.lane_calls, 0);
    /// # Ok::<(), commonhold::Error>(())
    /// ```
    pub fn lanes(mut self, lanes: bool) -> Self {
        self.lanes = lanes;
        self.config.lanes = lanes;
        self
    }

    /// Whether the manager's memory, and that through which its clients send large values, may come in pages of 2 MiB, as far as the kernel (6.1 and later,
    /// for the latter 6.13) has any, whatever the system's settings for shared memory are, short of `deny`: the default. It is the manager's word that counts, for all its
    /// clients. They come sooner and are read faster. To make one, the kernel waits for all processors:
    /// some microseconds, but where a process of real-time priority leaves no time to others, as long as that goes on. Switch them off there. (Values of
    /// 1 MiB and more that processes and pools pass have such pages all the same; nobody else waits for those.)
    ///
    /// ```
    /// let manager = commonhold::Manager::builder().in_process().large_pages(false).start()?;
    /// # Ok::<(), commonhold::Error>(())
    /// ```
    pub fn large_pages(mut self, large_pages: bool) -> Self {
        self.config.large_pages = large_pages;
        self
    }

    /// The program that runs the manager, instead of this one started again: for libraries in a host whose `main` is not
    /// ours. Its `main` must begin with [`init`](crate::init).
    pub fn executable(mut self, path: impl Into<PathBuf>) -> Self {
        self.executable = Some(path.into());
        self
    }

    /// Offers a type's objects on the manager though another program may have started it: a host of this program is started there,
    /// if there is none, and stays as long as the manager. Without this a program can make objects only where it, or another process
    /// of the same build, has started the manager.
    ///
    /// ```
    /// # commonhold::init_in_tests!();
    /// use commonhold::Manager;
    ///
    /// struct Dice(u64);
    /// #[commonhold::remote]
    /// impl Dice {
    ///     pub fn new() -> Self { Dice(1) }
    ///     pub fn roll(&mut self) -> u64 { self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1); (self.0 >> 33) % 6 + 1 }
    /// }
    /// # fn main() -> commonhold::Result<()> {
    /// let manager = Manager::builder().register::<Dice>().start()?;
    /// let dice = manager.create(Dice::new, ())?;
    /// assert!((1..=6).contains(&dice.roll()?));
    /// # Ok(())
    /// # }
    /// ```
    pub fn register<T: Remote>(mut self) -> Self {
        self.registered.push(Registered::of::<T>());
        self
    }

    /// The types that are to be offered are.
    fn offer(registered: &[Registered], manager: Manager) -> Result<Manager> {
        if !registered.is_empty() {
            manager.register(registered)?;
        }
        Ok(manager)
    }

    /// For tests: keys whose hashes collide.
    #[doc(hidden)]
    pub fn hash_mask(mut self, mask: u64) -> Self {
        self.config.hash_mask = mask;
        self
    }

    /// For counts of instructions: the same trees in every run. A seed that others know lets them choose keys that collide.
    #[doc(hidden)]
    pub fn hash_seed(mut self, seed: u64) -> Self {
        self.config.hash_seed = Some(seed);
        self
    }

    fn checked(&self) -> Result<(Config, Option<AuthKey>)> {
        let authkey = self.authkey.clone().map(AuthKey::new).transpose()?;
        let mut config = self.config.clone();
        if config.capacity_bytes < CAPACITY_BYTES_MIN {
            let text =
                format!("a capacity of {} bytes is too small for a manager: give it at least {CAPACITY_BYTES_MIN}", config.capacity_bytes);
            return Err(Error::new(ErrorKind::OutOfRange, text));
        }
        if config.sessions_max == 0 {
            return Err(Error::new(ErrorKind::OutOfRange, "a manager without sessions is of no use: allow at least one"));
        }
        config.authkey = authkey.clone();
        Ok((config, authkey))
    }

    /// Starts a manager that belongs to this program: it ends when the last handle and clone of it here is dropped, and with
    /// this process, however that ends. Others find it by its [address](Session::address) or by tokens.
    ///
    /// # Errors
    /// `NotInitialised` if `main` has not called [`init`](crate::init); `OutOfRange` for impossible settings; `System` if the
    /// process cannot be started.
    pub fn start(self) -> Result<Manager> {
        let (config, authkey) = self.checked()?;
        let address = Address::random()?;
        if self.in_process {
            let config = Config { build: Some(Build::own().clone()), ..config };
            return start_thread(config, address, authkey.as_ref()).and_then(|manager| Self::offer(&self.registered, manager));
        }
        let orders = Orders { config, address: Some(address.clone()), name: None };
        let (child, channel, leash) = boot::start_own(self.executable.as_ref(), &orders)?;
        let started = boot::report(&channel, "manager", &child);
        let pid = child.pid();
        let process = StartedProcess::new(child, leash);
        started?;
        let session = Session::greet_started(channel, address, authkey.as_ref(), pid)?;
        session.keep(Box::new(process));
        Self::offer(&self.registered, Manager::of(session))
    }

    /// Connects to the manager with a name; if there is none, starts one, which outlives this program. Of several programs
    /// that do so at the same time, one starts it and all get the same. Settings of the manager count only for the one that starts it;
    /// the authkey and [registered](Self::register) types for each.
    ///
    /// # Errors
    /// As [`start`](Self::start) and [`connect`](Self::connect).
    pub fn open_or_start(self, name: &str) -> Result<Manager> {
        let (config, _) = self.checked()?;
        check_name(name)?;
        let directory = RuntimeDir::open()?;
        for _ in 0..TRIES_MAX {
            match self.clone().connect(name) {
                Err(error) if error.is_not_found() => {}
                other => return other,
            }
            let name = Some((directory.path().to_owned(), name.to_owned()));
            let orders = Orders { config: config.clone(), address: None, name };
            let (child, channel) = boot::start_detached(self.executable.as_ref(), &orders)?;
            if let Outcome::Taken = boot::report_beyond(&channel, "manager", &child)? {
                // The one that has the name is about to listen, or to end.
                std::thread::yield_now();
            }
        }
        Err(Error::new(ErrorKind::TimedOut, format!("a manager named {name:?} keeps starting and ending: try again")))
    }

    /// Connects to the manager with a name, or at an [address](Session::address).
    ///
    /// # Errors
    /// `NotFound` if there is none, `Refused` if it does not let this program in: another user, another key, another version.
    pub fn connect(self, name_or_address: &str) -> Result<Manager> {
        let authkey = self.authkey.map(AuthKey::new).transpose()?;
        let address = match name_or_address.parse::<Address>() {
            Ok(address) if name_or_address.starts_with(['@', '/']) => address,
            Err(error) if name_or_address.starts_with('@') => return Err(error),
            _ => {
                check_name(name_or_address)?;
                RuntimeDir::open()?.address_of(name_or_address)?
            }
        };
        Self::offer(&self.registered, Manager::of(Session::connect_by(&address, authkey.as_ref(), self.lanes)?))
    }
}

fn start_thread(config: Config, address: Address, authkey: Option<&AuthKey>) -> Result<Manager> {
    let (ours, theirs) = Channel::pair()?;
    let listener = Listener::bind(address.clone())?;
    let mut server = Server::new(config, Some(listener))?;
    server.greet_owner(theirs)?;
    let thread = std::thread::Builder::new()
        .name("commonhold".into())
        .spawn(move || {
            // Ends with the owner's connection. An error means that the system fails us: everybody sees the manager end.
            let _ = server.run();
        })
        .map_err(|error| {
            Error::system("cannot start the manager's thread: raise `ulimit -u` or the memory limit, or let other threads end", error)
        })?;
    let session = Session::greet(ours, address, authkey)?;
    session.keep(Box::new(StartedThread(Some(thread))));
    Ok(Manager::of(session))
}
