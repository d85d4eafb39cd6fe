//! Pipes: [`Connection`] for both directions, [`PipeReceiver`] and [`PipeSender`] for one. Each direction is a queue; what an end is,
//! and how the going of its last holder is told, is in `manager::pipes`.

mod options;

pub use options::PipeOptions;

use crate::handle::{Handle, Object, debug, handle};
use crate::patience::deadline_after;
use crate::queue::{Queue, SendError, Until, stayed_full};
use crate::session::SessionCore;
use crate::wait::{Places, Source, wait};
use commonhold_ipc::error::{Error, ErrorKind, Result};
use commonhold_ipc::value::{AsShared, Shared, text};
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

/// One end of a pipe: sends `Out`, receives `In`. Made, with the other end, by [`Session::pipe`](crate::Session::pipe).
///
/// Items of any size come in the order in which they were sent, each once. Sending and receiving touch shared memory alone: no call, no
/// system call unless somebody sleeps.
///
/// - **The end of the stream**: `recv` returns `None`, after everything that was sent before, when the other end was
///   [closed](Self::close) or nobody holds it any more; sending fails then with an error of kind
///   [`Closed`](commonhold_ipc::error::ErrorKind::Closed). Who sleeps is woken.
/// - **Who holds an end**: every process that has a handle on it or was given one when it was started, a name that was given to it,
///   containers and queued items that it lies in. A process that dies holds nothing any more, by the kernel's
///   word and at once. So, as with the pipes of an operating system: pass an end to a child and *drop your own handle on it*, or its
///   death is not the end of the stream.
/// - **Several holders** of one end share it: each item goes to one of them.
/// - **Death**: what was sent is there, whatever becomes of the sender; an item that was being sent is there wholly or not at all. One
///   that [`recv`](Self::recv) was copying comes back, for other holders of the same end.
/// - **The manager's death**: every call fails at once, sleepers included.
///
/// ```
/// # commonhold::init_in_tests!();
/// # fn main() -> commonhold::Result<()> {
/// use commonhold::{Connection, Manager, Process};
///
/// fn upper(pipe: Connection<String>) -> commonhold::Result<()> {
///     while let Some(line) = pipe.recv()? {
///         pipe.send(line.to_uppercase())?;
///     }
///     Ok(())
/// }
///
/// let manager = Manager::start()?;
/// let (ours, theirs) = manager.pipe::<String>()?;
/// let child = Process::spawn(upper, theirs)?;           // moved: the child's end is the child's alone
/// ours.send("hello")?;
/// assert_eq!(ours.recv()?.as_deref(), Some("HELLO"));
/// child.kill()?;
/// assert_eq!(ours.recv()?, None);                       // the end of the stream
/// assert!(ours.send("hello?").unwrap_err().is_closed());
/// # Ok(())
/// # }
/// ```
pub struct Connection<Out: Shared, In: Shared = Out> {
    object: Arc<Object>,
    _of: PhantomData<fn() -> (Out, In)>,
}

handle!(Connection[Out: Shared, In: Shared], commonhold_ipc::catalog::Kind::PipeEnd, "Connection");

/// The end of a one-way pipe that sends. Made by [`Session::pipe_one_way`](crate::Session::pipe_one_way); all else as with
/// [`Connection`].
pub struct PipeSender<T: Shared> {
    object: Arc<Object>,
    _of: PhantomData<fn() -> T>,
}

handle!(PipeSender[T: Shared], commonhold_ipc::catalog::Kind::PipeEnd, "PipeSender");

/// The end of a one-way pipe that receives. Made by [`Session::pipe_one_way`](crate::Session::pipe_one_way); all else as with
/// [`Connection`].
///
/// ```
/// # commonhold::init_in_tests!();
/// # fn main() -> commonhold::Result<()> {
/// use commonhold::{Manager, PipeSender, Process};
///
/// fn count(to: u64, numbers: PipeSender<u64>) -> commonhold::Result<()> {
///     Ok((0..to).try_for_each(|number| numbers.send(number))?)
/// }
///
/// let manager = Manager::start()?;
/// let (receiver, sender) = manager.pipe_one_way::<u64>()?;
/// Process::spawn(count, (4, sender))?;
/// assert_eq!(receiver.iter().sum::<commonhold::Result<u64>>()?, 6);   // until the child has ended
/// # Ok(())
/// # }
/// ```
pub struct PipeReceiver<T: Shared> {
    object: Arc<Object>,
    _of: PhantomData<fn() -> T>,
}

handle!(PipeReceiver[T: Shared], commonhold_ipc::catalog::Kind::PipeEnd, "PipeReceiver");

/// The queues that an end is made of.
struct Line<Out: Shared, In: Shared> {
    incoming: Option<Queue<In>>,
    outgoing: Option<Queue<Out>>,
}

impl<Out: Shared, In: Shared> Line<Out, In> {
    fn of(object: &Object) -> Result<&Self> {
        let (_, line) = object.local(|session| {
            let (_, _hold, record) = object.look()?;
            let [incoming, outgoing] = [record.root, record.next_insertion].map(|id| queue(session, id));
            Ok(Line { incoming: incoming.map(Queue::from_object), outgoing: outgoing.map(Queue::from_object) })
        })?;
        Ok(line)
    }

    #[inline]
    fn incoming(object: &Object) -> Result<&Queue<In>> {
        Self::of(object)?.incoming.as_ref().ok_or_else(no_such_end)
    }

    #[inline]
    fn outgoing(object: &Object) -> Result<&Queue<Out>> {
        Self::of(object)?.outgoing.as_ref().ok_or_else(no_such_end)
    }

    fn close(object: &Object) -> Result<()> {
        let line = Self::of(object)?;
        line.outgoing.as_ref().map_or(Ok(false), Queue::close)?;
        line.incoming.as_ref().map_or(Ok(false), Queue::close)?;
        Ok(())
    }
}

fn queue(session: &Arc<SessionCore>, id: u64) -> Option<Arc<Object>> {
    (id != 0).then(|| Object::related(session, id))
}

/// Its type says what it can do, so this is another process's doing.
#[cold]
fn no_such_end() -> Error {
    Error::new(ErrorKind::WrongType, "this end of a pipe was made for the other direction: use the other end")
}

/// The error of sending to nobody.
#[cold]
fn hung_up(error: Error) -> Error {
    if !error.is_closed() {
        return error;
    }
    let text =
        "the pipe is closed: its other end was closed, or nobody holds it any more; what was sent before can still be received there";
    Error::new(ErrorKind::Closed, text)
}

/// What an end does that sends.
macro_rules! sends {
    ($name:ident[$($parameter:ident),*], $item:ident, $receives:ty) => {
        impl<$($parameter: Shared),*> $name<$($parameter),*> {
            #[inline]
            fn outgoing(&self) -> Result<&Queue<$item>> {
                Line::<$item, $receives>::outgoing(&self.object)
            }

            /// Sends an item: itself, a reference to it, or a borrowed form of it such as `&str`. Waits while the pipe is full.
            ///
            /// When this returns, the item is in the pipe, whatever happens to this process.
            ///
            /// # Errors
            /// `Closed` if nobody will receive it; `TooLarge` if it would not fit into an empty pipe; `Full` if the manager has no
            /// memory left; disconnected, when the manager has ended; `Corrupt` if a process has written over the pipe's words. An
            /// item that was given away is in the error: [`SendError::into_item`].
            #[inline]
            pub fn send<A: AsShared<$item>>(&self, item: A) -> Result<(), SendError<A::Back>> {
                match self.send_until(&item, Until::Then(None)) {
                    Ok(_) => Ok(()),
                    Err(error) => Err(SendError::new(error, item.back())),
                }
            }

            #[inline]
            fn send_until(&self, item: &impl AsShared<$item>, until: Until) -> Result<bool> {
                self.outgoing()?.send_until(item, until).map_err(hung_up)
            }

            /// Sends an item if there is room now. `Ok(Err(item))`: the pipe is full, and here the item is back.
            ///
            /// # Errors
            /// As [`send`](Self::send).
            #[inline]
            pub fn try_send<A: AsShared<$item>>(&self, item: A) -> Result<std::result::Result<(), A>, SendError<A::Back>> {
                match self.send_until(&item, Until::Now) {
                    Ok(true) => Ok(Ok(())),
                    Ok(false) => Ok(Err(item)),
                    Err(error) => Err(SendError::new(error, item.back())),
                }
            }

            /// Sends an item, waiting for so long at the most.
            ///
            /// # Errors
            /// `TimedOut` if the pipe stays full; else as [`send`](Self::send).
            pub fn send_timeout<A: AsShared<$item>>(&self, item: A, timeout: Duration) -> Result<(), SendError<A::Back>> {
                match self.send_until(&item, Until::Then(deadline_after(timeout))) {
                    Ok(true) => Ok(()),
                    Ok(false) => Err(SendError::new(stayed_full("the pipe", timeout), item.back())),
                    Err(error) => Err(SendError::new(error, item.back())),
                }
            }

            /// [`send`](Self::send) that is awaited, in any executor: it waits while the pipe is full. With the feature `async`. Dropped
            /// before it is ready, it has not sent.
            ///
            /// # Errors
            /// As [`send`](Self::send); `System` if this process can start no thread to wait for it.
            ///
            /// ```
            /// # commonhold::init_in_tests!();
            /// # fn main() -> commonhold::Result<()> {
            /// # let manager = commonhold::Manager::start()?;
            /// let (ours, theirs) = manager.pipe::<String>()?;
            /// let sender = manager.pipe_one_way::<u8>()?.1;
            /// pollster::block_on(async {
            ///     ours.send_async("hello").await?;
            ///     assert_eq!(theirs.recv()?.as_deref(), Some("hello"));
            ///     assert!(sender.send_async(1).await.unwrap_err().is_closed());   // nobody receives
            ///     Ok(())
            /// })
            /// # }
            /// ```
            #[cfg(feature = "async")]
            pub async fn send_async<A: AsShared<$item>>(&self, item: A) -> Result<(), SendError<A::Back>> {
                match self.outgoing() {
                    Ok(outgoing) => outgoing.send_async(item).await.map_err(|unsent| {
                        let (error, item) = unsent.into_parts();
                        SendError::new(hung_up(error), item)
                    }),
                    Err(error) => Err(SendError::new(error, item.back())),
                }
            }
        }
    };
}

/// What an end does that receives.
macro_rules! receives {
    ($name:ident[$($parameter:ident),*], $item:ident, $sends:ty) => {
        impl<$($parameter: Shared),*> $name<$($parameter),*> {
            #[inline]
            fn incoming(&self) -> Result<&Queue<$item>> {
                Line::<$sends, $item>::incoming(&self.object)
            }

            /// Receives the next item, waiting for it. `None`: the stream has ended.
            ///
            /// # Errors
            /// Disconnected, when the manager has ended; `Corrupt` if a process has written over the pipe's words, or over the item.
            #[inline]
            pub fn recv(&self) -> Result<Option<$item>> {
                self.incoming()?.recv()
            }

            /// Receives the next item if there is one now. `None` does not say whether the stream has ended: after
            /// [`poll`](Self::poll) it does, if this end has no other holder.
            ///
            /// # Errors
            /// As [`recv`](Self::recv).
            #[inline]
            pub fn try_recv(&self) -> Result<Option<$item>> {
                self.incoming()?.try_recv()
            }

            /// Receives the next item, waiting for so long at the most. `None`: the stream has ended.
            ///
            /// # Errors
            /// `TimedOut` if none came; else as [`recv`](Self::recv).
            pub fn recv_timeout(&self, timeout: Duration) -> Result<Option<$item>> {
                self.incoming()?.recv_timeout(timeout)
            }

            /// [`recv`](Self::recv) that is awaited, in any executor. With the feature `async`. Dropped before it is ready, it has taken
            /// nothing.
            ///
            /// # Errors
            /// As [`recv`](Self::recv); `System` if this process can start no thread to wait for it.
            ///
            /// ```
            /// # commonhold::init_in_tests!();
            /// # fn main() -> commonhold::Result<()> {
            /// # let manager = commonhold::Manager::start()?;
            /// use commonhold::{PipeSender, Process};
            /// fn count(sender: PipeSender<u64>) -> commonhold::Result<()> {
            ///     Ok((1..=3).try_for_each(|number| sender.send(number))?)
            /// }
            /// let (numbers, sender) = manager.pipe_one_way::<u64>()?;
            /// let _child = Process::spawn(count, sender)?;
            /// pollster::block_on(async {
            ///     let mut sum = 0;
            ///     while let Some(number) = numbers.recv_async().await? {
            ///         sum += number;
            ///     }
            ///     assert_eq!(sum, 6);                                     // when the child has ended
            ///     Ok(())
            /// })
            /// # }
            /// ```
            #[cfg(feature = "async")]
            pub fn recv_async(&self) -> impl Future<Output = Result<Option<$item>>> + Send + Unpin {
                let mut place = None;
                std::future::poll_fn(move |context| self.incoming()?.poll_recv(&mut place, context))
            }

            /// Waits until [`recv`](Self::recv) would not: an item is there, or the stream has ended. `false`: neither, after
            /// `timeout`; `None` waits for ever. For several ends, and other things: [`wait`](crate::wait()).
            ///
            /// # Errors
            /// As [`wait`](crate::wait()).
            ///
            /// ```
            /// # commonhold::init_in_tests!();
            /// # fn main() -> commonhold::Result<()> {
            /// # let manager = commonhold::Manager::start()?;
            /// use std::time::Duration;
            /// let (receiver, sender) = manager.pipe_one_way::<u8>()?;
            /// assert!(!receiver.poll(Duration::ZERO)?);
            /// sender.send(5)?;
            /// assert!(receiver.poll(None)?);
            /// assert_eq!(receiver.recv()?, Some(5));
            /// # Ok(())
            /// # }
            /// ```
            pub fn poll(&self, timeout: impl Into<Option<Duration>>) -> Result<bool> {
                Ok(!wait(&[self], timeout)?.is_empty())
            }

            /// Receives item after item, waiting for each, until the stream has ended, or after an error.
            pub fn iter(&self) -> impl Iterator<Item = Result<$item>> + '_ {
                let mut over = false;
                std::iter::from_fn(move || {
                    let next = if over { None } else { self.recv().transpose() };
                    over = !matches!(next, Some(Ok(_)));
                    next
                })
            }
        }

        /// Ready when an item can be received, or the stream has ended.
        impl<$($parameter: Shared),*> Source for $name<$($parameter),*> {
            fn is_ready(&self) -> bool {
                self.incoming().map_or(true, Source::is_ready)
            }

            fn prepare<'w>(&'w self, places: &mut Places<'w>) {
                if let Ok(incoming) = self.incoming() {
                    incoming.prepare(places);
                }
            }

            fn pass_on(&self) {
                if let Ok(incoming) = self.incoming() {
                    incoming.pass_on();
                }
            }

            fn is_in_memory(&self) -> bool {
                true
            }
        }
    };
}

/// What every end does.
macro_rules! ends {
    ($name:ident[$($parameter:ident),*], $sends:ty, $receives:ty) => {
        impl<$($parameter: Shared),*> $name<$($parameter),*> {
            /// Closes this end, for all who hold it: nothing can be sent any more, by either side. What is in the pipe can still be
            /// received. Dropping the last handle does the same; this does not wait for other holders to let go.
            ///
            /// # Errors
            /// Disconnected, when the manager has ended; `Corrupt` if a process has written over the pipe's words.
            pub fn close(&self) -> Result<()> {
                Line::<$sends, $receives>::close(&self.object)
            }

            /// Items and units of memory in use in either direction: for tests, which expect none at the end.
            #[doc(hidden)]
            pub fn in_use(&self) -> Result<(u64, u64)> {
                let line = Line::<$sends, $receives>::of(&self.object)?;
                let incoming = line.incoming.as_ref().map_or(Ok((0, 0)), Queue::in_use)?;
                let outgoing = line.outgoing.as_ref().map_or(Ok((0, 0)), Queue::in_use)?;
                Ok((incoming.0 + outgoing.0, incoming.1 + outgoing.1))
            }
        }

        impl<$($parameter: Shared),*> fmt::Debug for $name<$($parameter),*> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                debug(f, text::<Self>(), &self.object, None)
            }
        }
    };
}

sends!(Connection[Out, In], Out, In);
receives!(Connection[Out, In], In, Out);
ends!(Connection[Out, In], Out, In);
sends!(PipeSender[T], T, T);
ends!(PipeSender[T], T, T);
receives!(PipeReceiver[T], T, T);
ends!(PipeReceiver[T], T, T);

/// Raw bytes, for pipes of `Vec<u8>`.
macro_rules! sends_bytes {
    ($($name:ty),*) => {$(
        impl $name {
            /// Sends bytes as they are: the same as [`send`](Self::send) with a slice.
            ///
            /// # Errors
            /// As there.
            #[inline]
            pub fn send_bytes(&self, bytes: &[u8]) -> Result<()> {
                Ok(self.send(bytes)?)
            }
        }
    )*};
}

/// The same for those that receive.
macro_rules! receives_bytes {
    ($($name:ty),*) => {$(
        impl $name {
            /// Receives the next item's bytes in place of what is in `bytes`, waiting for them. `false`, and no bytes: the stream has ended.
            ///
            /// # Errors
            /// As [`recv`](Self::recv).
            #[inline]
            pub fn recv_bytes(&self, bytes: &mut Vec<u8>) -> Result<bool> {
                let received = self.recv()?;
                let came = received.is_some();
                *bytes = received.unwrap_or_default();
                Ok(came)
            }
        }
    )*};
}

sends_bytes!(Connection<Vec<u8>>, PipeSender<Vec<u8>>);
receives_bytes!(Connection<Vec<u8>>, PipeReceiver<Vec<u8>>);

impl<Out: Shared, In: Shared> Connection<Out, In> {
    /// Says that nothing more will be sent from this end; it still receives. The other side sees the end of the stream, and may answer.
    ///
    /// # Errors
    /// As [`close`](Self::close).
    pub fn close_sending(&self) -> Result<()> {
        self.outgoing()?.close().map(drop)
    }
}
