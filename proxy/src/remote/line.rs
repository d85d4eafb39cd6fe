//! A line: frames between a client and a host, through memory that they share (`ipc::line`), or by the sockets alone.

use commonhold_ipc::error::{Error, ErrorKind, Result};
use commonhold_ipc::limits::REMOTE_FRAME_BYTES_MAX;
use commonhold_ipc::line::{LineEnd, Side, Waited, Wanted};
use commonhold_ipc::socket::{Channel, Received, Spin};
use commonhold_ipc::sys::{has_hung_up, wait_either, wait_readable, wait_writable};
use commonhold_ipc::wire::{HEAD_BYTES, Head, malformed};
use rkyv::util::AlignedVec;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Instant;

/// Bytes that are taken from the socket at a time.
const BUFFER_BYTES: usize = 16 << 10;
/// Bytes of the largest payload whose memory is used again for the next one.
const SPARE_BYTES_MAX: usize = 64 << 10;

/// A frame: its head, and its payload at a multiple of 16, as archives need it.
pub type Frame = (Head, AlignedVec<16>);

/// What waiting for a frame came to.
pub enum Got {
    /// This.
    Frame(Frame),
    /// Nothing until the deadline.
    Nothing,
    /// The other side is gone.
    Ended,
}

/// What carries a line's bytes. One thread at a time sends, and one receives or waits; by a socket, any number wait.
pub enum Road {
    /// The socket.
    Socket(Channel),
    /// Memory, beside a socket.
    Memory(LineEnd),
}

impl Road {
    /// The road to which this socket leads. `side`: which side of its memory, if it has any: that is its first message.
    fn new(end: OwnedFd, side: Option<Side>) -> Result<Road> {
        let socket = Channel::from_fd(end)?;
        let Some(side) = side else { return Ok(Road::Socket(socket)) };
        let mut memory = Vec::new();
        // It was there before the socket came to us.
        socket.receive_with_fds(&mut [0], &mut memory, 1)?;
        let memory = memory.pop().ok_or_else(|| {
            Error::new(ErrorKind::System, "no descriptor came with a line to a host: close descriptors or raise `ulimit -n`")
        })?;
        Ok(Road::Memory(LineEnd::map(&memory, socket, side)?))
    }

    fn socket(&self) -> &Channel {
        match self {
            Road::Socket(socket) => socket,
            Road::Memory(end) => end.socket(),
        }
    }

    /// Sends as many of the bytes as there is room for now; 0 if there is none.
    #[inline]
    pub fn send(&self, bytes: &[u8]) -> Result<usize> {
        match self {
            Road::Socket(socket) => socket.send(bytes),
            Road::Memory(end) => end.send(bytes),
        }
    }

    /// Waits until there are bytes to take or room to send, or the deadline: (something to take, room). The end of a socket is both.
    ///
    /// # Errors
    /// `Disconnected` when the other side is gone.
    pub fn wait_either(&self, spin: &mut Spin, deadline: Option<Instant>) -> Result<(bool, bool)> {
        match self {
            Road::Socket(socket) => wait_either(socket, deadline),
            Road::Memory(end) => match end.wait(Wanted::RoomOrBytes, spin, || deadline)? {
                Waited::Ready => Ok((end.is_ready(Wanted::Bytes), end.is_ready(Wanted::Room))),
                Waited::Nothing => Ok((false, false)),
                Waited::Ended => Err(gone()),
            },
        }
    }

    /// Waits for room to send. `false`: the deadline passed.
    fn wait_writable(&self, spin: &mut Spin, deadline: Option<Instant>) -> Result<bool> {
        match self {
            Road::Socket(socket) => wait_writable(socket, deadline),
            Road::Memory(end) => match end.wait(Wanted::Room, spin, || deadline)? {
                Waited::Ready => Ok(true),
                Waited::Nothing => Ok(false),
                Waited::Ended => Err(gone()),
            },
        }
    }

    /// Whether the other side is gone.
    pub fn has_hung_up(&self) -> bool {
        has_hung_up(self.socket()).unwrap_or(false)
    }

    /// Ends it for both sides, though the descriptor stays open.
    pub fn shut_down(&self) {
        self.socket().shut_down();
    }
}

fn gone() -> Error {
    Error::new(ErrorKind::Disconnected, "the process at the other end of the line is gone")
}

/// Puts frames together of what comes.
pub struct Incoming {
    /// How it waits for a side that is awake.
    spin: Spin,
    /// And for one that had to be woken: kept apart, or a few sleeps would teach both sides to sleep for ever.
    spin_rung: Spin,
    /// What was taken from the socket.
    buffer: Box<[u8]>,
    start: usize,
    end: usize,
    /// Of a frame that is not whole yet.
    head: AlignedVec<16>,
    payload: AlignedVec<16>,
    /// Memory for the next one.
    spare: AlignedVec<16>,
}

impl Incoming {
    /// Nothing has come yet.
    pub fn new() -> Self {
        let (head, payload, spare) = Default::default();
        Incoming { spin: Spin::new(), spin_rung: Spin::new(), buffer: Box::default(), start: 0, end: 0, head, payload, spare }
    }

    /// The next whole frame of what has come.
    ///
    /// # Errors
    /// `Corrupt` if it is longer than any may be.
    #[inline]
    pub fn take(&mut self, road: &Road) -> Result<Option<Frame>> {
        let Incoming { buffer, start, end, head, payload, spare, .. } = self;
        // Memory comes with the bytes: what a head claims is only a claim.
        let mut get = |most: usize, out: &mut AlignedVec<16>| match road {
            Road::Memory(memory) => memory.receive(most, out).map(drop),
            Road::Socket(_) => {
                let here = most.min(*end - *start);
                out.extend_from_slice(&buffer[*start..*start + here]);
                *start += here;
                Ok(())
            }
        };
        if head.len() < HEAD_BYTES {
            get(HEAD_BYTES - head.len(), head)?;
        }
        let Some(whole) = Head::parse(head) else { return Ok(None) };
        let len = whole.len as usize;
        if len > REMOTE_FRAME_BYTES_MAX {
            return Err(malformed("call"));
        }
        if payload.len() < len {
            get(len - payload.len(), payload)?;
        }
        if payload.len() < len {
            return Ok(None);
        }
        head.clear();
        Ok(Some((whole, std::mem::replace(payload, std::mem::take(spare)))))
    }

    /// A payload that is not needed any more.
    fn reuse(&mut self, mut payload: AlignedVec<16>) {
        if payload.capacity() <= SPARE_BYTES_MAX {
            payload.clear();
            // If the next frame has begun, it has taken the last spare one.
            if self.payload.capacity() == 0 { self.payload = payload } else { self.spare = payload }
        }
    }

    /// Takes what is there of the socket, all of what it brought before having been taken. `None`: its end; else whether there was
    /// anything.
    fn fill(&mut self, socket: &Channel) -> Result<Option<bool>> {
        debug_assert_eq!(self.start, self.end);
        if self.buffer.is_empty() {
            self.buffer = vec![0; BUFFER_BYTES].into();
        }
        Ok(match socket.receive(&mut self.buffer)? {
            Received::Bytes(count) => {
                (self.start, self.end) = (0, count);
                Some(true)
            }
            Received::Nothing => Some(false),
            Received::Ended => None,
        })
    }

    /// Waits for something to take.
    #[inline]
    fn more(&mut self, road: &Road, deadline: impl Fn() -> Option<Instant>) -> Result<Waited> {
        let socket = match road {
            Road::Memory(end) => {
                let spin = if end.has_rung() { &mut self.spin_rung } else { &mut self.spin };
                return end.wait(Wanted::Bytes, spin, deadline);
            }
            Road::Socket(socket) => socket,
        };
        let mut filled = Ok(Some(false));
        let mut spin = std::mem::take(&mut self.spin);
        let ready = spin.wait(|| {
            filled = self.fill(socket);
            !matches!(filled, Ok(Some(false)))
        });
        self.spin = spin;
        if !ready {
            if wait_readable(&[socket.as_fd()], deadline())? == 0 {
                return Ok(Waited::Nothing);
            }
            filled = self.fill(socket);
        }
        Ok(if filled?.is_some() { Waited::Ready } else { Waited::Ended })
    }

    /// Waits for the next frame: looks for some microseconds first, where that has lately paid off. The deadline is asked for only then.
    #[inline]
    pub fn wait(&mut self, road: &Road, deadline: impl Fn() -> Option<Instant>) -> Result<Got> {
        loop {
            if let Some(frame) = self.take(road)? {
                return Ok(Got::Frame(frame));
            }
            match self.more(road, &deadline)? {
                Waited::Ready => {}
                Waited::Nothing => return Ok(Got::Nothing),
                Waited::Ended => return Ok(Got::Ended),
            }
        }
    }
}

/// One end of a line, for whoever has it alone.
pub struct Line {
    road: Arc<Road>,
    incoming: Incoming,
    /// How it waits for room.
    spin: Spin,
    /// What the other side has not taken yet.
    outbox: Vec<u8>,
    /// Number of the last call.
    number: u64,
}

impl Line {
    /// Over this end; `side`: which side of its memory, if it has any.
    pub fn new(end: OwnedFd, side: Option<Side>) -> Result<Self> {
        let road = Arc::new(Road::new(end, side)?);
        Ok(Line { road, incoming: Incoming::new(), spin: Spin::new(), outbox: Vec::new(), number: 0 })
    }

    /// What carries it, to be shut down by somebody else.
    pub fn road(&self) -> &Arc<Road> {
        &self.road
    }

    /// The next call's number.
    pub fn next_number(&mut self) -> u64 {
        self.number += 1;
        self.number
    }

    /// Sends a frame. `false`: the deadline passed, and the line is of no use any more.
    #[inline]
    pub fn send(&mut self, mut bytes: &[u8], deadline: Option<Instant>) -> Result<bool> {
        while !bytes.is_empty() {
            match self.road.send(bytes)? {
                0 if !self.road.wait_writable(&mut self.spin, deadline)? => return Ok(false),
                count => bytes = &bytes[count..],
            }
        }
        Ok(true)
    }

    /// Sends a frame, or keeps what there is no room for, to be sent while the next one is awaited.
    pub fn post(&mut self, bytes: &[u8]) -> Result<()> {
        if self.outbox.is_empty() {
            let sent = self.road.send(bytes)?;
            self.outbox.extend_from_slice(&bytes[sent..]);
        } else {
            self.outbox.extend_from_slice(bytes);
        }
        Ok(())
    }

    /// Waits for the next frame, and sends meanwhile what was kept. Beyond `kept_max` bytes of that nothing is read.
    pub fn wait_sending(&mut self, kept_max: usize) -> Result<Got> {
        while !self.outbox.is_empty() {
            let readable = if self.outbox.len() > kept_max {
                self.road.wait_writable(&mut self.spin, None)?;
                false
            } else {
                if let Some(frame) = self.incoming.take(&self.road)? {
                    return Ok(Got::Frame(frame));
                }
                self.road.wait_either(&mut self.spin, None)?.0
            };
            let sent = self.road.send(&self.outbox)?;
            self.outbox.drain(..sent);
            if readable
                && let Road::Socket(socket) = &*self.road
                && self.incoming.fill(socket)?.is_none()
            {
                return Ok(Got::Ended);
            }
        }
        self.wait(|| None)
    }

    /// Waits for the next frame.
    #[inline]
    pub fn wait(&mut self, deadline: impl Fn() -> Option<Instant>) -> Result<Got> {
        self.incoming.wait(&self.road, deadline)
    }

    /// A frame's payload that is not needed any more: its memory is used again.
    #[inline]
    pub fn reuse(&mut self, payload: AlignedVec<16>) {
        self.incoming.reuse(payload);
    }

    /// Takes it apart: for many threads that share it.
    pub fn split(self) -> (Arc<Road>, Incoming) {
        (self.road, self.incoming)
    }
}

/// Lane of calls that are made ahead, and so are done though nobody may wait for them any more.
pub const AHEAD: u16 = 1;

/// The whole bytes of a frame, of which `bytes` has room for a head and then the payload.
pub fn seal(bytes: &mut [u8], code: u8, quiet: bool, number: u64) -> Result<()> {
    seal_on(bytes, code, quiet, 0, number)
}

/// The same on a lane.
pub fn seal_on(bytes: &mut [u8], code: u8, quiet: bool, lane: u16, number: u64) -> Result<()> {
    let len = bytes.len() - HEAD_BYTES;
    if len > REMOTE_FRAME_BYTES_MAX {
        let text = format!("a call or result of {len} bytes, the most is {REMOTE_FRAME_BYTES_MAX}: pass large values in containers");
        return Err(Error::new(ErrorKind::TooLarge, text));
    }
    let head = Head { len: len as u32, code, quiet, lane, number };
    bytes[..HEAD_BYTES].copy_from_slice(&head.to_bytes());
    Ok(())
}
