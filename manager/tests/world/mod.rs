//! A store over a real sealed memory file, as its owner drives it, and the arena as a client maps it.
#![allow(dead_code)] // each test program uses a part

use commonhold_ipc::arena;
use commonhold_ipc::catalog::Kind;
use commonhold_ipc::error::Error;
use commonhold_ipc::index::KeyHash;
use commonhold_ipc::map::{ArenaReader, ArenaWriter};
use commonhold_ipc::pin::{PAGE_BYTES, PinScan, PinTable, Pinned};
use commonhold_ipc::sys::{memfd_sealed, reopen_read_only};
use commonhold_ipc::wire::commit::{Commit, CommitWriter, Op};
use commonhold_ipc::wire::reply::Outcome;
use commonhold_ipc::wire::{NewObject, Payload, Reader, Source, Words};
use commonhold_manager::store::{Rejected, Store};
use commonhold_manager::upload::Uploads;
use std::collections::HashSet;
use std::sync::Arc;

/// The two sides.
pub struct World {
    pub store: Store,
    pub reader: ArenaReader,
    pub hash: KeyHash,
    pub table: Arc<PinTable>,
    /// Whether to overwrite what reclaiming frees: whoever still reads it shall notice.
    pub spoil_freed: bool,
    scan: PinScan,
}

impl World {
    pub fn new(arena_bytes: u64, budget_bytes: u64, mask: u64) -> World {
        let file = memfd_sealed("store under test", arena_bytes).unwrap();
        let reader = ArenaReader::map(&reopen_read_only(&file).unwrap(), arena_bytes).unwrap();
        let store = Store::new(Arc::new(ArenaWriter::map(file, arena_bytes).unwrap()), budget_bytes, 1, 0x5eed, mask);
        let page = memfd_sealed("session page under test", PAGE_BYTES).unwrap();
        let (table, scan) = (PinTable::new(&page, reader.clone()).unwrap(), PinScan::map(&page).unwrap());
        World { hash: arena::key_hash(&reader), store, reader, table, spoil_freed: false, scan }
    }

    pub fn create(&mut self, kind: Kind, element_bytes: u32, value_align: u8) -> u64 {
        self.store
            .create(&NewObject {
                kind: kind as u8,
                value_align,
                element_bytes,
                fingerprint: 7,
                text: "text of a type",
                parameters: Words::default(),
            })
            .unwrap()
    }

    /// Applies operations as one request without uploads.
    pub fn apply(&mut self, ops: &[Op<'_>]) -> Result<Vec<Outcome>, Rejected> {
        let mut writer = CommitWriter::default();
        ops.iter().for_each(|op| writer.op(op));
        self.apply_with(&writer, &mut Uploads::default())
    }

    pub fn apply_with(&mut self, writer: &CommitWriter, uploads: &mut Uploads) -> Result<Vec<Outcome>, Rejected> {
        let mut bytes = Vec::new();
        writer.write(&mut bytes);
        let commit = Commit::parse(&mut Reader::new(&bytes)).expect("the writer writes what the parser reads");
        let mut outcomes = Vec::new();
        self.store.apply(&commit, uploads, Some(&mut outcomes)).map(|()| outcomes)
    }

    /// Frees what neither a pin of the session nor one of these holds.
    pub fn reclaim(&mut self, more: impl Iterator<Item = u64>) {
        let mut pins = self.pins(more);
        let blocks = |store: &mut Store| store.memory_mut().all_blocks().map(|(offset, size, _)| (offset, size)).collect::<HashSet<_>>();
        let before = if self.spoil_freed { blocks(&mut self.store) } else { HashSet::new() };
        self.store.reclaim(&mut pins);
        if self.spoil_freed {
            let after = blocks(&mut self.store);
            let arena = self.store.memory_mut().arena();
            before.difference(&after).for_each(|(offset, size)| arena.copy_in(*offset, &vec![0xd7; *size as usize]));
        }
    }

    /// Sets the same aside, for the next operations to write over.
    pub fn reclaim_aside(&mut self, more: impl Iterator<Item = u64>) {
        let mut pins = self.pins(more);
        self.store.reclaim_aside(&mut pins);
    }

    fn pins(&mut self, more: impl Iterator<Item = u64>) -> Vec<Pinned> {
        let mut pins: Vec<Pinned> = more.map(Pinned::At).collect();
        std::sync::atomic::fence(std::sync::atomic::Ordering::SeqCst);
        self.scan.scan(self.store.version(), |pin| pins.push(pin));
        pins
    }

    /// Rests until nothing is left to do, circles included.
    pub fn settle(&mut self) {
        loop {
            while self.store.rest() {}
            if !self.store.may_have_circles() {
                return;
            }
            self.store.collect_circles();
        }
    }

    pub fn allocated_bytes(&mut self) -> u64 {
        self.store.memory_mut().usage().allocated_bytes
    }

    #[track_caller]
    pub fn audit(&mut self) {
        // What is set aside is nobody's.
        self.store.memory_mut().release_all();
        if let Err(wrong) = self.store.audit(std::iter::empty()) {
            panic!("audit: {wrong}");
        }
    }
}

/// The error of a request that failed.
#[track_caller]
pub fn failed(done: Result<Vec<Outcome>, Rejected>) -> Error {
    match done {
        Err(Rejected::Failed(error)) => error,
        Err(rejected) => panic!("expected a failure, not {rejected:?}"),
        Ok(outcomes) => panic!("expected a failure, not {} outcomes", outcomes.len()),
    }
}

/// Handles as they lie in a payload.
pub fn handle_bytes(handles: &[u64]) -> Vec<u8> {
    handles.iter().flat_map(|handle| handle.to_le_bytes()).collect()
}

/// A value with handles, from [`handle_bytes`].
pub fn payload<'a>(bytes: &'a [u8], handles: &'a [u8]) -> Payload<'a> {
    Payload { source: Source::Inline(bytes), handles: Words::new(handles).unwrap() }
}

/// An insertion whose old value is not wanted.
pub fn insert<'a>(object: u64, key: &'a [u8], value: Payload<'a>) -> Op<'a> {
    Op::Insert { object, key, value, only_if_absent: false, lend: false }
}

/// How many cases to run: `COMMONHOLD_CASES`, or this many.
pub fn cases(default: u32) -> u32 {
    std::env::var("COMMONHOLD_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(default)
}
