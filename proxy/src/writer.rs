//! [`Writer`]: writes that are sent without waiting for each one's answer.
//!
//! Writes are collected while others are under way, and go when those have been answered, or when there are enough of them: as one
//! message, a *series* (`ipc::wire::series`), of which the manager does each write by itself. So the caller puts the next ones
//! together while the manager does the last ones, and neither waits for the other as long as both are awake; the faster the writes
//! come, the more share a message. At most one series is under way, so that their order is that of the writes, on either road
//! of calls. A writer has a lane of its own: its thread's other calls do not wait for it, and it may go to another thread.

use crate::batch::{Batch, Countable};
use crate::connection::{Reply, disconnected};
use crate::dict::Dict;
use crate::lane::UnderWay;
use crate::list::List;
use crate::request::Request;
use crate::session::{SessionCore, Stored};
use crate::single::{Counter, Value};
use commonhold_ipc::error::{Error, Result};
use commonhold_ipc::limits::{WRITER_BYTES, WRITER_FAILURES_MAX, WRITER_UPLOADS_MAX};
use commonhold_ipc::pin::OwnLane;
use commonhold_ipc::value::{AsShared, Key, Number, Shared};
use commonhold_ipc::wire::malformed;
use commonhold_ipc::wire::series::Settled;
use std::sync::Arc;

/// A road on which a series is under way.
enum Road {
    Lane(UnderWay),
    Socket(u16),
    /// None was free: the answer is here already.
    Answered(Result<Reply>),
}

/// A series that has been sent.
struct Sent {
    road: Road,
    /// What was sent, should the manager do only a part of it at a time.
    request: Request,
    /// Number of its first write.
    first: u64,
    /// Number of its writes.
    count: u32,
    /// What they store handles on.
    stored: Vec<Stored>,
}

/// Writes of one thread that wants throughput rather than an answer each time. Made by [`Session::writer`](crate::Session::writer).
///
/// Each write is atomic by itself, as the container's own method is, and they happen in the order in which they were made. They are
/// numbered from 0; each method returns its write's number. It fails at once, and takes no number, if the write cannot be sent: a
/// value that is too large, a container of another manager, a manager that is gone.
///
/// - [`flush`](Self::flush) returns when all writes so far have happened, or failed: with the error of the first that did.
///   Writes behind one that failed happen all the same.
/// - Until then the newest may not even be sent; those below [`acknowledged`](Self::acknowledged) have happened, or failed. Reads of the
///   program see a write when it has happened. Its other writes, through the containers' own methods or another writer, are not in
///   one order with these: flush between them.
/// - Dropping a writer flushes it, and errors go unheard: call `flush` first. A writer that is forgotten (`mem::forget`), or whose
///   process dies, loses writes that are not acknowledged, the newest: what has happened is a beginning of the row of its writes, without
///   a gap (but for those that failed).
/// - When the manager dies, those under way fail with `OutcomeUnknown`, those behind them with `Disconnected`.
///
/// Writes that are to happen together or not at all belong into a [`batch`](crate::Session::batch).
///
/// ```
/// # commonhold::init_in_tests!();
/// # fn main() -> commonhold::Result<()> {
/// # let manager = commonhold::Manager::start()?;
/// let (squares, log) = (manager.dict::<u64, u64>([])?, manager.list::<String>([])?);
/// let mut writer = manager.writer()?;
/// for n in 0..1000 {
///     writer.insert(&squares, n, n * n)?;
/// }
/// writer.push(&log, "a thousand squares")?;
/// writer.flush()?;
/// assert_eq!((squares.len()?, log.len()?), (1000, 1));
///
/// let small = manager.counter(i64::MAX)?;
/// let number = writer.count(&small, 1)?;               // sent, not yet answered
/// writer.push(&log, "and on")?;
/// let error = writer.flush().unwrap_err();              // "write 1001 of a writer: …"
/// assert!(error.to_string().contains(&format!("write {number} ")));
/// assert_eq!((error.kind(), log.len()?), (commonhold::ErrorKind::OutOfRange, 2));
/// # Ok(())
/// # }
/// ```
pub struct Writer {
    session: Arc<SessionCore>,
    lane: Option<OwnLane>,
    /// What has been collected since the last series went, and the number of the first write in it.
    open: Batch<'static>,
    first_open: u64,
    under_way: Option<Sent>,
    failures: Vec<(u64, Error)>,
}

/// The methods of a writer, which are those of a batch.
macro_rules! writes {
    ($($(#[$doc:meta])* $name:ident[$($generics:tt)*]($($argument:ident: $type:ty),*);)*) => {$(
        $(#[$doc])*
        pub fn $name<$($generics)*>(&mut self, $($argument: $type),*) -> Result<u64> {
            self.write(|batch| batch.$name($($argument),*))
        }
    )*};
}

impl Writer {
    pub(crate) fn new(session: &Arc<SessionCore>) -> Result<Writer> {
        session.check()?;
        let (lane, open) = (session.pins.own_lane(), Batch::new(session));
        Ok(Writer { session: session.clone(), lane, open, first_open: 0, under_way: None, failures: Vec::new() })
    }

    writes! {
        /// Sets the value of a key. Returns the write's number.
        insert[K: Key, V: Shared](dict: &Dict<K, V>, key: impl AsShared<K>, value: impl AsShared<V>);
        /// Takes a key out, if it is there. Returns the write's number.
        remove[K: Key, V: Shared](dict: &Dict<K, V>, key: impl AsShared<K>);
        /// Adds to the number of a key, which counts as 0 if it is not there. Returns the write's number. It fails with `OutOfRange` if
        /// the sum does not fit.
        add[K: Key, V: Number](dict: &Dict<K, V>, key: impl AsShared<K>, amount: V);
        /// Adds an element at the end of a list. Returns the write's number.
        push[T: Shared](list: &List<T>, value: impl AsShared<T>);
        /// Adds many elements at the end of a list, all of them at once. Returns the write's number; if there are none, it is no write, and
        /// the number is the next one's.
        extend[T: Shared, A: AsShared<T>](list: &List<T>, values: impl IntoIterator<Item = A>);
        /// Puts an element before the one at a position of a list. Returns the write's number. It fails with `OutOfRange` if the position
        /// is behind the end.
        insert_at[T: Shared](list: &List<T>, position: usize, value: impl AsShared<T>);
        /// Replaces the element at a position of a list. Returns the write's number. It fails with `OutOfRange` if there is none.
        set_at[T: Shared](list: &List<T>, position: usize, value: impl AsShared<T>);
        /// Takes the element at a position out of a list, if there is one. Returns the write's number.
        remove_at[T: Shared](list: &List<T>, position: usize);
        /// Takes everything out of a dict or a list. Returns the write's number.
        clear[](container: &impl Countable);
        /// Replaces a value. Returns the write's number.
        set[T: Shared](target: &Value<T>, value: impl AsShared<T>);
        /// Adds to a counter. Returns the write's number. It fails with `OutOfRange` if the sum does not fit.
        count[](counter: &Counter, amount: i64);
    }

    #[inline]
    fn write(&mut self, add: impl FnOnce(&Batch<'_>) -> Result<()>) -> Result<u64> {
        let mark = self.open.mark();
        if let Err(error) = add(&self.open) {
            self.open.cut(&mark);
            return Err(error);
        }
        let number = self.first_open + u64::from(mark.ops());
        self.go_on();
        Ok(number)
    }

    /// Sends what has been collected, if nothing is under way any more, or if it is enough.
    #[inline]
    fn go_on(&mut self) {
        let is_enough = self.open.len() >= WRITER_BYTES || self.open.uploads() >= WRITER_UPLOADS_MAX;
        if is_enough || self.is_answered() {
            self.settle();
            self.send();
        }
    }

    /// Whether nothing is under way, as far as can be told without a system call.
    #[inline]
    fn is_answered(&self) -> bool {
        match &self.under_way {
            None | Some(Sent { road: Road::Answered(_), .. }) => true,
            Some(Sent { road: Road::Lane(call), .. }) => self.session.lane_road().is_none_or(|road| road.is_answered(call)),
            Some(Sent { road: Road::Socket(_), .. }) => false,
        }
    }

    /// Sends what has been collected; nothing is under way.
    fn send(&mut self) {
        let open = std::mem::replace(&mut self.open, Batch::new(&self.session));
        let (mut ops, stored) = open.into_parts();
        if ops.ops() > 0 {
            let (first, count) = (self.first_open, ops.ops());
            self.first_open += u64::from(count);
            self.begin(Request::series(&mut ops), first, count, stored);
        }
    }

    fn begin(&mut self, mut request: Request, first: u64, count: u32, stored: Vec<Stored>) {
        self.session.gate.pass();
        match self.take_road(&mut request) {
            Ok(road) => self.under_way = Some(Sent { road, request, first, count, stored }),
            Err(error) => self.all_failed(first, count, error),
        }
    }

    fn take_road(&self, request: &mut Request) -> Result<Road> {
        let (session, connection) = (&self.session, &self.session.connection);
        session.check()?;
        crate::inside::check::<SessionCore>(session)?;
        let Some(lane) = self.lane.as_ref().map(OwnLane::number) else {
            return Ok(Road::Answered(session.call(request, true)));
        };
        let number = session.next_call(lane);
        if let Some(begun) = session.lane_road().and_then(|road| road.begin(connection, request, lane, number, true)) {
            return begun.map(Road::Lane);
        }
        if connection.has_ended() {
            return Err(disconnected());
        }
        connection.send(request.frame(lane, number)?)?;
        Ok(Road::Socket(lane))
    }

    /// Waits until nothing is under way.
    fn settle(&mut self) {
        while let Some(Sent { road, request, first, count, stored }) = self.under_way.take() {
            let (session, connection) = (&self.session, &self.session.connection);
            let reply = match road {
                Road::Answered(reply) => reply,
                Road::Socket(lane) => connection.receive(lane, true),
                Road::Lane(call) => session.lane_road().ok_or_else(disconnected).and_then(|road| road.finish(connection, call, true)),
            };
            let settled =
                reply.and_then(Reply::outcomes).and_then(|outcomes| Settled::parse(outcomes, count).ok_or_else(|| malformed("reply")));
            let Settled { tried, failed } = match settled {
                Ok(settled) => settled,
                Err(error) => return self.all_failed(first, count, error),
            };
            for (place, error) in failed {
                let number = first + u64::from(place);
                self.failed(number, format!("write {number} of a writer: {error}"), error);
            }
            if tried < count {
                let (first, count) = (first + u64::from(tried), count - tried);
                match request.ops_from(tried) {
                    Ok(mut rest) => self.begin(Request::series(&mut rest), first, count, stored),
                    Err(error) => self.all_failed(first, count, error),
                }
            }
        }
    }

    #[cold]
    fn all_failed(&mut self, first: u64, count: u32, error: Error) {
        let last = first + u64::from(count) - 1;
        self.failed(first, format!("writes {first} to {last} of a writer: {error}"), error);
    }

    fn failed(&mut self, number: u64, text: String, error: Error) {
        if self.failures.len() < WRITER_FAILURES_MAX {
            self.failures.push((number, Error::caused(error.kind(), text, error)));
        }
    }

    /// Returns when all writes so far have happened or failed.
    ///
    /// # Errors
    /// That of the first write that failed since the last time; its text names the write. The others are forgotten: see
    /// [`failures`](Self::failures).
    pub fn flush(&mut self) -> Result<()> {
        self.failures()?.into_iter().next().map_or(Ok(()), |(_, error)| Err(error))
    }

    /// Returns when all writes so far have happened or failed, with those that failed since the last time, in order: number and
    /// error, of no more than the first 4,096. Writes that were lost together with the manager are one failure, with the number of the first.
    ///
    /// # Errors
    /// `UsedAfterFork` in a forked child.
    pub fn failures(&mut self) -> Result<Vec<(u64, Error)>> {
        if !self.session.is_ours() {
            self.session.check()?;
        }
        self.settle();
        self.send();
        self.settle();
        Ok(std::mem::take(&mut self.failures))
    }

    /// How many writes, from the first on, are known to have happened or failed. It does not wait, and sends nothing that is not due.
    pub fn acknowledged(&mut self) -> u64 {
        if self.session.is_ours() && self.is_answered() {
            self.settle();
        }
        self.under_way.as_ref().map_or(self.first_open, |sent| sent.first)
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        // In a forked child they are the parent's writes. Errors: whoever wants them flushes before.
        let _ = self.failures();
    }
}

impl std::fmt::Debug for Writer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let next = self.first_open + u64::from(self.open.mark().ops());
        let acknowledged = self.under_way.as_ref().map_or(self.first_open, |sent| sent.first);
        f.debug_struct("Writer").field("next", &next).field("acknowledged", &acknowledged).finish_non_exhaustive()
    }
}

const _: () = assert!(WRITER_FAILURES_MAX == 4_096, "as the docs of `failures` say");
