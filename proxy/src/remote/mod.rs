//! Objects of users' types: their methods run in a *host*, a process of the program that has the type, beside the manager.
//!
//! | who | does |
//! |---|---|
//! | the manager | knows which host has which object, counts references, makes *lines*: pairs of sockets between a client and a host |
//! | a client | calls methods (`question`, `answer`) on a line of its own, which is for one call at a time (`call`); or ahead, on the host's stream (`pending`) |
//! | a host | serves each line by a thread, which runs the methods itself; an object lets one in at a time (`host`) |
//!
//! Nothing of a call passes through the manager, so no method can delay the store. A host is started by the first program that makes
//! an object and has been let: the one that has started the manager, or one that has said `register`. It ends with the manager.
//!
//! A call carries the *chain* that it is part of: its number, and in which objects it already is. By that a call that would wait for
//! itself is refused, also if several objects of one host are in the circle. Chains are a thread's: what a method does on threads of its
//! own is not known to be part of it.
//!
//! Handles in arguments are held by the host before its method sees them, handles in results by the client before the host lets go.
mod answer;
mod call;
mod create;
mod function;
pub(crate) mod host;
mod line;
mod overview;
mod pending;
mod question;
mod road;

pub use call::Caller;
pub use create::{Constructed, Registered, set_starter};
pub use function::Logic;
pub use host::object::{Served, one_at_a_time, several_at_once};
pub use host::{Access, Begun as HostBegun, Incoming, Passage, own_session, run as run_host};
pub use overview::{ObjectInfo, SessionInfo};
pub use pending::Pending;
pub use question::Arguments;

use crate::handle::Handle;
use commonhold_ipc::error::Result;

/// A type with a `#[commonhold::remote]` impl: its objects can live beside a manager, and be called from any process.
///
/// Calls of its proxy's methods fail with these kinds of error, besides those of arguments that are too large or handles that are gone:
///
/// | kind | when | then |
/// |---|---|---|
/// | `Panicked` | the method panicked, or an earlier one did; the message says where, the source has the backtrace | the object is poisoned: make a new one |
/// | `Died` | the host has ended: somebody's method aborted, overflowed its stack, touched memory that is not there, or it was killed | make new objects: they get a new host |
/// | `Deadlock` | the call would wait for itself | let the calling method return first, or call one-way |
/// | `TimedOut` | `with_timeout` | a method that had begun is run to its end, one that had not is not run |
/// | `Cancelled` | [`Pending::cancel`] | it had not begun, and is not run |
/// | `WrongType` | the object has other methods than its caller was built with | build both with the same |
/// | `Disconnected` | the manager has ended | |
#[diagnostic::on_unimplemented(
    message = "the methods of `{Self}` cannot be called from other processes",
    note = "put `#[commonhold::remote]` on its `impl` block"
)]
pub trait Remote: Sized + Send + 'static {
    /// The handle on such an object.
    type Proxy: Handle;

    /// The type's name.
    #[doc(hidden)]
    const NAME: &'static str;

    /// Its interfaces as fingerprint and text: its own, then those of its remote traits.
    #[doc(hidden)]
    fn interfaces() -> Vec<(u64, &'static str)>;

    /// The name of a method, and whether it changes the object (`&mut self`).
    #[doc(hidden)]
    fn method(interface: u64, method: u32) -> Option<(&'static str, bool)>;

    /// Runs a method.
    #[doc(hidden)]
    fn dispatch(object: Access<'_, Self>, interface: u64, method: u32, call: &mut Incoming<'_>) -> Result<()>;

    /// Makes it ready to be called.
    #[doc(hidden)]
    fn serve(self) -> Box<dyn Served>;
}
