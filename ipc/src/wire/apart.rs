//! A commit or series without its large values, which stand [`behind`](super::behind) it on a lane.

use super::behind::{PlaceBehind, VALUE_BYTES_MIN};
use super::commit::{Commit, Op, Values};
use super::{Payload, Reader, Source};

/// Appends the payload of a commit or series with the places of its large values in itself instead of these. `None`: there are none, or these are
/// not bytes of ours.
pub fn without_values(payload: &[u8], out: &mut Vec<u8>) -> Option<()> {
    let mut read = Reader::new(payload);
    let commit = Commit::parse(&mut read.clone())?;
    let (count, bytes) = (read.u32()?, read.u32()?);
    read.take(bytes as usize)?;
    let (start, mut run, mut any) = (out.len(), Vec::new(), false);
    let mut placed = |value: Payload<'_>| match value.source {
        Source::Inline(bytes) if bytes.len() >= VALUE_BYTES_MIN => {
            let at = bytes.as_ptr().addr() - payload.as_ptr().addr();
            let place = PlaceBehind::new(at, bytes.len());
            any |= place.is_some();
            place.map(Source::behind)
        }
        _ => None,
    };
    out.extend_from_slice(&[0; 8]);
    for op in commit.ops() {
        let mut op = op.ok()?;
        match &mut op {
            Op::Insert { value, .. } | Op::ListSet { value, .. } | Op::ValueSet { value, .. } => {
                value.source = placed(*value).unwrap_or(value.source);
            }
            Op::ListSplice { values: Values::Each(count, bytes), object, position, remove } => {
                run.clear();
                for value in Values::Each(*count, bytes).payloads() {
                    Payload { source: placed(value).unwrap_or(value.source), ..value }.write(&mut run);
                }
                Op::ListSplice { object: *object, position: *position, remove: *remove, values: Values::Each(*count, &run) }.write(out);
                continue;
            }
            _ => {}
        }
        op.write(out);
    }
    if !any {
        return None;
    }
    let bytes = (out.len() - start - 8) as u32;
    out[start..start + 4].copy_from_slice(&count.to_le_bytes());
    out[start + 4..start + 8].copy_from_slice(&bytes.to_le_bytes());
    out.extend_from_slice(read.take_rest());
    Some(())
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
    fn large_values_of_every_operation_have_their_places_and_nothing_else_changes() {
        let (large, larger, small) = (vec![1; VALUE_BYTES_MIN], vec![2; VALUE_BYTES_MIN + 5], vec![3; VALUE_BYTES_MIN - 1]);
        let ids = [9u64.to_le_bytes(), 10u64.to_le_bytes()].concat();
        let handles = Words::new(&ids).unwrap();
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
        // Found by what is in them: nothing else has such a run.
        let start = |bytes: &[u8], from: usize| from + whole[from..].windows(bytes.len()).position(|run| run == bytes).unwrap();
        let first = start(&large, 0);
        let second = start(&larger, first);
        let third = start(&large, second);
        let fourth = start(&large, third + large.len());
        let at = |at, bytes: &[u8]| Payload { source: Source::behind(PlaceBehind::new(at, bytes.len()).unwrap()), handles };
        let apart = operations([at(first, &large), at(second, &larger), at(third, &large), at(fourth, &large)], &mut |ops| {
            payload(ops, &conditions)
        });
        // What stands behind the conditions (of logic beside the data: its mark) stays there.
        for rest in [&b""[..], b"a mark"] {
            let mut out = b"before".to_vec();
            without_values(&[&whole, rest].concat(), &mut out).unwrap();
            assert_eq!(out, [b"before", &apart[..], rest].concat());
        }
        let none = payload(&[Op::ValueSet { object: 6, value: inline(&small) }], &conditions);
        assert_eq!(without_values(&none, &mut Vec::new()), None);
        assert_eq!(without_values(&whole[..whole.len() / 2], &mut Vec::new()), None);
    }
}
