//! Who calls without end, by lanes or sockets, has its turns and no more: how many calls of others come before a call is counted by the
//! manager itself, which stands still while the call is made.

use super::lanes::{ALIVE, Hands, head};
use super::*;
use commonhold::Counter;
use commonhold_ipc::lane::{LANES, Posted, Waited};
use commonhold_ipc::socket::Spin;
use rustix::process::{Pid, Signal, kill_process};
use std::sync::atomic::AtomicBool;

/// Small calls that the manager does for one session before the others have their turn.
const TURN: u64 = 64;
/// Turns of a flood that may come before a call: one is done and not published yet, in one the call is not seen yet, one comes first in
/// the round that sees it. And one for good measure.
const TURNS_MAX: u64 = 4;

/// A flood, as its maker counts it.
#[derive(Default)]
struct Flood {
    /// Calls that are not answered yet.
    outstanding: AtomicU64,
    /// How often there was nothing to do for its maker: the manager takes no more.
    stuck: AtomicU64,
}

impl Flood {
    fn note(&self, outstanding: u64, stuck: bool) {
        self.outstanding.store(outstanding, Ordering::Relaxed);
        if stuck {
            self.stuck.fetch_add(1, Ordering::Release);
            std::thread::yield_now();
        }
    }

    /// All lanes of a session, posted on again as soon as they are answered.
    fn by_lanes(&self, hands: &Hands, request: &[u8], stop: &AtomicBool) {
        while !stop.load(Ordering::Relaxed) {
            let free: Vec<u16> = (1..LANES as u16).filter(|lane| hands.lanes.is_free(*lane)).collect();
            let post = |lane: &u16| hands.lanes.post(*lane, head(Call::Commit as u8, request.len()), Ok(request)).1;
            if free.iter().filter(|lane| post(lane) == Posted::Unseen).count() > 0 {
                hands.raw.request(Call::Ring as u8, 1, 0, &[]);
            }
            self.note(LANES as u64 - 1, free.is_empty());
        }
    }

    /// As many calls as a socket holds, one behind the other.
    fn by_socket(&self, raw: &Raw, request: &[u8], stop: &AtomicBool) {
        let request = frame(Call::Commit as u8, 1, 1, request);
        let (many, mut answers) = (request.repeat(1_000), vec![0; 65_536]);
        let (mut sent, mut received) = (0, 0);
        while !stop.load(Ordering::Relaxed) {
            let more = raw.channel.send(&many[sent % request.len()..]).unwrap();
            sent += more;
            let got = match raw.channel.receive(&mut answers).unwrap() {
                Received::Bytes(bytes) => bytes,
                _ => 0,
            };
            received += got;
            // Each answers with a version and a number.
            self.note((sent / request.len() - received / (HEAD_BYTES + 8 + 9)) as u64, more == 0 && got == 0);
        }
    }
}

/// Stops the manager, and waits until it stands still and the floods have come to a stand, too.
fn stand_still(process: Pid, floods: &[Flood]) {
    kill_process(process, Signal::STOP).unwrap();
    let until = patience();
    let stat = format!("/proc/{}/stat", process.as_raw_nonzero());
    while !std::fs::read_to_string(&stat).unwrap().rsplit_once(") ").unwrap().1.starts_with('T') {
        assert!(Instant::now() < until, "the manager does not stand still");
        std::thread::yield_now();
    }
    for flood in floods {
        let before = flood.stuck.load(Ordering::Acquire);
        while flood.stuck.load(Ordering::Acquire) < before + 2 {
            assert!(Instant::now() < until, "a flood without end");
            std::thread::yield_now();
        }
    }
}

/// What the counter was when a call was done.
fn sum(payload: &[u8]) -> u64 {
    let mut read = Reader::new(payload);
    read.u64().expect("a version");
    match Outcome::parse(&mut read) {
        Some(Outcome::Number(sum)) => sum,
        other => panic!("{other:?}"),
    }
}

/// Calls by socket and by lane, in turn, beside so many floods of either kind.
fn calls_beside(by_lanes: usize, by_sockets: usize) {
    let scene = Scene::new();
    let counter: Counter = scene.manager.counter(0).unwrap();
    let request = commit(&[], &[Op::CounterAdd { object: counter.id(), delta: 1 }]);
    let process = Pid::from_raw(scene.process).unwrap();
    let all_lanes: Vec<Hands> = (0..by_lanes).map(|_| Hands::new(&scene)).collect();
    let sockets: Vec<Raw> = (0..by_sockets).map(|_| Raw::connect(&scene.manager)).collect();
    let (mut by_socket, by_lane) = (Raw::connect(&scene.manager), Hands::new(&scene));
    let floods: Vec<Flood> = (0..by_lanes + by_sockets).map(|_| Flood::default()).collect();
    let before_max = TURNS_MAX * TURN * floods.len() as u64;
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let (stop, request) = (&stop, &request);
        // A panic below must end the floods, and not leave a manager behind that stands still.
        let _stopped = Ending { stop, process };
        for (flood, hands) in floods.iter().zip(&all_lanes) {
            scope.spawn(move || flood.by_lanes(hands, request, stop));
        }
        for (flood, raw) in floods[by_lanes..].iter().zip(&sockets) {
            scope.spawn(move || flood.by_socket(raw, request, stop));
        }
        for at in 0..u64::from(cases(20)) {
            let (begun, until) = (counter.get().unwrap(), patience());
            while counter.get().unwrap() < begun + 500 {
                assert!(Instant::now() < until, "the floods are not served");
                std::thread::yield_now();
            }
            stand_still(process, &floods);
            let outstanding: u64 = floods.iter().map(|flood| flood.outstanding.load(Ordering::Relaxed)).sum();
            assert!(outstanding > before_max, "{outstanding} calls are no flood");
            let before = counter.get().unwrap() as u64;
            let done = if at % 2 == 0 {
                by_socket.request(Call::Commit as u8, 1, 1, request);
                kill_process(process, Signal::CONT).unwrap();
                sum(&by_socket.next().expect("an answer").1)
            } else {
                let mark = by_lane.post(1, head(Call::Commit as u8, request.len()), Ok(request));
                kill_process(process, Signal::CONT).unwrap();
                assert_eq!(by_lane.lanes.wait(1, mark, &ALIVE, Some(&mut Spin::new())).unwrap(), Waited::Answered);
                sum(&by_lane.lanes.small_reply(1))
            };
            let road = ["socket", "lane"][at as usize % 2];
            assert!(done - before <= before_max, "{} calls of {} came before one by {road}", done - before, floods.len());
        }
    });
    drop((all_lanes, sockets, by_socket, by_lane, counter));
    scene.end();
}

/// Ends the floods, beside a manager that goes on.
struct Ending<'a> {
    stop: &'a AtomicBool,
    process: Pid,
}

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = kill_process(self.process, Signal::CONT);
    }
}

#[test]
fn calls_beside_a_flood_by_lanes() {
    calls_beside(1, 0);
}

#[test]
fn calls_beside_a_flood_by_a_socket() {
    calls_beside(0, 1);
}

#[test]
fn calls_beside_floods_by_both() {
    calls_beside(2, 2);
}

/// What many sessions ask for while the manager stands still is found together, and published together.
#[test]
fn requests_by_sockets_that_are_found_together_are_one_version() {
    let scene = Scene::new();
    let counter: Counter = scene.manager.counter(0).unwrap();
    let request = commit(&[], &[Op::CounterAdd { object: counter.id(), delta: 1 }]);
    let process = Pid::from_raw(scene.process).unwrap();
    let mut sockets: Vec<Raw> = (0..8).map(|_| Raw::connect(&scene.manager)).collect();
    let goes_on = Ending { stop: &AtomicBool::new(false), process };
    stand_still(process, &[]);
    let before = scene.manager.version();
    for raw in &sockets {
        (0..3).for_each(|number| raw.request(Call::Commit as u8, 1, number, &request));
    }
    drop(goes_on);
    let mut sums = Vec::new();
    for raw in &mut sockets {
        for _ in 0..3 {
            let (_, payload) = raw.next().expect("an answer");
            assert_eq!(Reader::new(&payload).u64(), Some(before + 1));
            sums.push(sum(&payload));
        }
    }
    sums.sort_unstable();
    assert!(sums.into_iter().eq(1..=24), "each is done once");
    assert_eq!(scene.manager.version(), before + 1);
    drop((sockets, counter));
    scene.end();
}

#[test]
fn who_says_no_more_and_hears_nothing_is_not_waited_for() {
    let scene = Scene::new();
    let raw = Raw::connect(&scene.manager);
    let many = frame(Call::Stats as u8, 1, 1, &[]).repeat(1_000);
    // Until the manager takes no more, as the answers are not read.
    let (mut sent, mut in_vain) = (0, 0);
    while in_vain < 3 {
        match raw.channel.send(&many[sent % many.len()..]).unwrap() {
            0 => {
                in_vain += 1;
                scene.step();
            }
            more => (sent, in_vain) = (sent + more, 0),
        }
    }
    assert_eq!(scene.manager.stats().unwrap().sessions, 2);
    rustix::net::shutdown(&raw.channel, rustix::net::Shutdown::Write).unwrap();
    // It would look at what it does not read again and again.
    scene.quiet();
    drop(raw);
    scene.end();
}
