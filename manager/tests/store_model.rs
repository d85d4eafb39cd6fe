//! Long random runs of requests against a store and against std's collections, with snapshots that must not move.
//!
//! `COMMONHOLD_CASES` is the number of runs; a run is shrunk by leaving out steps. With `COMMONHOLD_TRACE` set, requests are
//! printed before they are applied.

mod model;
mod world;

use commonhold_ipc::block::Place;
use commonhold_ipc::catalog::Root;
use commonhold_ipc::catalog::{self, Kind};
use commonhold_ipc::error::ErrorKind;
use commonhold_ipc::index;
use commonhold_ipc::pin::OwnedPin;
use commonhold_ipc::sequence;
use commonhold_ipc::wire::commit::{CommitWriter, Condition, END};
use commonhold_ipc::wire::reply::Outcome;
use commonhold_manager::store::Rejected;
use commonhold_manager::upload::Uploads;
use model::{Action, Body, Encoder, Expected, FAULTS, How, Model, Obj, Val, check_outcome, key_of};
use proptest::prelude::*;
use std::collections::{HashMap, HashSet};
use std::rc::Rc;
use world::{World, cases};

const ARENA_BYTES: u64 = 256 << 20;
const ELEMENT_BYTES: [u32; 6] = [0, 1, 8, 24, 64, 256];
/// All ones; the upper six bits and two of the tag; two and two; six of the third level; the tag alone; none.
const MASKS: [u64; 6] = [u64::MAX, 0x3f << 58 | 3, 3 << 62 | 3, 0x3f << 46 | 7, 0xffff, 0];

/// Numbers that look random, from a step's seed.
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound.max(1)
    }

    /// True this many times of a hundred.
    fn percent(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    fn one_of<T: Copy>(&mut self, items: &[T]) -> T {
        items[self.below(items.len() as u64) as usize]
    }
}

/// A version that somebody reads for long.
enum Held {
    /// Through a session's page.
    Pin(OwnedPin),
    /// By a pin that is given to `reclaim`.
    Version(Root),
}

impl Held {
    fn root(&self) -> &Root {
        match self {
            Held::Pin(pin) => pin.root(),
            Held::Version(root) => root,
        }
    }
}

struct Run {
    world: World,
    model: Model,
    /// What the newest published version shows.
    published: Model,
    snapshots: Vec<(Held, Model)>,
    /// Values that replies have lent since the last publication: version of the reply, place, bytes.
    lent: Vec<(u64, Place, Rc<[u8]>)>,
    ids: HashSet<u64>,
    keys: u64,
    dict: u64,
    list: u64,
}

impl Run {
    fn new(mask: u64) -> Run {
        let mut world = World::new(ARENA_BYTES, ARENA_BYTES, mask);
        world.spoil_freed = true;
        let (published, model) = (Model::default(), Model::default());
        let keys = if mask == 0 { 400 } else { 1200 };
        let mut run = Run { world, model, published, snapshots: vec![], lent: vec![], ids: HashSet::new(), keys, dict: 0, list: 0 };
        run.dict = run.create(Kind::Dict, 0, 8);
        run.list = run.create(Kind::List, 64, 0);
        run.create(Kind::Counter, 0, 0);
        run.create(Kind::Dict, 0, 16);
        run.create(Kind::Value, 0, 0);
        run.create(Kind::List, 0, 0);
        run
    }

    fn create(&mut self, kind: Kind, element_bytes: u32, align: u8) -> u64 {
        let id = self.world.create(kind, element_bytes, align);
        assert!(self.ids.insert(id), "the id {id} was given twice");
        let body = match kind {
            Kind::Dict | Kind::Namespace => Body::Dict(HashMap::new(), 0, align),
            Kind::List => Body::List(element_bytes, vec![]),
            Kind::Value => Body::Value(None),
            Kind::Counter => Body::Counter(0),
            kind => unreachable!("{kind:?} is not in the arena"),
        };
        self.model.objects.insert(id, Obj { kind, held: 1, body: Rc::new(body) });
        id
    }

    fn any(&self, dice: &mut Dice) -> u64 {
        let ids: Vec<u64> = self.model.objects.keys().copied().collect();
        dice.one_of(&ids)
    }

    fn value(&self, dice: &mut Dice) -> Val {
        let len = match dice.below(100) {
            0..10 => 0,
            10..70 => dice.below(80),
            70..90 => dice.below(600),
            90..97 => 4096 - 3 + dice.below(6),
            97..99 => dice.below(20_000),
            _ => 60_000 + dice.below(42_400),
        };
        let seed = dice.next().to_le_bytes();
        let bytes = (0..len).map(|i| seed[i as usize % 8] ^ i as u8).collect();
        let handles = if dice.percent(15) { (0..dice.below(4)).map(|_| self.any(dice)).collect() } else { [].into() };
        Val { bytes, handles }
    }

    fn element(&self, element_bytes: u32, dice: &mut Dice) -> Val {
        if element_bytes == 0 {
            return self.value(dice);
        }
        let seed = dice.next() as u8;
        Val { bytes: (0..element_bytes).map(|i| seed ^ i as u8).collect(), handles: [].into() }
    }

    /// Something that can be done to an object of the model.
    fn action(&self, dice: &mut Dice) -> Action {
        let how = if dice.percent(15) { How::Upload } else { How::Inline };
        let lend = dice.percent(40);
        let object = self.any(dice);
        match self.model.body(object) {
            Body::Dict(..) => {
                let key = key_of(dice.below(self.keys));
                match dice.below(100) {
                    0..55 => Action::Insert { object, key, value: self.value(dice), how, only_if_absent: dice.percent(15), lend },
                    55..88 => Action::Remove { object, key, lend },
                    88..98 => Action::Add { object, key, delta: if dice.percent(10) { u32::MAX } else { 3 } },
                    _ => Action::Clear { object },
                }
            }
            Body::List(element_bytes, items) => self.list_action(object, *element_bytes, items.len() as u64, dice),
            Body::Value(_) => Action::Put { object, value: self.value(dice), how },
            Body::Counter(_) => Action::Count { object, delta: if dice.percent(10) { i64::MAX } else { dice.next() as i64 >> 8 } },
        }
    }

    fn list_action(&self, object: u64, element_bytes: u32, len: u64, dice: &mut Dice) -> Action {
        let how = if dice.percent(10) { How::Upload } else { How::Inline };
        let lend = dice.percent(40);
        match dice.below(100) {
            0..20 => {
                let position = dice.below(len + 2);
                Action::Set { object, position, value: self.element(element_bytes, dice), how: How::Inline, lend }
            }
            20..35 => Action::Take { object, position: if dice.percent(50) { END } else { dice.below(len + 2) }, lend },
            35..42 if len > 0 => Action::Swap { object, a: dice.below(len), b: dice.below(len) },
            42..44 if len < 800 => Action::Reverse { object },
            44..46 if len < 800 => {
                let mut from: Vec<u64> = (0..len).collect();
                (1..len as usize).for_each(|i| from.swap(i, dice.below(i as u64 + 1) as usize));
                Action::Permute { object, from }
            }
            46..48 => Action::Clear { object },
            _ => {
                let position = match dice.below(4) {
                    0 => 0,
                    1 | 2 => END,
                    _ => dice.below(len + 1),
                };
                let remove = match dice.below(10) {
                    0..7 => 0,
                    7..9 => dice.below(5),
                    _ => dice.below(len + 10),
                };
                let most = if len > 3000 {
                    2
                } else if element_bytes == 0 {
                    60
                } else {
                    700
                };
                let count = if dice.percent(75) { dice.below(4) } else { dice.below(most) };
                let values = (0..count).map(|_| self.element(element_bytes, dice)).collect();
                Action::Splice { object, position, remove, values, how: if count < 9 { how } else { How::Inline } }
            }
        }
    }

    /// A condition on what is published, and whether it holds.
    fn condition(&mut self, dice: &mut Dice, writer: &mut CommitWriter) -> bool {
        self.publish();
        let object = self.any(dice);
        let (world, reader, root) = (&self.world, &self.world.reader, *self.world.store.root());
        let record = catalog::find(reader, &root, object).unwrap();
        let right = dice.percent(80);
        // What is wrong is one more than what is right, and is no offset then.
        let wrong = u64::from(!right);
        match dice.below(4) {
            0 => writer.condition(&Condition::Unmodified { object, modified: record.modified + wrong }),
            1 => writer.condition(&Condition::LenIs { object, len: record.len + wrong }),
            2 => writer.condition(&Condition::RootIs { object, root: record.root.wrapping_add(wrong) }),
            _ => match self.model.body(object) {
                Body::Dict(..) => {
                    let key = key_of(dice.below(self.keys));
                    let entry = index::find(reader, record.root, record.value_align, &key, world.hash.of(&key));
                    let block = entry.map_or(0, |entry| entry.block) + wrong;
                    writer.condition(&Condition::EntryIs { object, key: &key, block });
                }
                Body::List(0, _) => {
                    let position = dice.below(record.len + 1);
                    let block = sequence::find(reader, &record, position).map_or(0, |place| place.block) + wrong;
                    writer.condition(&Condition::ElementIs { object, position, block });
                }
                Body::List(_, items) if !items.is_empty() => {
                    let position = dice.below(record.len);
                    let mut bytes = items[position as usize].bytes.to_vec();
                    bytes[0] ^= wrong as u8;
                    writer.condition(&Condition::ElementBytes { object, position, bytes: &bytes });
                }
                _ => writer.condition(&Condition::LenIs { object, len: record.len + wrong }),
            },
        }
        right
    }

    fn actions(&self, dice: &mut Dice) -> Vec<Action> {
        if dice.percent(6) {
            let (object, first) = (self.dict, dice.below(self.keys));
            let key = |i| key_of((first + i) % self.keys);
            let absent = |i| (key(i), Val { bytes: [i as u8; 24].into(), handles: [].into() });
            if dice.percent(50) {
                return (0..150).map(|i| Action::Remove { object, key: key(i), lend: false }).collect();
            }
            let insert = |(key, value)| Action::Insert { object, key, value, how: How::Inline, only_if_absent: false, lend: false };
            return (0..150).map(absent).map(insert).collect();
        }
        let count = if dice.percent(60) { 1 } else { 2 + dice.below(4) };
        (0..count).map(|_| self.action(dice)).collect()
    }

    fn commit(&mut self, dice: &mut Dice) {
        let mut writer = CommitWriter::default();
        let mut holds = true;
        if dice.percent(20) {
            (0..1 + dice.below(2)).for_each(|_| holds &= self.condition(dice, &mut writer));
        }
        let mut after = self.model.clone();
        let mut expected: Vec<Expected> = Vec::new();
        let mut wrong: Option<ErrorKind> = None;
        // Up to the first that cannot be done.
        let mut actions = Vec::new();
        for action in self.actions(dice) {
            if wrong.is_none() && possible(&after, &action) {
                match after.run(&action) {
                    Ok(outcome) => expected.push(outcome),
                    Err(kind) => wrong = Some(kind),
                }
                actions.push(action);
            }
        }
        if dice.percent(12) {
            let action = Action::Fail { fault: dice.one_of(&FAULTS), dict: self.dict, list: self.list };
            let at = dice.below(actions.len() as u64 + 1) as usize;
            if wrong.is_none() && !changes_len(&actions, self.list) {
                wrong = after.run(&action).err();
                actions.insert(at, action);
            }
        }
        if std::env::var_os("COMMONHOLD_TRACE").is_some() {
            eprintln!("{actions:?}");
        }
        let mut encoder = Encoder::new(&mut self.world, &self.model);
        actions.iter().for_each(|action| encoder.add(action, &mut writer));
        let mut uploads = std::mem::take(&mut encoder.uploads);
        let done = self.world.apply_with(&writer, &mut uploads);
        let version = self.world.store.version() + 1;
        if dice.percent(5) {
            self.world.store.memory_mut().release_all();
            self.world.store.audit(uploads.blocks()).unwrap();
        }
        uploads.clear(self.world.store.memory_mut());
        match done {
            Ok(outcomes) => {
                assert!(holds && wrong.is_none(), "a request was done that should not be: {wrong:?}");
                self.done(version, &outcomes, &expected);
                self.model = after;
                self.model.forget_unreachable();
            }
            Err(Rejected::Conflict) => assert!(!holds, "a condition that holds was a conflict"),
            Err(Rejected::Nonsense) => panic!("what the writer wrote could not be read"),
            Err(Rejected::Failed(error)) => assert!(holds && wrong == Some(error.kind()), "expected {wrong:?}, got {error:?}"),
        }
    }

    fn done(&mut self, version: u64, outcomes: &[Outcome], expected: &[Expected]) {
        assert_eq!(outcomes.len(), expected.len());
        for (outcome, expected) in outcomes.iter().zip(expected) {
            check_outcome(&self.world.reader, outcome, expected);
            if let (Outcome::Lent(place, _) | Outcome::Existing(place), Expected::Lent(bytes) | Expected::Existing(bytes)) =
                (outcome, expected)
            {
                self.lent.push((version, *place, bytes.clone()));
            }
        }
    }

    fn publish(&mut self) {
        self.world.store.publish();
        self.published = self.model.clone();
    }

    /// Does one thing that can be done.
    fn perform(&mut self, action: &Action) {
        let mut writer = CommitWriter::default();
        Encoder::new(&mut self.world, &self.model).add(action, &mut writer);
        let outcomes = self.world.apply_with(&writer, &mut Uploads::default()).unwrap();
        let expected = self.model.run(action).unwrap();
        self.done(self.world.store.version() + 1, &outcomes, &[expected]);
    }

    /// Publishes, frees what may be freed, and sees that neither lent values nor snapshots have moved.
    fn check(&mut self, thoroughly: bool) {
        self.publish();
        self.world.audit();
        let by_version = self.snapshots.iter().filter_map(|(held, _)| match held {
            Held::Version(root) => Some(root.version),
            Held::Pin(_) => None,
        });
        let pins: Vec<u64> = by_version.chain(self.lent.iter().map(|(version, ..)| *version)).collect();
        if thoroughly {
            self.world.reclaim(pins.into_iter());
        } else {
            self.world.reclaim_aside(pins.into_iter());
        }
        for (version, place, bytes) in self.lent.drain(..) {
            assert!(self.world.reader.bytes(place.offset, place.len) == &*bytes, "a value that version {version} lends has changed");
        }
        let root = *self.world.store.root();
        self.published.compare(&self.world, &root);
        if thoroughly {
            self.snapshots.iter().for_each(|(held, model)| model.compare(&self.world, held.root()));
            self.world.audit();
        }
    }

    fn snapshot(&mut self, dice: &mut Dice) {
        self.publish();
        let held = if dice.percent(50) { Held::Pin(OwnedPin::new(&self.world.table)) } else { Held::Version(*self.world.store.root()) };
        assert_eq!(held.root(), self.world.store.root());
        self.snapshots.push((held, self.published.clone()));
        if self.snapshots.len() > 4 {
            let at = dice.below(4) as usize;
            self.snapshots.remove(at);
        }
    }

    fn hold_or_let_go(&mut self, dice: &mut Dice) {
        let id = self.any(dice);
        let object = self.model.objects.get_mut(&id).unwrap();
        let permanent = id == self.dict || id == self.list || object.kind == Kind::Counter;
        if dice.percent(40) {
            self.world.store.retain(id).unwrap();
            object.held += 1;
        } else if object.held > 0 && !permanent {
            self.world.store.release(id);
            object.held -= 1;
            self.model.forget_unreachable();
        }
    }

    fn rename(&mut self, dice: &mut Dice) {
        let name = format!("name {}", dice.below(4));
        let id = self.any(dice);
        match dice.below(3) {
            0 => {
                let replace = dice.percent(50);
                let named = self.world.store.name(&name, id, replace);
                if replace || !self.model.names.contains_key(&name) {
                    named.unwrap();
                    self.model.names.insert(name, id);
                    self.model.forget_unreachable();
                } else {
                    assert_eq!(named.unwrap_err().kind(), ErrorKind::AlreadyExists);
                }
            }
            1 => {
                assert_eq!(self.world.store.unname(&name), self.model.names.remove(&name).is_some());
                self.model.forget_unreachable();
            }
            _ => {
                let found = self.world.store.lookup(&name);
                assert_eq!(found, self.model.names.get(&name).copied());
                if let Some(id) = found {
                    self.model.objects.get_mut(&id).unwrap().held += 1;
                }
            }
        }
    }

    fn make(&mut self, dice: &mut Dice) {
        if self.model.objects.len() < 24 {
            let kind = dice.one_of(&[Kind::Dict, Kind::List, Kind::List, Kind::List, Kind::Value, Kind::Namespace]);
            let element_bytes = if kind == Kind::List { dice.one_of(&ELEMENT_BYTES) } else { 0 };
            self.create(kind, element_bytes, if dice.percent(50) { 8 } else { 16 });
        }
    }

    fn settle(&mut self) {
        self.publish();
        self.world.settle();
        self.published = self.model.clone();
        let (found, expected) = (self.world.store.root().objects, self.model.objects.len() as u64);
        assert_eq!(found, expected, "objects that are there, and that can be reached");
    }

    fn step(&mut self, seed: u64) {
        let mut dice = Dice(seed);
        match dice.below(100) {
            0..68 => self.commit(&mut dice),
            68..74 => self.check(false),
            74..76 => self.check(true),
            76..80 => self.snapshot(&mut dice),
            80..84 => self.make(&mut dice),
            84..89 => self.hold_or_let_go(&mut dice),
            89..93 => self.rename(&mut dice),
            93..96 => {
                // Between requests that have not been published, too: what they lent must stay.
                if dice.percent(30) {
                    self.world.store.collect_circles();
                }
                self.world.store.rest();
                self.published = self.model.clone();
            }
            96..98 => self.settle(),
            98 => {
                self.publish();
                self.world.store.memory_mut().trim(dice.below(1 << 20));
            }
            _ => self.snapshots.clear(),
        }
    }

    /// Lets everything go: nothing is left.
    fn end(mut self) {
        self.check(true);
        self.settle();
        self.check(true);
        for (id, object) in std::mem::take(&mut self.model.objects) {
            (0..object.held).for_each(|_| self.world.store.release(id));
        }
        for name in std::mem::take(&mut self.model.names).into_keys() {
            assert!(self.world.store.unname(&name));
        }
        self.settle();
        self.check(true);
        self.snapshots.clear();
        self.world.reclaim(std::iter::empty());
        self.world.audit();
        assert_eq!(self.world.allocated_bytes(), 0, "nothing is left, but for some blocks");
    }
}

/// Whether an action chosen before the ones that precede it in its request still makes sense.
fn possible(model: &Model, action: &Action) -> bool {
    match action {
        Action::Splice { object, position, .. } => *position == END || *position <= model.len(*object),
        Action::Swap { object, a, b } => (*a).max(*b) < model.len(*object),
        Action::Permute { object, from } => from.len() as u64 == model.len(*object),
        _ => true,
    }
}

fn changes_len(actions: &[Action], list: u64) -> bool {
    actions.iter().any(|action| match action {
        Action::Splice { object, .. } | Action::Take { object, .. } | Action::Clear { object } => *object == list,
        _ => false,
    })
}

fn run(mask: u64, steps: &[u64]) {
    let mut run = Run::new(mask);
    steps.iter().for_each(|seed| run.step(*seed));
    run.end();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(100), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_store_is_what_its_model_is(mask in prop::sample::select(&MASKS[..]), steps in prop::collection::vec(any::<u64>(), 1..220)) {
        run(mask, &steps);
    }
}

/// Lists of several inner levels, grown at their end and then edited in their middle, so that regular and relaxed nodes mix.
#[test]
fn long_lists_are_what_vectors_are() {
    for (element_bytes, len) in [(0, 9_000), (24, 9_000), (64, 5_000), (256, 2_600)] {
        let mut run = Run::new(u64::MAX);
        let dice = &mut Dice(len);
        let object = run.create(Kind::List, element_bytes, 0);
        let element = |dice: &mut Dice| {
            let bytes = if element_bytes == 0 { dice.below(30) as u32 } else { element_bytes };
            Val { bytes: dice.next().to_le_bytes().into_iter().cycle().take(bytes as usize).collect(), handles: [].into() }
        };
        let splice = |run: &mut Run, dice: &mut Dice, position, remove, count| {
            let values = (0..count).map(|_| element(dice)).collect();
            run.perform(&Action::Splice { object, position, remove, values, how: How::Inline });
        };
        splice(&mut run, dice, END, 0, len);
        for edit in 0..160 {
            let len = run.model.len(object);
            let (position, remove) = (dice.below(len + 1), 1 + dice.below(if edit % 20 == 0 { 700 } else { 40 }));
            match edit % 8 {
                0 | 4 => {
                    let count = dice.below(40);
                    splice(&mut run, dice, position, 0, count);
                }
                1 => splice(&mut run, dice, position.min(len - len / 9), remove, 2),
                2 => (0..20).for_each(|_| splice(&mut run, dice, END, 0, 1)),
                3 => run.perform(&Action::Take { object, position, lend: true }),
                5 => splice(&mut run, dice, len - remove.min(len), remove, 0),
                6 => {
                    let value = element(dice);
                    run.perform(&Action::Set { object, position, value, how: How::Inline, lend: true });
                }
                _ => (0..10).for_each(|_| splice(&mut run, dice, position, 0, 1)),
            }
            if edit % 10 == 9 {
                run.check(edit % 40 == 39);
                run.snapshot(dice);
            }
        }
        run.perform(&Action::Reverse { object });
        run.check(true);
        (0..run.model.len(object) / 2).for_each(|i| run.perform(&Action::Take { object, position: i, lend: false }));
        run.check(true);
        run.end();
    }
}
