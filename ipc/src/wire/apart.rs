//! Setting the large values of a commit or series apart from its operations, to stand [`behind`](super::behind) it on a lane.

use super::behind::{PlaceBehind, VALUE_BYTES_MIN};
use super::buffers::Out;
use super::commit::{Commit, Op, Values};
use super::{Payload, Reader, Source};

/// Where values that are set apart begin, from the first one on: at multiples of this, a page, so that all begin where the first one does within theirs
/// (in the room there is a place that is good, see `proxy::lane`).
const STEP_BYTES: usize = 4096;

/// A value that is set apart, and where it begins, from the first one on.
pub type Apart<'a> = (u64, &'a [u8]);

/// Sets the large values of a commit or series apart. `out`, which is empty, becomes its payload as it goes by a lane; returned are the values, in
/// their order. `None`: there are none, or these are not bytes of ours.
pub fn set_apart<'a>(payload: &'a [u8], out: &mut Vec<u8>) -> Option<Vec<Apart<'a>>> {
    let mut read = Reader::new(payload);
    let commit = Commit::parse(&mut read.clone())?;
    let (count, bytes) = (read.u32()?, read.u32()?);
    read.take(bytes as usize)?;
    let (mut values, mut end, mut run) = (Vec::new(), 0, Vec::new());
    let mut apart = |value: Payload<'a>| match value.source {
        Source::Inline(bytes) if bytes.len() >= VALUE_BYTES_MIN => {
            let place = PlaceBehind::new(end, bytes.len())?;
            end = (end + bytes.len()).next_multiple_of(STEP_BYTES);
            values.push((place.start(), bytes));
            Some(Payload { source: Source::Behind(place), ..value })
        }
        _ => Some(value),
    };
    out.extend_from_slice(&[0; 8]);
    for op in commit.ops() {
        let mut op = op.ok()?;
        match &mut op {
            Op::Insert { value, .. } | Op::ListSet { value, .. } | Op::ValueSet { value, .. } => *value = apart(*value)?,
            Op::ListSplice { values: Values::Each(..), .. } => {
                splice_apart(&op, &mut run, &mut apart)?.write(out);
                continue;
            }
            _ => {}
        }
        op.write(out);
    }
    if values.is_empty() {
        return None;
    }
    let bytes = (out.len() - 8) as u32;
    out[..4].copy_from_slice(&count.to_le_bytes());
    out[4..8].copy_from_slice(&bytes.to_le_bytes());
    out.put(read.take_rest());
    Some(values)
}

/// A splice with its payloads as `apart` has them, written into `run`.
fn splice_apart<'a, 'r>(op: &Op<'a>, run: &'r mut Vec<u8>, apart: &mut impl FnMut(Payload<'a>) -> Option<Payload<'a>>) -> Option<Op<'r>> {
    let Op::ListSplice { object, position, remove, values: Values::Each(count, bytes) } = *op else { return None };
    run.clear();
    for value in Values::Each(count, bytes).payloads() {
        apart(value)?.write(run);
    }
    Some(Op::ListSplice { object, position, remove, values: Values::Each(count, run) })
}

#[cfg(test)]
mod tests {
    use super::super::Words;
    use super::super::commit::{CommitWriter, Condition};
    use super::*;

    /// The payload of a commit of these operations and conditions.
    fn payload(ops: &[Op<'_>], conditions: &[Condition<'_>]) -> Vec<u8> {
        let mut commit = CommitWriter::default();
        ops.iter().for_each(|op| commit.op(op));
        conditions.iter().for_each(|condition| commit.condition(condition));
        let mut bytes = Vec::new();
        commit.write(&mut bytes);
        bytes
    }

    #[test]
    fn large_values_of_every_operation_are_set_apart_and_nothing_else_changes() {
        let (large, larger, small) = (vec![1; VALUE_BYTES_MIN], vec![2; VALUE_BYTES_MIN + 5], vec![3; VALUE_BYTES_MIN - 1]);
        let ids = [9u64.to_le_bytes(), 10u64.to_le_bytes()].concat();
        let handles = Words::new(&ids).unwrap();
        let behind = |at, len| Payload { source: Source::Behind(PlaceBehind::new(at, len).unwrap()), handles };
        let (one, two, three) = (VALUE_BYTES_MIN, 2 * VALUE_BYTES_MIN + STEP_BYTES, 3 * VALUE_BYTES_MIN + STEP_BYTES);
        let operations = |values: [Payload<'_>; 4], run: &mut dyn FnMut(&[Op<'_>]) -> Vec<u8>| {
            let mut each = Vec::new();
            [Payload::inline(&small), values[1], Payload { source: Source::Upload(77), handles: Words::new(&[]).unwrap() }, values[2]]
                .iter()
                .for_each(|value| value.write(&mut each));
            run(&[
                Op::Insert { object: 1, key: b"key", value: values[0], only_if_absent: true, lend: true },
                Op::Insert { object: 1, key: b"other", value: Payload::inline(&small), only_if_absent: false, lend: false },
                Op::ListSplice { object: 2, position: 3, remove: 4, values: Values::Each(4, &each) },
                Op::ListSplice { object: 2, position: 3, remove: 4, values: Values::Packed(&larger) },
                Op::CounterAdd { object: 5, delta: -6 },
                Op::ListSet { object: 2, position: 8, value: values[3], lend: true },
                Op::ValueSet { object: 6, value: Payload::inline(&[]) },
            ])
        };
        let conditions = [Condition::LenIs { object: 1, len: 7 }];
        let inline = |bytes| Payload { source: Source::Inline(bytes), handles };
        let whole = operations([inline(&large), inline(&larger), inline(&large), inline(&large)], &mut |ops| payload(ops, &conditions));
        let apart = operations(
            [behind(0, large.len()), behind(one, larger.len()), behind(two, large.len()), behind(three, large.len())],
            &mut |ops| payload(ops, &conditions),
        );
        // What stands behind the conditions (of logic beside the data: its mark) stays there.
        for rest in [&b""[..], b"a mark"] {
            let mut out = Vec::new();
            let sent = [&whole, rest].concat();
            let values = [(0, &large[..]), (one as u64, &larger), (two as u64, &large), (three as u64, &large)];
            assert_eq!(set_apart(&sent, &mut out).unwrap(), values);
            assert_eq!(out, [&apart, rest].concat());
        }
        let none = payload(&[Op::ValueSet { object: 6, value: inline(&small) }], &conditions);
        assert_eq!(set_apart(&none, &mut Vec::new()), None);
        assert_eq!(set_apart(&whole[..whole.len() / 2], &mut Vec::new()), None);
    }
}
