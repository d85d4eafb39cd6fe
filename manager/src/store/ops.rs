//! The operations of a request, one after the other: each is handed to what does it.

use super::dicts::Pair;
use super::{Outcomes, Rejected, Store};
use crate::upload::Uploads;
use commonhold_ipc::catalog::Kind;
use commonhold_ipc::error::Result;
use commonhold_ipc::index::Fetch;
use commonhold_ipc::points;
use commonhold_ipc::wire::commit::{Commit, Op};
use commonhold_ipc::wire::reply::Outcome;

/// Operations of one request whose memory is fetched at a time, before they are done.
const FETCH_AHEAD: usize = 32;

impl Store {
    /// Does the operations one after the other. Of a row of them, the memory that the next ones will look at is fetched ahead:
    /// the lookups of random keys would otherwise wait for it one by one.
    pub(super) fn do_ops(&mut self, commit: &Commit<'_>, uploads: &mut Uploads, outcomes: &mut Outcomes<'_>) -> Result<(), Rejected> {
        let mut ops = commit.ops();
        let mut next = Vec::with_capacity(FETCH_AHEAD.min(commit.op_count() as usize));
        loop {
            for op in ops.by_ref().take(FETCH_AHEAD) {
                let op = op?;
                let hash = self.hash_of(&op);
                let fetch = self.fetch(&op, hash);
                next.push((op, hash, fetch));
            }
            if next.is_empty() {
                return Ok(());
            }
            next.iter().filter_map(|(.., fetch)| *fetch).for_each(|fetch: Fetch| fetch.entry(self.memory.reader()));
            for (op, hash, _) in next.drain(..) {
                points::manager("call: between two operations");
                self.do_op(&op, hash, uploads, outcomes)?;
            }
        }
    }

    /// The hash of the key that an operation names.
    #[inline]
    pub(super) fn hash_of(&self, op: &Op<'_>) -> u64 {
        match op {
            Op::Insert { key, .. } | Op::Remove { key, .. } | Op::Add { key, .. } => self.hash.of(key),
            _ => 0,
        }
    }

    #[inline]
    fn fetch(&self, op: &Op<'_>, hash: u64) -> Option<Fetch> {
        let (Op::Insert { object, .. } | Op::Remove { object, .. } | Op::Add { object, .. }) = op else { return None };
        let record = &self.objects.get(*object)?.record;
        if !matches!(record.kind, Kind::Dict | Kind::Namespace) {
            return None;
        }
        Fetch::bucket(self.memory.reader(), record.root, hash)
    }

    #[inline(always)]
    pub(super) fn do_op(&mut self, op: &Op<'_>, hash: u64, uploads: &mut Uploads, outcomes: &mut Outcomes<'_>) -> Result<()> {
        if let Op::Insert { object, key, value, only_if_absent, lend } = *op {
            return self.insert(object, &Pair { key, hash, value }, only_if_absent, lend, uploads, outcomes);
        }
        let outcome = self.do_other_op(op, hash, uploads)?;
        if let Some(outcomes) = outcomes {
            outcomes.push(outcome);
        }
        Ok(())
    }

    fn do_other_op(&mut self, op: &Op<'_>, hash: u64, uploads: &mut Uploads) -> Result<Outcome> {
        self.work.spend(1)?;
        match *op {
            Op::Insert { .. } => unreachable!("done by `do_op`"),
            Op::Remove { object, key, lend } => self.remove(object, key, hash, lend),
            Op::Add { object, key, number, delta } => self.add(object, key, hash, number, delta),
            Op::Clear { object } => self.clear(object),
            Op::ListSet { object, position, value, lend } => self.list_set(object, position, value, lend, uploads),
            Op::ListRemove { object, position, lend } => self.list_remove(object, position, lend),
            Op::ListSplice { object, position, remove, values } => self.list_splice(object, position, remove, values, uploads),
            Op::ListSwap { object, a, b } => self.list_swap(object, a, b),
            Op::ListReverse { object } => self.list_reverse(object),
            Op::ListPermute { object, from } => self.list_permute(object, from),
            Op::ValueSet { object, value } => self.value_set(object, value, uploads),
            Op::CounterAdd { object, delta } => self.counter_add(object, delta),
        }
    }
}
