//! Work on our dicts that commonhold's rows have in common with its clients, partners and `compare scale`.
use ::commonhold::{Dict, Manager, Transaction};

use crate::Result;
use crate::rows::SMALL;
use crate::workload::{Indices, Plan, key, touch, value};

/// A small value.
pub type Small = [u8; SMALL];

/// Entries in one batch while a dict is filled.
const FILL_BATCH: usize = 10_000;
/// A small value to write.
pub fn small() -> Result<Small> {
    Ok(value(SMALL).as_slice().try_into()?)
}

/// Bytes of memory behind a manager's arena: what the kernel has given it.
pub fn backed_bytes(manager: &Manager) -> Result<u64> {
    Ok(manager.stats()?.backed_bytes)
}

/// Bytes of a manager's arena that hold something: live blocks with their rounding, no free space.
pub fn live_bytes(manager: &Manager) -> Result<u64> {
    Ok(manager.stats()?.live_bytes)
}

/// Inserts `count` entries of small values, in random order and in batches.
pub fn fill_small(manager: &Manager, dict: &Dict<u64, Small>, count: u64) -> Result<()> {
    let small = small()?;
    for chunk in Indices::shuffled(count).chunks(FILL_BATCH) {
        manager.batch(|batch| {
            for index in chunk {
                batch.insert(dict, key(*index), small)?;
            }
            Ok(())
        })?;
    }
    Ok(())
}

/// Reads values by random keys below `count`.
pub fn get_small(dict: &Dict<u64, Small>, count: u64, plan: Plan) -> Result<Vec<f64>> {
    let mut indices = Indices::below(count);
    plan.time(|| {
        let found = dict.get(indices.next_key())?.ok_or("a key is not there")?;
        touch(&found[..]);
        Ok(())
    })
}

/// Overwrites values by random keys below `count`, one commit each.
pub fn set_small(dict: &Dict<u64, Small>, count: u64, plan: Plan) -> Result<Vec<f64>> {
    let small = small()?;
    let mut indices = Indices::below(count);
    plan.time(|| {
        dict.insert(indices.next_key(), small)?;
        Ok(())
    })
}

fn increment(tx: &Transaction<'_>, dict: Dict<u64, u64>) -> ::commonhold::Result<u64> {
    let next = tx.get(&dict, 0)?.map_or(0, |number| *number) + 1;
    tx.insert(&dict, 0, next)?;
    Ok(next)
}

/// Makes a dict's number greater by logic beside the data.
pub fn update_by_run(dict: &Dict<u64, u64>) -> ::commonhold::Result<u64> {
    dict.session()?.run(increment, dict)
}

/// The same by a transaction of this process.
pub fn update_by_transaction(dict: &Dict<u64, u64>) -> ::commonhold::Result<u64> {
    dict.session()?.transaction(|tx| increment(tx, dict.clone()))
}
