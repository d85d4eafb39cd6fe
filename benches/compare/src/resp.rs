//! A client of Redis's protocol (RESP2), as much of it as the comparison needs: one connection, blocking, buffers kept between calls.
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use crate::Result;

/// How long a server may think before it counts as stuck.
const PATIENCE: Duration = Duration::from_secs(60);
/// Replies nest no deeper than this here (EXEC of commands with array replies).
const DEPTH_MAX: u32 = 4;
/// Larger than any reply of the comparison.
const BULK_BYTES_MAX: usize = 512 << 20;

/// What a server answered. The content of a bulk reply is passed to the caller's function instead of being kept.
#[derive(Debug, PartialEq, Eq)]
pub enum Reply {
    /// `+OK` and its like.
    Status,
    /// A number.
    Integer(i64),
    /// A string of bytes, already passed on.
    Bulk,
    /// Nothing there.
    Nil,
    /// So many replies, already passed on.
    Array(usize),
}

/// One connection.
pub struct Connection {
    reader: BufReader<UnixStream>,
    out: Vec<u8>,
    incoming: Incoming,
}

/// Buffers for what arrives. `bulk` only ever grows, so that a large value is not preceded by zeroing its room.
#[derive(Default)]
struct Incoming {
    line: Vec<u8>,
    bulk: Vec<u8>,
}

impl Connection {
    /// Connects to a server's unix socket.
    pub fn open(socket: &Path) -> Result<Self> {
        let stream = UnixStream::connect(socket).map_err(|error| format!("cannot connect to the server's socket: {error}"))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Connection { reader: BufReader::with_capacity(64 << 10, stream), out: Vec::new(), incoming: Incoming::default() })
    }

    /// Adds a command to what the next [`Connection::flush`] sends.
    pub fn queue(&mut self, words: &[&[u8]]) {
        encode(&mut self.out, words);
    }

    /// Sends what is queued.
    pub fn flush(&mut self) -> Result<()> {
        self.reader.get_mut().write_all(&self.out)?;
        self.out.clear();
        Ok(())
    }

    /// Sends one command and reads its reply; `each` sees every string of bytes in it.
    pub fn call(&mut self, words: &[&[u8]], each: impl FnMut(&[u8])) -> Result<Reply> {
        self.queue(words);
        self.flush()?;
        self.reply(each)
    }

    /// Reads one reply; `each` sees every string of bytes in it.
    pub fn reply(&mut self, mut each: impl FnMut(&[u8])) -> Result<Reply> {
        self.incoming.read_reply(&mut self.reader, &mut each, 0)
    }
}

fn encode(out: &mut Vec<u8>, words: &[&[u8]]) {
    // Writing to a Vec cannot fail.
    let _ = write!(out, "*{}\r\n", words.len());
    for word in words {
        let _ = write!(out, "${}\r\n", word.len());
        out.extend_from_slice(word);
        out.extend_from_slice(b"\r\n");
    }
}

impl Incoming {
    fn read_reply(&mut self, reader: &mut impl BufRead, each: &mut impl FnMut(&[u8]), depth: u32) -> Result<Reply> {
        self.line.clear();
        reader.read_until(b'\n', &mut self.line)?;
        let Some(line) = self.line.strip_suffix(b"\r\n") else {
            return Err("the server closed the connection".into());
        };
        let text = String::from_utf8_lossy(line.get(1..).unwrap_or_default());
        match line.first() {
            Some(b'+') => Ok(Reply::Status),
            Some(b'-') => Err(format!("the server says: {text}").into()),
            Some(b':') => Ok(Reply::Integer(text.parse()?)),
            Some(b'$' | b'*') if text == "-1" => Ok(Reply::Nil),
            Some(b'$') => {
                let bytes: usize = text.parse()?;
                self.read_bulk(reader, bytes)?;
                each(&self.bulk[..bytes]);
                Ok(Reply::Bulk)
            }
            Some(b'*') if depth < DEPTH_MAX => {
                let count: usize = text.parse()?;
                for _ in 0..count {
                    self.read_reply(reader, each, depth + 1)?;
                }
                Ok(Reply::Array(count))
            }
            _ => Err(format!("not a reply of Redis's protocol: {:?}", String::from_utf8_lossy(line)).into()),
        }
    }

    fn read_bulk(&mut self, reader: &mut impl BufRead, bytes: usize) -> Result<()> {
        if bytes > BULK_BYTES_MAX {
            return Err(format!("the server announces a string of {bytes} bytes").into());
        }
        let with_end = bytes + b"\r\n".len();
        if self.bulk.len() < with_end {
            self.bulk.resize(with_end, 0);
        }
        Ok(reader.read_exact(&mut self.bulk[..with_end])?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(mut bytes: &[u8]) -> Result<(Reply, Vec<Vec<u8>>)> {
        let mut strings = Vec::new();
        let reply = Incoming::default().read_reply(&mut bytes, &mut |string| strings.push(string.to_vec()), 0)?;
        Ok((reply, strings))
    }

    #[test]
    fn every_kind_of_reply_is_understood() {
        assert_eq!(parse(b"+OK\r\n").unwrap(), (Reply::Status, vec![]));
        assert_eq!(parse(b":-12\r\n").unwrap(), (Reply::Integer(-12), vec![]));
        assert_eq!(parse(b"$-1\r\n").unwrap(), (Reply::Nil, vec![]));
        assert_eq!(parse(b"$4\r\na\r\nb\r\n").unwrap(), (Reply::Bulk, vec![b"a\r\nb".to_vec()]));
        assert_eq!(parse(b"*2\r\n$1\r\nx\r\n*1\r\n$0\r\n\r\n").unwrap(), (Reply::Array(2), vec![b"x".to_vec(), vec![]]));
        assert!(parse(b"-ERR no\r\n").unwrap_err().to_string().contains("ERR no"));
    }

    #[test]
    fn broken_replies_are_errors() {
        for broken in [&b""[..], b"\r\n", b"$5\r\nab", b"?\r\n", b"$x\r\n", b"*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n", b"$99999999999\r\n"] {
            assert!(parse(broken).is_err(), "{broken:?}");
        }
    }

    #[test]
    fn commands_are_arrays_of_strings() {
        let mut out = Vec::new();
        encode(&mut out, &[b"GET", b"\x00\r\n"]);
        assert_eq!(out, b"*2\r\n$3\r\nGET\r\n$3\r\n\x00\r\n\r\n");
    }
}
