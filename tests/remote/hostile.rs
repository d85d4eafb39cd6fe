//! Whoever speaks nonsense on a line loses that line, and nobody else notices.
use crate::support::{Afterwards, PATIENCE};
use commonhold::{Handle, Manager};
use commonhold_ipc::handshake::{self, ClientOffer, Purpose, Versions};
use commonhold_ipc::limits::LINE_RING_BYTES;
use commonhold_ipc::line::{LINE_BYTES, LineEnd, Side, Waited, Wanted};
use commonhold_ipc::map::{Access, Segment};
use commonhold_ipc::socket::{Channel, Received, Spin};
use commonhold_ipc::value::{ARCHIVE_FORMAT, fingerprint};
use commonhold_ipc::wire::remote::{Answer, Ask, Asked, LINE_MEMORY, REACH_MEMORY, Tell, range_word, write_result};
use commonhold_ipc::wire::reply::parse_error;
use commonhold_ipc::wire::{Call, HEAD_BYTES, Head, NewObject, Reader, Words};
use rkyv::util::AlignedVec;
use std::cell::{Cell, RefCell};
use std::io::Write;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

pub struct Plain {
    texts: Vec<String>,
}

#[commonhold::remote]
impl Plain {
    pub fn new() -> Self {
        Plain { texts: Vec::new() }
    }
    pub fn add(&mut self, texts: Vec<String>) -> u64 {
        self.texts.extend(texts);
        self.texts.len() as u64
    }
}

/// A session by hand.
pub struct Raw {
    channel: Channel,
    pub host: u64,
    _fds: Vec<OwnedFd>,
}

pub fn frame(code: u8, number: u64, payload: &[u8]) -> Vec<u8> {
    let head = Head { len: payload.len() as u32, code, quiet: false, lane: 0, number };
    [&head.to_bytes()[..], payload].concat()
}

fn read_frame(channel: &Channel, fds: &mut Vec<OwnedFd>) -> Option<(Head, Vec<u8>)> {
    let (mut bytes, mut buffer) = (Vec::new(), [0; 4096]);
    loop {
        if let Some(head) = Head::parse(&bytes)
            && bytes.len() >= HEAD_BYTES + head.len as usize
        {
            return Some((head, bytes[HEAD_BYTES..].to_vec()));
        }
        match channel.receive_before(&mut buffer, fds, 4, Instant::now() + PATIENCE).unwrap() {
            Received::Bytes(count) => bytes.extend_from_slice(&buffer[..count]),
            _ => return None,
        }
    }
}

impl Raw {
    pub fn connect(manager: &Manager) -> Raw {
        let offer = ClientOffer { versions: Versions::ours(ARCHIVE_FORMAT), purpose: Purpose::Session, authkey: None };
        let (channel, _, _fds) = handshake::connect(manager.address(), &offer, Instant::now() + PATIENCE).unwrap();
        let host = manager.sessions().unwrap().iter().find(|session| session.is_host).map_or(0, |host| host.number);
        Raw { channel, host, _fds }
    }

    /// Makes a call: status and payload of its answer, and a descriptor; none if the manager has hung up.
    pub fn ask(&self, call: Call, payload: &[u8]) -> Option<(u8, Vec<u8>, Option<OwnedFd>)> {
        self.channel.send_all(&frame(call as u8, 1, payload), &[], Instant::now() + PATIENCE).unwrap();
        let mut fds = Vec::new();
        read_frame(&self.channel, &mut fds).map(|(head, payload)| (head.code, payload, fds.pop()))
    }

    /// The same with a number.
    pub fn tell_numbered(&self, call: Call, number: u64, payload: &[u8]) {
        self.channel.send_all(&frame(call as u8, number, payload), &[], Instant::now() + PATIENCE).unwrap();
    }

    /// Says what is not answered.
    pub fn tell(&self, call: Call, payload: &[u8]) {
        self.tell_numbered(call, 0, payload);
    }

    fn call(&self, call: Call, payload: &[u8]) -> Result<Option<OwnedFd>, String> {
        let (code, payload, fd) = self.ask(call, payload).ok_or("the manager has hung up")?;
        if code == 0 { Ok(fd) } else { Err(parse_error(&mut Reader::new(&payload)).unwrap().to_string()) }
    }

    fn reach(&self, how: u8) -> Channel {
        let payload = [&[how][..], &self.host.to_le_bytes()].concat();
        Channel::from_fd(self.call(Call::Reach, &payload).unwrap().unwrap()).unwrap()
    }

    /// A line to the manager's first host.
    pub fn line(&self) -> Channel {
        self.reach(0)
    }

    /// The same with memory; and that once more, as a scribbler has it.
    pub fn line_with_memory(&self) -> (LineEnd, Segment) {
        let socket = self.reach(REACH_MEMORY);
        let memory = memory_of(&socket);
        let scribbled = Segment::map(&memory, LINE_BYTES, Access::ReadWrite).unwrap();
        (LineEnd::map(&memory, socket, Side::Client).unwrap(), scribbled)
    }
}

/// The memory that waits in a line's socket.
fn memory_of(socket: &Channel) -> OwnedFd {
    let mut memory = Vec::new();
    assert_eq!(socket.receive_with_fds(&mut [0], &mut memory, 1).unwrap(), Received::Bytes(1));
    memory.pop().unwrap()
}

/// Waits for a frame on a line's memory; none at its end.
pub fn frame_on(line: &LineEnd) -> Option<(Head, AlignedVec<16>)> {
    let (mut head, mut payload) = (AlignedVec::new(), AlignedVec::new());
    loop {
        line.receive(HEAD_BYTES - head.len(), &mut head).ok()?;
        if let Some(parsed) = Head::parse(&head) {
            line.receive(parsed.len as usize - payload.len(), &mut payload).ok()?;
            if payload.len() == parsed.len as usize {
                return Some((parsed, payload));
            }
        }
        match line.wait(Wanted::Bytes, &mut Spin::new(), || Some(Instant::now() + PATIENCE)).unwrap() {
            Waited::Ready => {}
            Waited::Ended => return None,
            Waited::Nothing => panic!("neither an answer nor an end"),
        }
    }
}

pub fn ask(object: u64, interface: u64, method: u32, archives: &[u8], ranges: &[(usize, usize)], handles: &[u64]) -> Vec<u8> {
    let words = |words: &[u64]| words.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<u8>>();
    let (ranges, handles) = (words(&ranges.iter().map(|(start, end)| range_word(&(*start..*end))).collect::<Vec<_>>()), words(handles));
    let asked = Asked {
        object,
        interface,
        method,
        chain: 1,
        within: Words::default(),
        name: "",
        handles: Words::new(&handles).unwrap(),
        ranges: Words::new(&ranges).unwrap(),
        archives,
    };
    let mut payload = Vec::new();
    asked.write(&mut payload);
    payload
}

#[test]
fn nonsense_on_a_line_is_an_error_or_its_end() {
    let manager = crate::manager();
    let plain = manager.create(Plain::new, ()).unwrap();
    let (id, interface) = (plain.id(), fingerprint::<PlainProxy>());
    let raw = Raw::connect(&manager);
    let say = |payload: &[u8], code: u8| {
        let line = raw.line();
        line.send_all(&frame(code, 7, payload), &[], Instant::now() + PATIENCE).unwrap();
        read_frame(&line, &mut Vec::new())
    };
    let failed = |payload: &[u8]| {
        let (head, payload) = say(payload, Ask::Call as u8).expect("an answer");
        assert_eq!((head.code, head.number), (Answer::Failed as u8, 7));
        parse_error(&mut Reader::new(&payload)).unwrap().to_string()
    };
    // Objects, interfaces and methods that are not there; arguments that are missing, or no archives.
    let not_here = failed(&ask(id + 1, interface, 0, &[], &[], &[]));
    assert_eq!(not_here, format!("object {} is not there any more: nobody held it; keep a handle, or give it a name", id + 1));
    assert!(failed(&ask(id, interface ^ 1, 0, &[], &[], &[])).contains("no method 0 of the interface"));
    let no_method = format!(
        "object {id} is a Plain, which has no method 9 of the interface {interface:016x}: was the caller built with other methods?"
    );
    assert_eq!(failed(&ask(id, interface, 9, &[], &[], &[])), no_method);
    assert!(failed(&ask(id, interface, 0, &[], &[], &[])).contains("argument is missing"));
    assert!(failed(&ask(id, interface, 0, &[0xff; 64], &[(0, 64)], &[])).contains("archive"));
    assert!(failed(&ask(id, interface, 0, &[0; 64], &[(0, 4)], &[])).contains("archive"));
    // An argument bomb: eight bytes that claim to be two billion texts.
    assert!(failed(&ask(id, interface, 0, &[[0u8, 0, 0, 0], [0xff, 0xff, 0xff, 0x7f]].concat(), &[(0, 8)], &[])).contains("archive"));
    // Handles on what is not there.
    assert!(failed(&ask(id, interface, 0, &[0; 8], &[(0, 8)], &[id + 5])).contains("gone"));
    // A function that is none.
    let (head, _) = say(&ask(0x1234, 0, 0, &[], &[], &[]), Ask::Run as u8).expect("an answer");
    assert_eq!(head.code, Answer::Failed as u8);
    // What cannot be read at all ends the line.
    let good = ask(id, interface, 0, &[0; 8], &[(0, 8)], &[]);
    for len in [0, 1, 20, good.len() - 1] {
        assert!(say(&good[..len], Ask::Call as u8).is_none(), "cut at {len}");
    }
    assert!(say(&good, 99).is_none());
    let line = raw.line();
    let bomb = Head { len: u32::MAX, code: Ask::Call as u8, quiet: false, lane: 0, number: 1 };
    line.send_all(&bomb.to_bytes(), &[], Instant::now() + PATIENCE).unwrap();
    assert!(read_frame(&line, &mut Vec::new()).is_none());
    // Nobody else has noticed.
    assert_eq!(plain.add(vec!["a".into()]).unwrap(), 1);
    manager.audit().unwrap();
}

#[test]
fn the_manager_is_asked_for_nothing_that_is_not_there() {
    let manager = crate::manager();
    let plain = manager.create(Plain::new, ()).unwrap();
    let raw = Raw::connect(&manager);
    let reach = |kind: u8, id: u64| raw.call(Call::Reach, &[&[kind][..], &id.to_le_bytes()].concat()).map(|fd| fd.is_some());
    assert!(reach(0, 999).unwrap_err().contains("ended"));
    assert!(reach(REACH_MEMORY, 999).unwrap_err().contains("ended"));
    // An object of a user's type is made by a host.
    let mut new = vec![64u8, 0];
    new.extend_from_slice(&[0; 4 + 8 + 4 + 4]);
    assert!(raw.call(Call::Create, &new).unwrap_err().contains("made by the host"));
    // Types are offered by a host.
    let other = Raw::connect(&manager);
    assert!(other.call(Call::Offer, b"Type").is_err());
    // Another build has no host here, and is told who has.
    let mut build = vec![0u8];
    build.extend_from_slice(&[7; 8 + 32]);
    build.extend_from_slice(&3u32.to_le_bytes());
    build.extend_from_slice(b"abc");
    let error = raw.call(Call::FindHost, &build).unwrap_err();
    assert!(error.contains("was started by another program") && error.contains("has Plain"), "{error}");
    assert_eq!(plain.add(vec![]).unwrap(), 0);
    manager.audit().unwrap();
}

#[test]
fn a_line_by_hand_is_served_and_nonsense_ends_it() {
    let manager = crate::manager();
    let plain = manager.create(Plain::new, ()).unwrap();
    let (id, interface) = (plain.id(), fingerprint::<PlainProxy>());
    let raw = Raw::connect(&manager);
    let good = frame(Ask::Call as u8, 7, &ask(id, interface, 0, &[0; 8], &[(0, 8)], &[]));
    let (line, _) = raw.line_with_memory();
    for part in good.chunks(5) {
        assert_eq!(line.send(part).unwrap(), part.len());
    }
    let (head, _) = frame_on(&line).expect("an answer");
    assert_eq!((head.code, head.number), (Answer::Done as u8, 7));
    // A head that claims more than any frame may have; one that cannot be; a payload that is cut.
    let bomb = Head { len: u32::MAX, code: Ask::Call as u8, quiet: false, lane: 0, number: 1 };
    for nonsense in [bomb.to_bytes().to_vec(), frame(99, 1, &good[16..]), frame(Ask::Call as u8, 1, &good[16..40])] {
        let (line, _) = raw.line_with_memory();
        line.send(&nonsense).unwrap();
        assert!(frame_on(&line).is_none());
    }
    // Words that say more than can be: whoever looks at them hangs up. Or that it sleeps, or looks: that delays nobody but the caller.
    for (word, value, ends) in [
        (128, LINE_RING_BYTES as u64 + 1, true),
        (128, u64::MAX, true),
        (136, 1 << 40, true),
        (160, 99, true),
        (272, 1, false),
        (144, 99, false),
    ] {
        let (line, scribbled) = raw.line_with_memory();
        line.send(&good).unwrap();
        assert!(frame_on(&line).is_some());
        scribbled.word(word).store(value, Ordering::Relaxed);
        // Its host is rung for, whatever it says of itself; one that was awake may have hung up by then.
        let rung = line.socket().send(&[0]);
        assert!(ends || rung.is_ok());
        if matches!(word, 136 | 160) {
            // Looked at when it has something to say, or to run.
            let _ = line.send(&good);
            let _ = line.socket().send(&[0]);
        }
        if ends {
            let mut bytes = [0; 64];
            while line.socket().receive_before(&mut bytes, &mut Vec::new(), 0, Instant::now() + PATIENCE).unwrap() != Received::Ended {}
        } else {
            line.send(&good).unwrap();
            line.socket().send(&[0]).unwrap();
            assert!(frame_on(&line).is_some(), "word {word}");
        }
    }
    assert_eq!(plain.add(vec!["a".into()]).unwrap(), 1);
    manager.audit().unwrap();
}

/// Bytes and words of a line are changed while they are read and written.
#[test]
fn scribbling_on_a_line_at_any_moment() {
    scribble(0);
}

#[test]
fn scribbling_on_a_line_of_calls_ahead_at_any_moment() {
    scribble(AHEAD);
}

/// Lane of calls that are made ahead.
const AHEAD: u16 = 1;

/// Calls that are called off by hand: twice, before they come, when they are over, of a number that two have, and many that are not there.
#[test]
fn whatever_is_called_off_touches_nobody_elses_calls() {
    let manager = crate::manager();
    let plain = manager.create(Plain::new, ()).unwrap();
    let payload = ask(plain.id(), fingerprint::<PlainProxy>(), 0, &[0; 8], &[(0, 8)], &[]);
    let call = |number: u64| {
        let head = Head { len: payload.len() as u32, code: Ask::Call as u8, quiet: false, lane: AHEAD, number };
        [&head.to_bytes()[..], &payload].concat()
    };
    let off = |number: u64| frame(Ask::CallOff as u8, number, &[]);
    let raw = Raw::connect(&manager);
    let (line, _) = raw.line_with_memory();
    let mut bytes = [call(1), off(2), off(1), off(1), call(2), call(3), call(3), off(3)].concat();
    bytes.extend((0..500).flat_map(|number| off(1_000 + number)));
    bytes.extend(call(4));
    assert_eq!(line.send(&bytes).unwrap(), bytes.len());
    // Each is answered once at the most, and the last one is: it was not called off.
    let mut answers = Vec::new();
    while answers.last().is_none_or(|(number, _)| *number != 4) {
        let (head, payload) = frame_on(&line).expect("an answer");
        let error = (head.code != Answer::Done as u8).then(|| parse_error(&mut Reader::new(&payload)).unwrap());
        assert!(error.as_ref().is_none_or(commonhold::Error::is_cancelled), "{error:?}");
        answers.push((head.number, error.is_none()));
    }
    assert!(answers.contains(&(4, true)) && answers.contains(&(2, true)), "{answers:?}");
    for number in [1, 2, 4] {
        assert_eq!(answers.iter().filter(|(of, _)| *of == number).count(), 1, "{answers:?}");
    }
    // On a line for one call at a time there is nothing to be called off.
    let (line, _) = raw.line_with_memory();
    line.send(&off(1)).unwrap();
    assert!(frame_on(&line).is_none());
    assert_eq!(plain.add(vec!["a".into()]).unwrap(), 1);
    manager.audit().unwrap();
}

fn scribble(lane: u16) {
    let manager = crate::manager();
    let plain = manager.create(Plain::new, ()).unwrap();
    let mut good = frame(Ask::Call as u8, 7, &ask(plain.id(), fingerprint::<PlainProxy>(), 0, &[0; 8], &[(0, 8)], &[]));
    let head = Head { lane, ..Head::parse(&good).unwrap() };
    good[..HEAD_BYTES].copy_from_slice(&head.to_bytes());
    scribble_with(&manager, &good, || plain.add(vec![]).is_ok());
    manager.audit().unwrap();
}

/// Asks this on lines that are scribbled on meanwhile, and looks after each whether others are served.
pub fn scribble_with(manager: &Manager, good: &[u8], is_served: impl Fn() -> bool) {
    let raw = Raw::connect(manager);
    let mut answered = 0;
    for round in 0..30u64 {
        let (line, scribbled) = raw.line_with_memory();
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut state = round + 1;
                let mut below = |most: u64| {
                    state ^= state << 13;
                    state ^= state >> 7;
                    state ^= state << 17;
                    state % most
                };
                while !stop.load(Ordering::Relaxed) {
                    // Now and then a word of either side; else a byte of what has been sent or answered.
                    let word = match below(200) {
                        0 => 8 * (16 + below(20)),
                        1..100 => 4096 + 8 * below(2048),
                        _ => 4096 + LINE_RING_BYTES as u64 + 8 * below(2048),
                    };
                    let word = scribbled.word(word as usize);
                    word.store(word.load(Ordering::Relaxed) ^ 1 << below(64), Ordering::Relaxed);
                    std::thread::yield_now();
                }
            });
            for _ in 0..50 {
                // Scribbled words may say that there is no room, or that the host looks.
                if !matches!(line.send(good), Ok(count) if count == good.len()) || line.socket().send(&[0]).is_err() {
                    break;
                }
                let until = || Some(Instant::now() + std::time::Duration::from_millis(20));
                let Ok(Waited::Ready) = line.wait(Wanted::Bytes, &mut Spin::new(), until) else { break };
                if line.receive(LINE_RING_BYTES, &mut AlignedVec::new()).is_err() {
                    break;
                }
                answered += 1;
            }
            stop.store(true, Ordering::Relaxed);
        });
        drop(line);
        assert!(is_served(), "round {round}");
    }
    assert!(answered > 0);
}

/// A host by hand, and the line on which it is called.
pub struct RawHost {
    pub raw: Raw,
    control: Channel,
    descriptors: Vec<OwnedFd>,
    line: Option<(LineEnd, Segment)>,
    /// The manager's number of the line of the last call.
    pub number: u64,
}

impl RawHost {
    pub fn new(manager: &Manager) -> RawHost {
        RawHost::of_build(manager, &[&[0u8][..], &[7; 8 + 32], &3u32.to_le_bytes(), b"abc"].concat())
    }

    /// For the program of a build.
    pub fn of_build(manager: &Manager, build: &[u8]) -> RawHost {
        let raw = Raw::connect(manager);
        let control = Channel::from_fd(raw.call(Call::Host, build).unwrap().unwrap()).unwrap();
        RawHost { raw, control, descriptors: Vec::new(), line: None, number: 0 }
    }

    /// An object that it claims to have, as an example of the type is described.
    pub fn make(&self, manager: &Manager, example: &PlainProxy) -> PlainProxy {
        let described = manager.objects().unwrap().into_iter().find(|object| object.id == example.id()).unwrap();
        let mut payload = Vec::new();
        let text = described.type_text.as_str();
        NewObject { kind: 64, fingerprint: fingerprint::<PlainProxy>(), text, ..Default::default() }.write(&mut payload);
        self.raw.channel.send_all(&frame(Call::Create as u8, 1, &payload), &[], Instant::now() + PATIENCE).unwrap();
        let (head, payload) = read_frame(&self.raw.channel, &mut Vec::new()).unwrap();
        assert_eq!(head.code, 0, "{:?}", parse_error(&mut Reader::new(&payload)));
        let id = u64::from_le_bytes(payload[9..17].try_into().unwrap());
        let token = example.token().unwrap().to_string().replace(&format!(":{}:", example.id()), &format!(":{id}:"));
        token.parse::<commonhold::Token>().unwrap().open().unwrap()
    }

    /// The next call, on a new line if there is none: its number.
    fn called(&mut self) -> u64 {
        self.asked().0.number
    }

    /// Says something on the line of the last call.
    pub fn say(&self, bytes: &[u8]) {
        let line = &self.line.as_ref().expect("there was a call").0;
        assert_eq!(line.send(bytes).unwrap(), bytes.len());
    }

    /// Falls asleep over the line of the last call, and ends it: who sends on it finds that out at once.
    pub fn hang_up(&mut self) {
        let (line, _) = self.line.take().expect("there was a call");
        assert!(line.fall_asleep(), "nothing was sent meanwhile");
    }

    /// The next line that the manager tells of: its number. It is not served.
    pub fn told(&mut self) -> u64 {
        loop {
            let (head, _) = read_frame(&self.control, &mut self.descriptors).unwrap();
            if head.code == Tell::Line as u8 {
                return head.number;
            }
        }
    }

    /// The next call, as it has come.
    pub fn asked(&mut self) -> (Head, AlignedVec<16>) {
        loop {
            if let Some(frame) = self.line.as_ref().and_then(|(line, _)| frame_on(line)) {
                return frame;
            }
            let (head, payload) = read_frame(&self.control, &mut self.descriptors).unwrap();
            if head.code == Tell::Leash as u8 {
                drop(self.descriptors.pop().unwrap());
                continue;
            }
            assert_eq!((head.code, &payload[..]), (Tell::Line as u8, &[LINE_MEMORY][..]));
            let socket = Channel::from_fd(self.descriptors.pop().unwrap()).unwrap();
            let memory = memory_of(&socket);
            let scribbled = Segment::map(&memory, LINE_BYTES, Access::ReadWrite).unwrap();
            self.line = Some((LineEnd::map(&memory, socket, Side::Host).unwrap(), scribbled));
            self.number = head.number;
        }
    }
}

/// A host that says what it likes: its callers get errors, and no wrong results.
#[test]
fn a_caller_believes_nothing_of_a_host() {
    let manager = Manager::start().unwrap();
    let example = manager.create(Plain::new, ()).unwrap();
    let mut host = RawHost::new(&manager);
    let plain = host.make(&manager, &example);
    let mut serve = |answer: &dyn Fn(u64, &LineEnd, &Segment)| {
        let caller = std::thread::spawn({
            let plain = plain.clone();
            move || plain.with_timeout(PATIENCE).add(vec!["a".into()])
        });
        let number = host.called();
        let (line, scribbled) = host.line.as_ref().unwrap();
        answer(number, line, scribbled);
        caller.join().unwrap().map_or_else(|error| error.to_string(), |number| number.to_string())
    };
    let mut result = Vec::new();
    write_result(&mut result, Words::default(), &5u64.to_le_bytes());
    let answers: [(&str, u8, &[u8]); 7] = [
        ("5", Answer::Done as u8, &result),
        ("result", Answer::Done as u8, &result[..3]),
        ("archive", Answer::Done as u8, &result[..20]),
        ("result", Answer::Failed as u8, &[0xff; 3]),
        ("result", Answer::Panicked as u8, &[0xff; 3]),
        ("result", 77, &result),
        ("5", Answer::Done as u8, &result),
    ];
    for (what, code, payload) in answers {
        let said = serve(&|number, line, _| assert!(line.send(&frame(code, number, payload)).unwrap() > 0));
        assert!(said.contains(what), "{what}: {said}");
    }
    // More than any frame may be; words that cannot be; an end.
    let bomb = Head { len: u32::MAX, code: 0, quiet: false, lane: 0, number: 1 }.to_bytes();
    let said = serve(&|_, line, _| assert_eq!(line.send(&bomb).unwrap(), bomb.len()));
    assert!(said.contains("call"), "{said}");
    let said = serve(&|_, line, scribbled| {
        scribbled.word(256).store(u64::MAX, Ordering::Relaxed);
        line.socket().send(&[0]).unwrap();
    });
    assert!(said.contains("makes no sense"), "{said}");
    let said = serve(&|_, line, _| line.socket().shut_down());
    assert!(said.contains("has ended"), "{said}");
    assert_eq!(example.add(vec![]).unwrap(), 0);
    manager.audit().unwrap();
}

/// Where an object is, its record says: no line is opened to find out, one that is there is taken.
#[test]
fn all_objects_of_a_host_are_called_on_lines_that_are_there() {
    let manager = Manager::start().unwrap();
    let example = manager.create(Plain::new, ()).unwrap();
    let mut host = RawHost::new(&manager);
    let objects: Vec<_> = (0..20).map(|_| host.make(&manager, &example)).collect();
    let mut result = Vec::new();
    write_result(&mut result, Words::default(), &5u64.to_le_bytes());
    let mut serve = |call: &(dyn Fn() -> commonhold::Result<u64> + Sync)| {
        std::thread::scope(|scope| {
            let caller = scope.spawn(call);
            let number = host.called();
            let line = &host.line.as_ref().unwrap().0;
            assert!(line.send(&frame(Answer::Done as u8, number, &result)).unwrap() > 0);
            assert_eq!(caller.join().unwrap().unwrap(), 5);
        });
    };
    objects.iter().for_each(|object| serve(&|| object.with_timeout(PATIENCE).add(vec![])));
    objects.iter().for_each(|object| serve(&|| object.call_async().add(vec![])?.get()));
    assert_eq!(host.control.receive(&mut [0; 64]).unwrap(), Received::Nothing, "there is no other line");
}

/// Where there is no memory for another thread's stack.
#[test]
fn lines_without_a_thread_are_refused_with_a_reason() {
    use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};
    let manager = crate::manager();
    let plain = manager.create(Plain::new, ()).unwrap();
    assert_eq!(plain.add(vec![]).unwrap(), 0);
    let host = crate::deaths::host_of(&manager).pid;
    let raw = Raw::connect(&manager);
    let statm = std::fs::read_to_string(format!("/proc/{host}/statm")).unwrap();
    let has = statm.split(' ').next().unwrap().parse::<u64>().unwrap() * rustix::param::page_size() as u64;
    let Rlimit { current: usual, maximum } = getrlimit(Resource::As);
    let limit = |current| prlimit(Pid::from_raw(host as i32), Resource::As, Rlimit { current, maximum }).unwrap();
    // A stack has two megabytes.
    limit(Some(has + (1 << 20)));
    let good = frame(Ask::Call as u8, 7, &ask(plain.id(), fingerprint::<PlainProxy>(), 0, &[0; 8], &[(0, 8)], &[]));
    let answer_on = |line: &Channel| {
        // One that is refused may be closed before it is asked.
        let _ = line.send_all(&good, &[], Instant::now() + PATIENCE);
        read_frame(line, &mut Vec::new()).expect("an answer")
    };
    let mut lines = Vec::new();
    let (head, payload) = loop {
        let line = raw.line();
        let (head, payload) = answer_on(&line);
        if head.code != Answer::Done as u8 {
            break (head, payload);
        }
        // Stacks of threads that have ended are used again.
        lines.push(line);
        assert!(lines.len() < 100, "there is no end of threads");
    };
    assert_eq!((head.code, head.number), (Answer::Failed as u8, 0));
    let error = parse_error(&mut Reader::new(&payload)).unwrap().to_string();
    assert_eq!(
        error,
        "the host has no thread for another caller: raise its limits (`ulimit -u`, `ulimit -v`, pids.max), or let some calls end first"
    );
    // The line that is there goes on, and when there is memory again, others do.
    assert_eq!(plain.add(vec!["a".into()]).unwrap(), 1);
    limit(usual);
    assert_eq!(answer_on(&raw.line()).0.code, Answer::Done as u8);
    manager.audit().unwrap();
}

/// A host serves as many lines as it has threads for, and says so to whoever comes then.
#[test]
fn lines_beyond_the_most_are_refused_with_a_reason() {
    use commonhold_ipc::limits::REMOTE_LINES_MAX;
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    // What they take is a process's to give, to us and to the host, which has our limit: as much as may be had.
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let needed = REMOTE_LINES_MAX as u64 + 200;
    if current.is_some_and(|current| current < needed) {
        if maximum.is_some_and(|maximum| maximum < needed) {
            // Not by a macro, whose output is kept from who reads.
            let text = format!("SKIPPED: lines_beyond_the_most_are_refused_with_a_reason needs `ulimit -Hn` of {needed}\n");
            return std::io::stderr().write_all(text.as_bytes()).unwrap();
        }
        setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).unwrap();
    }
    let manager = crate::manager();
    let plain = manager.create(Plain::new, ()).unwrap();
    assert_eq!(plain.add(vec![]).unwrap(), 0);
    let raw = Raw::connect(&manager);
    let lines: Vec<_> = (0..REMOTE_LINES_MAX).map(|_| raw.line()).collect();
    let (head, payload) = read_frame(&raw.line(), &mut Vec::new()).expect("an answer");
    assert_eq!((head.code, head.number), (Answer::Failed as u8, 0));
    let error = parse_error(&mut Reader::new(&payload)).unwrap().to_string();
    assert_eq!(error, "the host serves as many callers at a time as it can: let some calls end first");
    // The line that is there goes on, and those that are let go of make room.
    assert_eq!(plain.add(vec!["a".into()]).unwrap(), 1);
    drop(lines);
    let good = frame(Ask::Call as u8, 7, &ask(plain.id(), fingerprint::<PlainProxy>(), 0, &[0; 8], &[(0, 8)], &[]));
    crate::support::until("there is room again", || {
        let line = raw.line();
        line.send_all(&good, &[], Instant::now() + PATIENCE).is_ok()
            && read_frame(&line, &mut Vec::new()).is_some_and(|(head, _)| head.code == Answer::Done as u8)
    });
    manager.audit().unwrap();
}

/// The other thread is on its way to the host, and waits until the value has been sent.
#[test]
fn a_value_that_calls_an_object_that_another_thread_calls_first_is_told_so() {
    let manager = Manager::builder().lanes(false).start().unwrap();
    let plain = manager.create(Plain::new, ()).unwrap();
    let dict = manager.dict::<u64, Vec<u8>>([(0, vec![])]).unwrap();
    let (done, ended) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let (looks, refused) = (Cell::new(0), RefCell::new(None));
        let (sender, other) = std::sync::mpsc::channel();
        std::thread::scope(|scope| {
            let value = Afterwards(|| {
                looks.set(looks.get() + 1);
                // First it is only counted.
                if looks.get() == 2 {
                    scope.spawn(|| {
                        sender.send(rustix::thread::gettid().as_raw_nonzero().get()).unwrap();
                        assert_eq!(plain.call_async().add(vec![]).unwrap().get().unwrap(), 0);
                    });
                    let other = other.recv().unwrap();
                    crate::support::until("the other waits for its turn", || {
                        crate::support::sleeps_in(std::process::id(), other).is_some()
                    });
                    refused.replace(plain.call_async().add(vec![]).err());
                }
            });
            dict.insert(1, value).unwrap();
        });
        assert_eq!(plain.call_async().add(vec!["a".into()]).unwrap().get().unwrap(), 1);
        manager.audit().unwrap();
        done.send(refused.take().expect("an error").to_string()).unwrap();
    });
    let refused = ended.recv_timeout(PATIENCE).expect("it ends");
    assert!(refused.starts_with("a call to the manager from within the code that writes a value"), "{refused}");
}
