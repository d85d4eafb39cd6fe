//! Operations on single values and counters.

use super::Store;
use crate::upload::Uploads;
use commonhold_ipc::catalog::Kind;
use commonhold_ipc::error::{Error, ErrorKind, Result};
use commonhold_ipc::wire::Payload;
use commonhold_ipc::wire::reply::Outcome;

impl Store {
    pub(crate) fn value_set(&mut self, id: u64, value: Payload<'_>, uploads: &mut Uploads) -> Result<Outcome> {
        let old = self.object(id, &[Kind::Value])?.record.root;
        let block = self.element_block(id, &value, uploads)?;
        let len = commonhold_ipc::block::element_place(self.memory.reader(), block).len;
        if old != 0 {
            self.retire_element(id, old)?;
        }
        let record = &mut self.object(id, &[Kind::Value])?.record;
        (record.root, record.len) = (block, len);
        self.touch(id);
        Ok(Outcome::Something)
    }

    pub(crate) fn counter_add(&mut self, id: u64, delta: i64) -> Result<Outcome> {
        self.memory.reserve(0)?;
        let record = &mut self.object(id, &[Kind::Counter])?.record;
        let sum = (record.root as i64).checked_add(delta).ok_or_else(|| {
            let text = format!("adding {delta} to a counter at {} is beyond what 64 bits hold: nothing was changed", record.root as i64);
            Error::new(ErrorKind::OutOfRange, text)
        })?;
        record.root = sum as u64;
        self.touch(id);
        Ok(Outcome::Number(sum as u64))
    }
}
