//! The catalog, written: records by slot, with path copying. The layout is `ipc::catalog`'s.

use crate::memory::Memory;
use commonhold_ipc::catalog::{FAN_OUT, LEAF_RECORDS, NODE_BYTES, RECORD_BYTES, Record, Root, slot_of, slots_of_height};
use commonhold_ipc::error::Result;

/// Most levels of a catalog, its leaf's included: 28 bits of slot, 3 in the leaf, 6 a level.
const LEVELS_MAX: usize = 6;

fn new_node(memory: &mut Memory) -> Result<u64> {
    let node = memory.allocate(NODE_BYTES)?;
    memory.arena().zero(node, NODE_BYTES);
    Ok(node)
}

fn own(memory: &mut Memory, node: u64) -> Result<u64> {
    if node == 0 { new_node(memory) } else { memory.writable(node, NODE_BYTES) }
}

fn child_at(slot: u64, level: u32) -> u64 {
    ((slot >> (3 + 6 * (level - 1))) & (FAN_OUT - 1)) * 8
}

/// The nodes from the catalog's root down to a slot's leaf, all made ours; levels that are missing are made.
fn own_path(memory: &mut Memory, root: &mut Root, slot: u64) -> Result<[u64; LEVELS_MAX]> {
    if root.catalog == 0 {
        root.height = 0;
    }
    while slot >= slots_of_height(root.height) {
        if root.catalog != 0 {
            let above = new_node(memory)?;
            memory.arena().store(above, root.catalog);
            root.catalog = above;
        }
        root.height += 1;
    }
    root.catalog = own(memory, root.catalog)?;
    let mut path = [0; LEVELS_MAX];
    path[root.height as usize] = root.catalog;
    for level in (1..=root.height).rev() {
        let at = path[level as usize] + child_at(slot, level);
        let child = own(memory, memory.reader().word(at))?;
        memory.arena().store(at, child);
        path[level as usize - 1] = child;
    }
    Ok(path)
}

/// Writes an object's record.
pub fn put(memory: &mut Memory, root: &mut Root, record: &Record) -> Result<()> {
    let slot = slot_of(record.id);
    let path = own_path(memory, root, slot)?;
    let at = path[0] + (slot % LEAF_RECORDS) * RECORD_BYTES;
    memory.arena().store_words(at, record.words());
    Ok(())
}

/// Takes an object's record out, and the nodes that have nothing left.
pub fn remove(memory: &mut Memory, root: &mut Root, id: u64) -> Result<()> {
    let slot = slot_of(id);
    let path = own_path(memory, root, slot)?;
    let at = path[0] + (slot % LEAF_RECORDS) * RECORD_BYTES;
    memory.arena().zero(at, RECORD_BYTES);
    let ids = |memory: &Memory| (0..LEAF_RECORDS).any(|i| memory.reader().word(path[0] + i * RECORD_BYTES) != 0);
    if ids(memory) {
        return Ok(());
    }
    memory.retire(path[0]);
    for level in 1..=root.height {
        let node = path[level as usize];
        memory.arena().store(node + child_at(slot, level), 0);
        if (0..FAN_OUT).any(|i| memory.reader().word(node + i * 8) != 0) {
            return Ok(());
        }
        memory.retire(node);
    }
    (root.catalog, root.height) = (0, 0);
    Ok(())
}
