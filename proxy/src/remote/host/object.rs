//! An object in its host: the value, the door to it, and whether it is poisoned.

use super::super::Remote;
use super::calls::{Access, Incoming};
use super::panics::PanicReport;
use super::turns::{Door, Waits};
use crate::panics::{caught, shielded};
use commonhold_ipc::error::{Error, ErrorKind, Result};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};

/// An object whose methods can be called, whatever its type. The door has been passed.
#[doc(hidden)]
pub trait Served: Send + Sync {
    /// A method's name, and whether its caller must be alone.
    fn method(&self, interface: u64, method: u32) -> Option<(&'static str, bool)>;

    /// Runs a method.
    fn call(&self, interface: u64, method: u32, call: &mut Incoming<'_>) -> Result<()>;

    /// Drops the value.
    fn end(&self);
}

/// An object that lets one caller in at a time.
struct Exclusive<T>(Mutex<Option<T>>);

/// An object whose `&self` methods may run several at once.
struct Concurrent<T>(RwLock<Option<T>>);

/// Serves a value to one caller at a time.
#[doc(hidden)]
pub fn one_at_a_time<T: Remote>(value: T) -> Box<dyn Served> {
    Box::new(Exclusive(Mutex::new(Some(value))))
}

/// Serves a value to several callers of `&self` methods at once. A function, not a method: then the compiler says of a type that is not `Sync`
/// which part of it is to blame, and what to use instead.
#[doc(hidden)]
pub fn several_at_once<T: Remote + Sync>(value: T) -> Box<dyn Served> {
    Box::new(Concurrent(RwLock::new(Some(value))))
}

fn ended() -> Error {
    Error::new(ErrorKind::NotFound, "the object has been dropped: make a new one, and hold a handle or give it a name while others call it")
}

impl<T: Remote> Served for Exclusive<T> {
    fn method(&self, interface: u64, method: u32) -> Option<(&'static str, bool)> {
        T::method(interface, method).map(|(name, _)| (name, true))
    }

    fn call(&self, interface: u64, method: u32, call: &mut Incoming<'_>) -> Result<()> {
        let mut value = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        T::dispatch(Access::Alone(value.as_mut().ok_or_else(ended)?), interface, method, call)
    }

    fn end(&self) {
        let value = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        drop(value);
    }
}

impl<T: Remote + Sync> Served for Concurrent<T> {
    fn method(&self, interface: u64, method: u32) -> Option<(&'static str, bool)> {
        T::method(interface, method)
    }

    fn call(&self, interface: u64, method: u32, call: &mut Incoming<'_>) -> Result<()> {
        if let Some((_, true)) = T::method(interface, method) {
            let mut value = self.0.write().unwrap_or_else(PoisonError::into_inner);
            return T::dispatch(Access::Alone(value.as_mut().ok_or_else(ended)?), interface, method, call);
        }
        let value = self.0.read().unwrap_or_else(PoisonError::into_inner);
        T::dispatch(Access::Together(value.as_ref().ok_or_else(ended)?), interface, method, call)
    }

    fn end(&self) {
        let value = self.0.write().unwrap_or_else(PoisonError::into_inner).take();
        drop(value);
    }
}

/// An object's place in its host.
pub struct Slot {
    id: u64,
    /// The type's name.
    pub name: &'static str,
    served: Box<dyn Served>,
    door: Arc<Door>,
    /// What the method said that panicked.
    poison: OnceLock<String>,
}

impl Slot {
    /// A new object.
    pub fn new(id: u64, name: &'static str, served: Box<dyn Served>) -> Self {
        Slot { id, name, served, door: Arc::default(), poison: OnceLock::new() }
    }

    /// A method's name, and whether its caller must be alone.
    ///
    /// # Errors
    /// `WrongType` if the object has no such interface, or no such method.
    pub fn method(&self, interface: u64, method: u32) -> Result<(&'static str, bool)> {
        self.served.method(interface, method).ok_or_else(|| {
            let text = format!(
                "object {} is a {}, which has no method {method} of the interface {interface:016x}: was the caller built with other methods?",
                self.id, self.name
            );
            Error::new(ErrorKind::WrongType, text)
        })
    }

    /// Its door.
    pub fn door(&self) -> &Arc<Door> {
        &self.door
    }

    /// Fails if a method has panicked.
    pub fn check(&self) -> Result<()> {
        match self.poison.get() {
            None => Ok(()),
            Some(message) => {
                let text = format!("object {} ({}) is poisoned: {message}; make a new one in its place", self.id, self.name);
                Err(Error::new(ErrorKind::Panicked, text))
            }
        }
    }

    /// Runs a method; a panic poisons the object.
    pub fn call(&self, interface: u64, method: (u32, &str), call: &mut Incoming<'_>) -> Result<Result<()>, PanicReport> {
        let body = || self.served.call(interface, method.0, call);
        caught(body, |payload| PanicReport::of(payload, &format!("{}::{}", self.name, method.1))).inspect_err(|report| {
            let _ = self.poison.set(report.message.clone());
        })
    }

    /// Drops the value, when nobody is in the object any more.
    pub fn end(&self, waits: &Waits) {
        // No chain has this number: nobody can be waiting for it.
        if let Ok(_turn) = self.door.enter(waits, u64::MAX ^ self.id, true) {
            // A `Drop` that panics has said so on standard error.
            shielded(|| self.served.end());
        }
    }
}
