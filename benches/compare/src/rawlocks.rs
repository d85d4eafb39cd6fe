//! Locks of others in a mapped file: `raw_sync`'s mutex and events, and a robust process-shared mutex of the C library.
//!
//! raw_sync is measured against, not built on: its mutex is not robust (who dies with it keeps it), and its time-outs fail. The C
//! library's reports a death, as ours does, but lies wherever the user puts it, with a layout that is the library's own affair.
//!
//! `unsafe_code` is allowed here for mapping a file and for calling what works on raw addresses.
#![allow(unsafe_code)]
use std::cell::UnsafeCell;
use std::fs::File;
use std::path::{Path, PathBuf};

use raw_sync::Timeout;
use raw_sync::events::{Event, EventImpl, EventInit, EventState};
use raw_sync::locks::{LockImpl, LockInit, Mutex};
use rustix::mm::{MapFlags, ProtFlags, mmap};
use tempfile::TempDir;

use crate::Result;
use crate::partner::Partner;
use crate::rows::{DataSet, Row};
use crate::system::System;
use crate::workload::Plan;

/// Bytes of the file.
const BYTES: usize = 4096;
/// Where the second event lies.
const SECOND: usize = 1024;

/// Maps a file for as long as this process lives.
fn map(path: &Path) -> Result<*mut u8> {
    let file = File::options().read(true).write(true).open(path)?;
    // SAFETY: a new mapping at a place of the kernel's choice; the file has so many bytes and nobody cuts it.
    let place = unsafe { mmap(std::ptr::null_mut(), BYTES, ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED, &file, 0)? };
    Ok(place.cast())
}

/// A lock that two processes have.
pub trait RawLock {
    /// Takes it and gives it back.
    fn pass(&self) -> Result<()>;
}

struct RawSyncLock(Box<dyn LockImpl>);

impl RawLock for RawSyncLock {
    fn pass(&self) -> Result<()> {
        drop(self.0.lock().map_err(|error| error.to_string())?);
        Ok(())
    }
}

struct PthreadLock(*mut libc::pthread_mutex_t);

impl PthreadLock {
    fn make(place: *mut u8) -> Self {
        let attributes = UnsafeCell::new(std::mem::MaybeUninit::<libc::pthread_mutexattr_t>::uninit());
        let attributes = attributes.get().cast();
        // SAFETY: the attributes are initialised before they are used; the mutex's place is mapped for ever, zero, and at a page's
        // beginning, and nobody uses it before this returns.
        unsafe {
            libc::pthread_mutexattr_init(attributes);
            libc::pthread_mutexattr_setpshared(attributes, libc::PTHREAD_PROCESS_SHARED);
            libc::pthread_mutexattr_setrobust(attributes, libc::PTHREAD_MUTEX_ROBUST);
            libc::pthread_mutex_init(place.cast(), attributes);
            libc::pthread_mutexattr_destroy(attributes);
        }
        PthreadLock(place.cast())
    }
}

impl RawLock for PthreadLock {
    fn pass(&self) -> Result<()> {
        // SAFETY: an initialised mutex in a mapping that is there for ever; given back only if it was taken.
        let code = unsafe {
            match libc::pthread_mutex_lock(self.0) {
                0 => libc::pthread_mutex_unlock(self.0),
                code => code,
            }
        };
        if code == 0 { Ok(()) } else { Err(format!("the mutex says {code}").into()) }
    }
}

/// An event of raw_sync's.
pub struct RawEvent(Box<dyn EventImpl>);

impl RawEvent {
    /// Waits, and clears it.
    pub fn wait(&self) -> Result<()> {
        Ok(self.0.wait(Timeout::Infinite).map_err(|error| error.to_string())?)
    }

    /// Sets it.
    pub fn set(&self) -> Result<()> {
        Ok(self.0.set(EventState::Signaled).map_err(|error| error.to_string())?)
    }
}

/// The lock that another process has made.
pub fn existing(kind: &str, file: &Path) -> Result<Box<dyn RawLock>> {
    let place = map(file)?;
    if kind == "pthread" {
        return Ok(Box::new(PthreadLock(place.cast())));
    }
    // SAFETY: the other process has made one there, and the mapping is there for ever.
    let (lock, _) = unsafe { Mutex::from_existing(place, place.add(SECOND)) }.map_err(|error| error.to_string())?;
    Ok(Box::new(RawSyncLock(lock)))
}

/// The events that another process has made.
pub fn existing_events(file: &Path) -> Result<(RawEvent, RawEvent)> {
    let place = map(file)?;
    // SAFETY: as in `existing`.
    let event = |at: usize| unsafe { Event::from_existing(place.add(at)) }.map_err(|error| error.to_string());
    Ok((RawEvent(event(0)?.0), RawEvent(event(SECOND)?.0)))
}

/// One of the two systems.
pub struct RawLocks {
    kind: &'static str,
    directory: TempDir,
}

impl RawLocks {
    /// `raw_sync` or `pthread`.
    pub fn new(kind: &'static str) -> Result<Self> {
        Ok(RawLocks { kind, directory: tempfile::tempdir_in(if Path::new("/dev/shm").is_dir() { "/dev/shm" } else { "/tmp" })? })
    }

    fn file(&self, name: &str) -> Result<(PathBuf, *mut u8)> {
        let path = self.directory.path().join(name);
        File::create(&path)?.set_len(BYTES as u64)?;
        let place = map(&path)?;
        Ok((path, place))
    }

    fn lock(&self) -> Result<(PathBuf, Box<dyn RawLock>)> {
        let (path, place) = self.file("lock")?;
        if self.kind == "pthread" {
            return Ok((path, Box::new(PthreadLock::make(place))));
        }
        // SAFETY: the mapping is there for ever, and nobody uses it yet.
        let (lock, _) = unsafe { Mutex::new(place, place.add(SECOND)) }.map_err(|error| error.to_string())?;
        Ok((path, Box::new(RawSyncLock(lock))))
    }
}

impl System for RawLocks {
    fn has(&self, row: Row) -> bool {
        match row {
            Row::LockUncontended | Row::LockContended => true,
            Row::EventWake => self.kind == "raw_sync",
            _ => false,
        }
    }

    fn prepare(&mut self, _data: DataSet) -> Result<()> {
        Ok(())
    }

    fn run(&mut self, row: Row, plan: Plan) -> Result<Vec<f64>> {
        if row == Row::EventWake {
            let (path, place) = self.file("events")?;
            // SAFETY: the mapping is there for ever, and nobody uses it yet.
            let event = |at: usize| unsafe { Event::new(place.add(at), true) }.map_err(|error| error.to_string());
            let (ping, pong) = (RawEvent(event(0)?.0), RawEvent(event(SECOND)?.0));
            let _partner = Partner::start(&["raw_events".to_owned(), path.display().to_string()])?;
            return plan.time(|| {
                ping.set()?;
                pong.wait()
            });
        }
        let (path, lock) = self.lock()?;
        let _partner = match row {
            Row::LockContended => Some(Partner::start(&["raw_lock".to_owned(), self.kind.to_owned(), path.display().to_string()])?),
            _ => None,
        };
        plan.time(|| lock.pass())
    }
}
