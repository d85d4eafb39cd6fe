//! What a store should be, in the collections of std; and operations on both.
#![allow(dead_code)] // each test program uses a part

use crate::world::{World, handle_bytes, payload};
use commonhold_ipc::block::{self, Entry, EntryShape, HEAD_BYTES};
use commonhold_ipc::catalog::Root;
use commonhold_ipc::catalog::{self, Kind, Record, SLOT_BITS};
use commonhold_ipc::error::ErrorKind;
use commonhold_ipc::index;
use commonhold_ipc::map::ArenaReader;
use commonhold_ipc::sequence;
use commonhold_ipc::wire::commit::{CommitWriter, END, Op, Values};
use commonhold_ipc::wire::reply::Outcome;
use commonhold_ipc::wire::{Payload, Source, Words};
use commonhold_manager::upload::{self, Uploads};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::rc::Rc;

/// A value: its bytes, the objects it refers to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Val {
    pub bytes: Rc<[u8]>,
    pub handles: Rc<[u64]>,
}

#[derive(Clone, Debug)]
pub enum Body {
    /// Key → insertion number and value; the next insertion number; the alignment.
    Dict(HashMap<Vec<u8>, (u64, Val)>, u64, u8),
    /// Bytes of an inline element, the elements.
    List(u32, Vec<Val>),
    Value(Option<Val>),
    Counter(i64),
}

#[derive(Clone, Debug)]
pub struct Obj {
    pub kind: Kind,
    /// References of sessions.
    pub held: u64,
    pub body: Rc<Body>,
}

/// All that can be reached.
#[derive(Clone, Debug, Default)]
pub struct Model {
    pub objects: BTreeMap<u64, Obj>,
    pub names: BTreeMap<String, u64>,
}

/// How a value travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    Inline,
    Upload,
}

/// An operation that cannot be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    GoneObject,
    WrongType,
    GoneHandle,
    UnknownUpload,
    WrongPrefix,
    SwapBeyond,
    SpliceBeyond,
    NotPacked,
    NotPermuted,
    NotANumber,
}

pub const FAULTS: [Fault; 10] = [
    Fault::GoneObject,
    Fault::WrongType,
    Fault::GoneHandle,
    Fault::UnknownUpload,
    Fault::WrongPrefix,
    Fault::SwapBeyond,
    Fault::SpliceBeyond,
    Fault::NotPacked,
    Fault::NotPermuted,
    Fault::NotANumber,
];

#[derive(Clone, Debug)]
pub enum Action {
    Insert {
        object: u64,
        key: Vec<u8>,
        value: Val,
        how: How,
        only_if_absent: bool,
        lend: bool,
    },
    Remove {
        object: u64,
        key: Vec<u8>,
        lend: bool,
    },
    Add {
        object: u64,
        key: Vec<u8>,
        delta: u32,
    },
    Clear {
        object: u64,
    },
    Set {
        object: u64,
        position: u64,
        value: Val,
        how: How,
        lend: bool,
    },
    Take {
        object: u64,
        position: u64,
        lend: bool,
    },
    Splice {
        object: u64,
        position: u64,
        remove: u64,
        values: Vec<Val>,
        how: How,
    },
    Swap {
        object: u64,
        a: u64,
        b: u64,
    },
    Reverse {
        object: u64,
    },
    Permute {
        object: u64,
        from: Vec<u64>,
    },
    Put {
        object: u64,
        value: Val,
        how: How,
    },
    Count {
        object: u64,
        delta: i64,
    },
    /// On a dict and a list of 64-byte elements.
    Fail {
        fault: Fault,
        dict: u64,
        list: u64,
    },
}

/// What an operation should give back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expected {
    Nothing,
    Something,
    Lent(Rc<[u8]>),
    Existing(Rc<[u8]>),
    Bytes(Vec<u8>),
    Number(u64),
}

const U32: u8 = 3;
const NOWHERE: u64 = 12_345 << SLOT_BITS | 77;

impl Model {
    fn dict(&mut self, id: u64) -> (&mut HashMap<Vec<u8>, (u64, Val)>, &mut u64) {
        match Rc::make_mut(&mut self.objects.get_mut(&id).unwrap().body) {
            Body::Dict(entries, next, _) => (entries, next),
            other => panic!("object {id} is {other:?}"),
        }
    }

    fn list(&mut self, id: u64) -> (u32, &mut Vec<Val>) {
        match Rc::make_mut(&mut self.objects.get_mut(&id).unwrap().body) {
            Body::List(element_bytes, items) => (*element_bytes, items),
            other => panic!("object {id} is {other:?}"),
        }
    }

    pub fn body(&self, id: u64) -> &Body {
        &self.objects[&id].body
    }

    pub fn len(&self, id: u64) -> u64 {
        match self.body(id) {
            Body::Dict(entries, ..) => entries.len() as u64,
            Body::List(_, items) => items.len() as u64,
            Body::Value(value) => value.as_ref().map_or(0, |value| value.bytes.len() as u64),
            Body::Counter(_) => 0,
        }
    }

    /// Does it, and says what should come back, or which error.
    pub fn run(&mut self, action: &Action) -> Result<Expected, ErrorKind> {
        match action {
            Action::Insert { object, key, value, only_if_absent, lend, .. } => {
                let (entries, next) = self.dict(*object);
                if let Some((insertion, old)) = entries.get_mut(key) {
                    if *only_if_absent {
                        return Ok(Expected::Existing(old.bytes.clone()));
                    }
                    let _ = insertion;
                    let old = std::mem::replace(old, value.clone());
                    return Ok(if *lend { Expected::Lent(old.bytes) } else { Expected::Something });
                }
                entries.insert(key.clone(), (*next, value.clone()));
                *next += 1;
                // Whoever asks for what is there then gets it, though it is his own.
                Ok(if *only_if_absent && *lend { Expected::Lent(value.bytes.clone()) } else { Expected::Nothing })
            }
            Action::Remove { object, key, lend } => Ok(match self.dict(*object).0.remove(key) {
                None => Expected::Nothing,
                Some((_, old)) if *lend => Expected::Lent(old.bytes),
                Some(_) => Expected::Something,
            }),
            Action::Add { object, key, delta } => {
                let (entries, next) = self.dict(*object);
                let old = entries.get(key).map_or([0; 4].into(), |(_, old)| old.bytes.clone());
                let old = u32::from_le_bytes((*old).try_into().map_err(|_| ErrorKind::OutOfRange)?);
                let sum = old.checked_add(*delta).ok_or(ErrorKind::OutOfRange)?.to_le_bytes();
                let value = Val { bytes: sum.into(), handles: [].into() };
                match entries.get_mut(key) {
                    Some((_, old)) => *old = value,
                    None => {
                        entries.insert(key.clone(), (*next, value));
                        *next += 1;
                    }
                }
                Ok(Expected::Bytes(sum.to_vec()))
            }
            Action::Clear { object } => {
                let any = self.len(*object) > 0;
                match Rc::make_mut(&mut self.objects.get_mut(object).unwrap().body) {
                    Body::Dict(entries, ..) => entries.clear(),
                    Body::List(_, items) => items.clear(),
                    other => panic!("object {object} is {other:?}"),
                }
                Ok(if any { Expected::Something } else { Expected::Nothing })
            }
            Action::Set { object, position, value, lend, .. } => {
                let (element_bytes, items) = self.list(*object);
                let old = items.get_mut(*position as usize).ok_or(ErrorKind::OutOfRange)?;
                Ok(given_back(element_bytes, std::mem::replace(old, value.clone()), *lend))
            }
            Action::Take { object, position, lend } => {
                let (element_bytes, items) = self.list(*object);
                let position = if *position == END { items.len().wrapping_sub(1) } else { *position as usize };
                if position >= items.len() {
                    return Ok(Expected::Nothing);
                }
                Ok(given_back(element_bytes, items.remove(position), *lend))
            }
            Action::Splice { object, position, remove, values, .. } => {
                let items = self.list(*object).1;
                let at = if *position == END { items.len() } else { *position as usize };
                let remove = (*remove).min((items.len() - at) as u64);
                items.splice(at..at + remove as usize, values.iter().cloned());
                Ok(Expected::Number(remove))
            }
            Action::Swap { object, a, b } => {
                self.list(*object).1.swap(*a as usize, *b as usize);
                Ok(Expected::Something)
            }
            Action::Reverse { object } => {
                let items = self.list(*object).1;
                items.reverse();
                Ok(if items.is_empty() { Expected::Nothing } else { Expected::Something })
            }
            Action::Permute { object, from } => {
                let items = self.list(*object).1;
                *items = from.iter().map(|position| items[*position as usize].clone()).collect();
                Ok(if items.is_empty() { Expected::Nothing } else { Expected::Something })
            }
            Action::Put { object, value, .. } => {
                self.objects.get_mut(object).unwrap().body = Rc::new(Body::Value(Some(value.clone())));
                Ok(Expected::Something)
            }
            Action::Count { object, delta } => {
                let Body::Counter(number) = self.body(*object) else { panic!("object {object} is no counter") };
                let sum = number.checked_add(*delta).ok_or(ErrorKind::OutOfRange)?;
                self.objects.get_mut(object).unwrap().body = Rc::new(Body::Counter(sum));
                Ok(Expected::Number(sum as u64))
            }
            Action::Fail { fault, .. } => Err(match fault {
                Fault::GoneObject | Fault::GoneHandle => ErrorKind::NotFound,
                Fault::WrongType => ErrorKind::WrongType,
                Fault::UnknownUpload | Fault::WrongPrefix | Fault::NotPacked | Fault::NotPermuted => ErrorKind::Corrupt,
                Fault::SwapBeyond | Fault::SpliceBeyond | Fault::NotANumber => ErrorKind::OutOfRange,
            }),
        }
    }

    /// Objects that an object's values refer to.
    fn references(body: &Body) -> Vec<u64> {
        let of = |value: &Val| value.handles.to_vec();
        match body {
            Body::Dict(entries, ..) => entries.values().flat_map(|(_, value)| of(value)).collect(),
            Body::List(_, items) => items.iter().flat_map(of).collect(),
            Body::Value(value) => value.iter().flat_map(of).collect(),
            Body::Counter(_) => vec![],
        }
    }

    /// Forgets what can no longer be reached from what is held or named.
    pub fn forget_unreachable(&mut self) {
        let mut next: Vec<u64> = self.objects.iter().filter(|(_, object)| object.held > 0).map(|(id, _)| *id).collect();
        next.extend(self.names.values());
        let mut reached = HashSet::new();
        while let Some(id) = next.pop() {
            if reached.insert(id) {
                next.extend(Self::references(&self.objects[&id].body));
            }
        }
        self.objects.retain(|id, _| reached.contains(id));
    }

    /// Reads everything back as a client does, and compares.
    pub fn compare(&self, world: &World, root: &Root) {
        for (id, object) in &self.objects {
            let record =
                catalog::find(&world.reader, root, *id).unwrap_or_else(|| panic!("object {id} is not in version {}", root.version));
            assert_eq!((record.id, record.kind), (*id, object.kind));
            assert_eq!(catalog::descriptor(&world.reader, &record).unwrap().text, "text of a type");
            match &*object.body {
                Body::Dict(entries, next, _) => {
                    assert_eq!((record.len, record.next_insertion), (entries.len() as u64, *next), "object {id}");
                    compare_dict(world, &record, entries);
                }
                Body::List(element_bytes, items) => {
                    assert_eq!((record.len, record.element_bytes), (items.len() as u64, *element_bytes), "object {id}");
                    compare_list(&world.reader, &record, items);
                }
                Body::Value(None) => assert_eq!((record.root, record.len), (0, 0)),
                Body::Value(Some(value)) => {
                    assert_eq!(record.len, value.bytes.len() as u64);
                    compare_element(&world.reader, record.root, value);
                }
                Body::Counter(number) => assert_eq!(record.root as i64, *number),
            }
        }
    }
}

fn given_back(element_bytes: u32, old: Val, lend: bool) -> Expected {
    match (lend, element_bytes) {
        (false, _) => Expected::Something,
        (true, 0) => Expected::Lent(old.bytes),
        (true, _) => Expected::Bytes(old.bytes.to_vec()),
    }
}

fn compare_entry(reader: &ArenaReader, record: &Record, entry: &Entry, insertion: u64, value: &Val) {
    let place = entry.value_place(reader);
    assert!(place.offset.is_multiple_of(u64::from(record.value_align)));
    assert!(reader.bytes(place.offset, place.len) == &*value.bytes, "object {}: a value of {} bytes is another", record.id, place.len);
    assert_eq!(entry.handles(reader), &*value.handles);
    assert_eq!(entry.insertion(), insertion);
}

fn compare_dict(world: &World, record: &Record, entries: &HashMap<Vec<u8>, (u64, Val)>) {
    let reader = &world.reader;
    let find = |key: &[u8]| index::find(reader, record.root, record.value_align, key, world.hash.of(key));
    for (key, (insertion, value)) in entries {
        let entry = find(key).unwrap_or_else(|| panic!("object {}: no entry of key {key:?}", record.id));
        compare_entry(reader, record, &entry, *insertion, value);
    }
    for key in (0..40).map(key_of).filter(|key| !entries.contains_key(key)) {
        assert!(find(&key).is_none(), "object {}: an entry of key {key:?}, which was taken out", record.id);
    }
    let mut walked = HashSet::new();
    for entry in index::Entries::new(reader, record.root, record.value_align) {
        let (insertion, value) = &entries[entry.key(reader)];
        compare_entry(reader, record, &entry, *insertion, value);
        assert!(walked.insert(entry.block), "the walk meets an entry twice");
    }
    assert_eq!(walked.len(), entries.len());
}

fn compare_element(reader: &ArenaReader, block: u64, value: &Val) {
    let place = block::element_place(reader, block);
    assert!(reader.bytes(place.offset, place.len) == &*value.bytes, "an element of {} bytes is another", place.len);
    assert_eq!(block::element_handles(reader, block), &*value.handles);
}

fn compare_list(reader: &ArenaReader, record: &Record, items: &[Val]) {
    let same = |place: block::Place, value: &Val| {
        assert!(reader.bytes(place.offset, place.len) == &*value.bytes, "object {}: an element is another", record.id);
        if record.element_bytes == 0 {
            compare_element(reader, place.block, value);
        }
    };
    let len = items.len() as u64;
    let walk = sequence::Elements::new(reader, record, 0..len);
    assert_eq!(walk.len(), items.len());
    walk.clone().zip(items).for_each(|(place, value)| same(place, value));
    walk.rev().zip(items.iter().rev()).step_by(3).for_each(|(place, value)| same(place, value));
    let step = (items.len() / 50).max(1);
    for (position, value) in (0u64..).zip(items).step_by(step) {
        same(sequence::find(reader, record, position).unwrap(), value);
    }
    assert_eq!(sequence::find(reader, record, len), None);
    // From both ends at once, and by leaps, from somewhere in the middle.
    let (from, to) = (len / 3, len - len / 5);
    let mut range = sequence::Elements::new(reader, record, from..to);
    let (mut front, mut back) = (from, to);
    while let Some(place) = range.nth(4) {
        same(place, &items[front as usize + 4]);
        front += 5;
        let Some(place) = range.next_back() else { break };
        back -= 1;
        same(place, &items[back as usize]);
    }
}

/// The keys of the tests: of many lengths, all different.
pub fn key_of(number: u64) -> Vec<u8> {
    let mut key = number.to_le_bytes()[..if number < 200 { 1 } else { 8 }].to_vec();
    key.resize(key.len() + number as usize % 19, b'k');
    key
}

/// Says whether an outcome is the one expected; a lent value is where it says it is.
pub fn check_outcome(reader: &ArenaReader, outcome: &Outcome, expected: &Expected) {
    let matches = match (outcome, expected) {
        (Outcome::Nothing, Expected::Nothing) | (Outcome::Something, Expected::Something) => true,
        (Outcome::Lent(place, _), Expected::Lent(bytes)) | (Outcome::Existing(place), Expected::Existing(bytes)) => {
            reader.bytes(place.offset, place.len) == &**bytes
        }
        (Outcome::Bytes(found), Expected::Bytes(bytes)) => found == bytes,
        (Outcome::Number(found), Expected::Number(number)) => found == number,
        _ => false,
    };
    assert!(matches, "expected {expected:?}, got {outcome:?}");
}

/// Sends a value ahead, as the owner receives it.
fn send(world: &mut World, uploads: &mut Uploads, number: u64, prefix: u64, value: &Val) {
    let memory = world.store.memory_mut();
    let upload = upload::begin(memory, prefix, value.bytes.len() as u64, value.handles.len() as u64);
    if let Ok(upload) = &upload {
        memory.arena().copy_in(upload.block + prefix, &value.bytes);
    }
    uploads.add(number, upload, memory);
}

/// Writes actions into requests, with the uploads that they need.
pub struct Encoder<'w> {
    pub world: &'w mut World,
    pub model: &'w Model,
    pub uploads: Uploads,
    next_upload: u64,
}

impl<'w> Encoder<'w> {
    pub fn new(world: &'w mut World, model: &'w Model) -> Self {
        Encoder { world, model, uploads: Uploads::default(), next_upload: 1 }
    }

    fn source<'a>(&mut self, how: How, prefix: u64, value: &'a Val) -> Source<'a> {
        if how == How::Inline {
            return Source::Inline(&value.bytes);
        }
        let number = self.next_upload;
        self.next_upload += 1;
        send(self.world, &mut self.uploads, number, prefix, value);
        Source::Upload(number)
    }

    /// Appends an action.
    pub fn add(&mut self, action: &Action, out: &mut CommitWriter) {
        match action {
            Action::Insert { object, key, value, how, only_if_absent, lend } => {
                let Body::Dict(.., align) = self.model.body(*object) else { panic!("object {object} is no dict") };
                let (key_len, value_len) = (key.len() as u64, value.bytes.len() as u64);
                let shape = EntryShape { key_len, value_len, align: (*align).into(), handles: value.handles.len() as u64 };
                let handles = handle_bytes(&value.handles);
                let source = self.source(*how, shape.value(), value);
                let value = Payload { source, handles: Words::new(&handles).unwrap() };
                out.op(&Op::Insert { object: *object, key, value, only_if_absent: *only_if_absent, lend: *lend });
            }
            Action::Set { object, position, value, how, lend } => {
                let handles = handle_bytes(&value.handles);
                let value = Payload { source: self.source(*how, HEAD_BYTES, value), handles: Words::new(&handles).unwrap() };
                out.op(&Op::ListSet { object: *object, position: *position, value, lend: *lend });
            }
            Action::Put { object, value, how } => {
                let handles = handle_bytes(&value.handles);
                let value = Payload { source: self.source(*how, HEAD_BYTES, value), handles: Words::new(&handles).unwrap() };
                out.op(&Op::ValueSet { object: *object, value });
            }
            Action::Splice { object, position, remove, values, how } => {
                let mut bytes = Vec::new();
                let Body::List(element_bytes, _) = self.model.body(*object) else { panic!("object {object} is no list") };
                for value in values {
                    if *element_bytes > 0 {
                        bytes.extend_from_slice(&value.bytes);
                        continue;
                    }
                    let handles = handle_bytes(&value.handles);
                    let source = self.source(*how, HEAD_BYTES, value);
                    Payload { source, handles: Words::new(&handles).unwrap() }.write(&mut bytes);
                }
                let values = if *element_bytes > 0 { Values::Packed(&bytes) } else { Values::Each(values.len() as u32, &bytes) };
                out.op(&Op::ListSplice { object: *object, position: *position, remove: *remove, values });
            }
            Action::Fail { fault, dict, list } => self.fail(*fault, *dict, *list, out),
            _ => simple(action, out),
        }
    }

    fn fail(&mut self, fault: Fault, dict: u64, list: u64, out: &mut CommitWriter) {
        let nobody = handle_bytes(&[dict, NOWHERE]);
        let len = self.model.len(list);
        let insert = |value| Op::Insert { object: dict, key: b"never", value, only_if_absent: false, lend: false };
        match fault {
            Fault::GoneObject => out.op(&Op::Clear { object: NOWHERE }),
            Fault::WrongType => out
                .op(&Op::Clear { object: self.model.objects.iter().find(|(_, o)| o.kind == Kind::Counter).map_or(NOWHERE, |(id, _)| *id) }),
            Fault::GoneHandle => out.op(&insert(payload(b"value", &nobody))),
            Fault::UnknownUpload => out.op(&insert(Payload { source: Source::Upload(999), handles: Words::new(&[]).unwrap() })),
            Fault::WrongPrefix => {
                let value = Val { bytes: [1; 30].into(), handles: [].into() };
                let source = self.source(How::Upload, 200, &value);
                out.op(&insert(Payload { source, handles: Words::new(&[]).unwrap() }));
            }
            Fault::SwapBeyond => out.op(&Op::ListSwap { object: list, a: 0, b: len }),
            Fault::SpliceBeyond => out.op(&Op::ListSplice { object: list, position: len + 1, remove: 0, values: Values::Packed(&[1; 64]) }),
            Fault::NotPacked => out.op(&Op::ListSplice { object: list, position: 0, remove: 3, values: Values::Packed(&[1; 100]) }),
            Fault::NotPermuted => {
                let from = handle_bytes(&vec![0; len as usize + 2]);
                out.op(&Op::ListPermute { object: list, from: Words::new(&from).unwrap() });
            }
            Fault::NotANumber => out.op(&Op::Add { object: dict, key: b"never", number: U32, delta: &[1, 2] }),
        }
    }
}

fn simple(action: &Action, out: &mut CommitWriter) {
    match action {
        Action::Remove { object, key, lend } => out.op(&Op::Remove { object: *object, key, lend: *lend }),
        Action::Add { object, key, delta } => out.op(&Op::Add { object: *object, key, number: U32, delta: &delta.to_le_bytes() }),
        Action::Clear { object } => out.op(&Op::Clear { object: *object }),
        Action::Take { object, position, lend } => out.op(&Op::ListRemove { object: *object, position: *position, lend: *lend }),
        Action::Swap { object, a, b } => out.op(&Op::ListSwap { object: *object, a: *a, b: *b }),
        Action::Reverse { object } => out.op(&Op::ListReverse { object: *object }),
        Action::Permute { object, from } => {
            out.op(&Op::ListPermute { object: *object, from: Words::new(&handle_bytes(from)).unwrap() });
        }
        Action::Count { object, delta } => out.op(&Op::CounterAdd { object: *object, delta: *delta }),
        other => panic!("{other:?} carries a value"),
    }
}
