//! How this program starts itself again: in what role, and how the two processes talk.
//!
//! | | starter | started |
//! |---|---|---|
//! | 1 | makes a pair of sockets; starts the program with one end and `COMMONHOLD_BOOT=<role>:<descriptor>` in its environment | |
//! | 2 | | [`enter`], at the beginning of `main` or before: takes variable and descriptor, so that nobody inherits them |
//! | 3 | what the role says | what the role says |
//!
//! A process that is started so and never comes to step 2 sees the variable as long as it lives: that is how [`Start`]
//! refuses to let it start another, which would go on for ever.
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use crate::error::{Error, ErrorKind, Result};
use crate::socket::Channel;
use crate::sys::{self, HANDED, Plan, Spawned, Stream};

/// The environment variable by which a process learns its role.
pub const VARIABLE: &str = "COMMONHOLD_BOOT";

/// This program, whatever has become of its file.
const THIS_PROGRAM: &str = "/proc/self/exe";

static INITIALISED: AtomicBool = AtomicBool::new(false);

/// The beginning of `main`: the role in which this process was started, and its socket, if it was started by this library. A
/// program with rights beyond its user's never listens.
///
/// # Errors
/// `Corrupt` if the variable was set by somebody else.
pub fn enter() -> Result<Option<(String, Channel)>> {
    // SYNC: Relaxed: one thread calls this before there are others; it only says that it was called.
    INITIALISED.store(true, Ordering::Relaxed);
    let Some(text) = sys::take_variable(VARIABLE) else { return Ok(None) };
    let taken = text.rsplit_once(':').and_then(|(role, number)| Some((role.to_owned(), sys::take_socket(number.parse().ok()?)?)));
    match taken {
        Some((role, socket)) => Ok(Some((role, Channel::from_fd(socket)?))),
        None => {
            let text = format!("the environment has {VARIABLE}={text}, which is not what this library sets: unset that variable");
            Err(Error::new(ErrorKind::Corrupt, text))
        }
    }
}

/// Refuses to start this program again if it would not know what it is for, and so would run its `main` from the beginning.
fn check_listens() -> Result<()> {
    if sys::is_secure_execution() {
        let text = "a program with rights beyond its user's (set-user-ID, capabilities of its file) does not start itself again: \
                    it would have to take orders from its environment; use a manager in this process, or connect to one";
        return Err(Error::new(ErrorKind::Refused, text));
    }
    if INITIALISED.load(Ordering::Relaxed) {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::NotInitialised,
        "a manager, and whatever else is a process of its own, begins in `commonhold::init()`: call that in the first line of \
         `main` (in a test file, put `commonhold::init_in_tests!();` at its top)",
    ))
}

/// A process of this program (or of another one that calls [`enter`]) to be started in a role.
pub struct Start<'a> {
    /// The program; this one, if none is said.
    pub program: Option<&'a Path>,
    /// Its role.
    pub role: &'a str,
    /// Its arguments, from the name that it is called by.
    pub arguments: Vec<OsString>,
    /// Its environment.
    pub environment: Vec<(OsString, OsString)>,
    /// Input, output, errors.
    pub streams: [Stream; 3],
}

impl Start<'_> {
    /// Starts it; what it is started for is said through the channel.
    ///
    /// # Errors
    /// `NotInitialised` if it would begin like this process, which has not called [`enter`]; `Refused` if this program has rights
    /// beyond its user's, with which it never listens; `System` if it cannot be started.
    pub fn start(self) -> Result<(Spawned, Channel)> {
        let (ours, theirs) = Channel::pair()?;
        Ok((self.start_with(theirs)?, ours))
    }

    /// The same with a channel that there is already.
    pub fn start_with(mut self, theirs: Channel) -> Result<Spawned> {
        match self.program {
            None => check_listens()?,
            // The other program may be this one, which was started so and does not know.
            Some(_) if std::env::var_os(VARIABLE).is_some() => check_listens()?,
            Some(_) => {}
        }
        let program = self.program.map_or_else(|| PathBuf::from(THIS_PROGRAM), Path::to_owned);
        self.environment.retain(|(name, _)| name != VARIABLE);
        self.environment.push((VARIABLE.into(), format!("{}:{HANDED}", self.role).into()));
        Plan { program: &program, arguments: self.arguments, environment: self.environment, streams: self.streams, handed: theirs.into() }
            .spawn()
    }
}
