//! The system's own pipe: a pair of connected local sockets, through std's `UnixStream`.
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

use crate::Result;
use crate::partner::Partner;
use crate::rows::{DataSet, Row, SMALL};
use crate::system::System;
use crate::workload::{Plan, touch, value};

/// Has no state: each run makes its own pair.
pub struct UnixStreams;

impl System for UnixStreams {
    fn has(&self, row: Row) -> bool {
        row == Row::PipeRoundTrip
    }

    fn prepare(&mut self, _data: DataSet) -> Result<()> {
        Ok(())
    }

    fn run(&mut self, _row: Row, plan: Plan) -> Result<Vec<f64>> {
        let directory = tempfile::tempdir()?;
        let path = directory.path().join("socket");
        let listener = UnixListener::bind(&path)?;
        let _partner = Partner::start(&["unix_stream_echo".to_owned(), path.display().to_string()])?;
        let (mut ours, _) = listener.accept()?;
        let (sent, mut received) = (value(SMALL), [0; SMALL]);
        plan.time(|| {
            ours.write_all(&sent)?;
            ours.read_exact(&mut received)?;
            touch(&received);
            Ok(())
        })
    }
}

/// A partner's life: sends back what comes.
pub fn echo_for_ever(path: &Path, ready: impl FnOnce()) -> Result<()> {
    let mut theirs = UnixStream::connect(path)?;
    ready();
    let mut item = [0; SMALL];
    while theirs.read_exact(&mut item).is_ok() {
        theirs.write_all(&item)?;
    }
    Ok(())
}
