//! A line: frames between a client and a host. Today a pair of sockets; what a call is does not depend on it.

use commonhold_ipc::error::{Error, ErrorKind, Result};
use commonhold_ipc::limits::REMOTE_FRAME_BYTES_MAX;
use commonhold_ipc::socket::{Channel, Received, Spin};
use commonhold_ipc::sys::{wait_either, wait_readable, wait_writable};
use commonhold_ipc::wire::{HEAD_BYTES, Head, malformed};
use rkyv::util::AlignedVec;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Instant;

/// Bytes that are taken from the socket at a time.
const BUFFER_BYTES: usize = 16 << 10;

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

/// Puts frames together of what comes.
pub struct Incoming {
    spin: Spin,
    buffer: Box<[u8]>,
    start: usize,
    end: usize,
    head: Option<Head>,
    payload: AlignedVec<16>,
}

impl Incoming {
    /// Nothing has come yet.
    pub fn new() -> Self {
        let buffer = vec![0; BUFFER_BYTES].into();
        Incoming { spin: Spin::new(), buffer, start: 0, end: 0, head: None, payload: AlignedVec::new() }
    }

    /// The next whole frame of what has come.
    ///
    /// # Errors
    /// `Corrupt` if it is longer than any may be.
    pub fn take(&mut self) -> Result<Option<Frame>> {
        let head = match self.head {
            Some(head) => head,
            None => {
                let Some(head) = Head::parse(&self.buffer[self.start..self.end]) else {
                    // Room for the rest of a head.
                    self.buffer.copy_within(self.start..self.end, 0);
                    (self.start, self.end) = (0, self.end - self.start);
                    return Ok(None);
                };
                if head.len as usize > REMOTE_FRAME_BYTES_MAX {
                    return Err(malformed("call"));
                }
                self.start += HEAD_BYTES;
                self.head = Some(head);
                head
            }
        };
        // Memory comes with the bytes: what a head claims is only a claim.
        let here = (head.len as usize - self.payload.len()).min(self.end - self.start);
        self.payload.extend_from_slice(&self.buffer[self.start..self.start + here]);
        self.start += here;
        if self.payload.len() < head.len as usize {
            (self.start, self.end) = (0, 0);
            return Ok(None);
        }
        self.head = None;
        Ok(Some((head, std::mem::take(&mut self.payload))))
    }

    /// Takes what is there of the socket. `None`: its end; else whether there was anything.
    pub fn fill(&mut self, channel: &Channel) -> Result<Option<bool>> {
        fill(&mut self.buffer, &mut self.end, channel)
    }

    /// Waits for the next frame: looks for some microseconds first, where that has lately paid off.
    pub fn wait(&mut self, channel: &Channel, deadline: Option<Instant>) -> Result<Got> {
        loop {
            if let Some(frame) = self.take()? {
                return Ok(Got::Frame(frame));
            }
            let mut filled = Ok(Some(false));
            let Incoming { spin, buffer, end, .. } = self;
            let ready = spin.wait(|| {
                filled = fill(buffer, end, channel);
                !matches!(filled, Ok(Some(false)))
            });
            if !ready {
                if wait_readable(&[channel.as_fd()], deadline)? == 0 {
                    return Ok(Got::Nothing);
                }
                filled = self.fill(channel);
            }
            if filled?.is_none() {
                return Ok(Got::Ended);
            }
        }
    }
}

fn fill(buffer: &mut [u8], end: &mut usize, channel: &Channel) -> Result<Option<bool>> {
    match channel.receive(&mut buffer[*end..])? {
        Received::Bytes(count) => {
            *end += count;
            Ok(Some(true))
        }
        Received::Nothing => Ok(Some(false)),
        Received::Ended => Ok(None),
    }
}

/// One end of a line, for whoever has it alone.
pub struct Line {
    channel: Arc<Channel>,
    incoming: Incoming,
    /// What the other side has not taken yet.
    outbox: Vec<u8>,
    /// Number of the last call.
    number: u64,
}

impl Line {
    /// Over this end.
    pub fn new(end: OwnedFd) -> Result<Self> {
        Ok(Line { channel: Arc::new(Channel::from_fd(end)?), incoming: Incoming::new(), outbox: Vec::new(), number: 0 })
    }

    /// The socket, to be shut down by somebody else.
    pub fn channel(&self) -> &Arc<Channel> {
        &self.channel
    }

    /// The next call's number.
    pub fn next_number(&mut self) -> u64 {
        self.number += 1;
        self.number
    }

    /// Sends a frame. `false`: the deadline passed, and the line is of no use any more.
    pub fn send(&self, mut bytes: &[u8], deadline: Option<Instant>) -> Result<bool> {
        while !bytes.is_empty() {
            match self.channel.send(bytes)? {
                0 if !wait_writable(&self.channel, deadline)? => return Ok(false),
                count => bytes = &bytes[count..],
            }
        }
        Ok(true)
    }

    /// Sends a frame, or keeps what there is no room for, to be sent while the next one is awaited.
    pub fn post(&mut self, bytes: &[u8]) -> Result<()> {
        if self.outbox.is_empty() {
            let sent = self.channel.send(bytes)?;
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
                wait_writable(&self.channel, None)?;
                false
            } else {
                if let Some(frame) = self.incoming.take()? {
                    return Ok(Got::Frame(frame));
                }
                wait_either(&self.channel, None)?.0
            };
            let sent = self.channel.send(&self.outbox)?;
            self.outbox.drain(..sent);
            if readable && self.incoming.fill(&self.channel)?.is_none() {
                return Ok(Got::Ended);
            }
        }
        self.wait(None)
    }

    /// Waits for the next frame.
    pub fn wait(&mut self, deadline: Option<Instant>) -> Result<Got> {
        self.incoming.wait(&self.channel, deadline)
    }

    /// Takes it apart: for many threads that share it.
    pub fn split(self) -> (Arc<Channel>, Incoming) {
        (self.channel, self.incoming)
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
