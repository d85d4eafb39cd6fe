//! Handles whose objects somebody else holds for a while, so that the manager need not be told that this session does.

use super::Object;
use crate::session::SessionCore;
use commonhold_ipc::error::Result;
use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::Ordering;

thread_local! {
    /// Handles that are read now are lent.
    static LENT: RefCell<Option<Lent>> = const { RefCell::new(None) };
}

/// Handles whose objects somebody else holds until this is dropped, so that the manager need not be told of them. What is left of them then, it is.
pub struct Lent {
    session: Arc<SessionCore>,
    objects: Vec<Arc<Object>>,
}

impl Lent {
    /// The handles that `read` reads.
    pub fn by<R>(session: &Arc<SessionCore>, read: impl FnOnce() -> Result<R>) -> Result<(Lent, R)> {
        /// Also if it panics.
        struct End;
        impl Drop for End {
            fn drop(&mut self) {
                LENT.take();
            }
        }
        LENT.set(Some(Lent { session: session.clone(), objects: Vec::new() }));
        let end = End;
        let read = read()?;
        let lent = LENT.take().unwrap_or_else(|| Lent { session: session.clone(), objects: Vec::new() });
        drop(end);
        Ok((lent, read))
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        for object in self.objects.drain(..).filter(|object| Arc::strong_count(object) > 1) {
            // One that is gone stays so: whoever has the handle is told.
            let _ = object.be_counted(&self.session);
        }
    }
}

impl Object {
    /// One that is lent, if this thread reads what is.
    pub(super) fn lent(session: &Arc<SessionCore>, id: u64) -> Option<Arc<Self>> {
        LENT.with_borrow_mut(|lent| {
            let Some(Lent { session: lender, objects }) = lent else { return None };
            if !Arc::ptr_eq(lender, session) {
                return None;
            }
            let object = Object::bound(session, id);
            object.is_counted.store(false, Ordering::Relaxed);
            let object = Arc::new(object);
            objects.push(object.clone());
            Some(object)
        })
    }

    /// Sees that the manager counts this session as a holder.
    pub(super) fn be_counted(&self, session: &SessionCore) -> Result<()> {
        if !self.is_counted.load(Ordering::Relaxed) {
            session.hold(self.id)?;
            if self.is_counted.swap(true, Ordering::Relaxed) {
                // Another thread was quicker.
                session.let_go(self.id);
            }
        }
        Ok(())
    }
}
