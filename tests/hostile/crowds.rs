//! Peers that come in crowds, hang, hoard, or are stopped.

use super::*;

#[test]
fn floods_of_descriptors() {
    let scene = Scene::new();
    let file = std::fs::File::open("/dev/null").unwrap();
    let fds = [file.as_fd(); 4];
    let channel = Channel::connect(scene.manager.address(), patience()).unwrap();
    for byte in hello(Versions::ours(ARCHIVE_FORMAT), 1) {
        channel.send_all(&[byte], &fds, patience()).unwrap();
    }
    let raw = Raw::connect(&scene.manager);
    let stats = frame(Call::Stats as u8, 1, 1, &[]);
    for _ in 0..200 {
        raw.channel.send_all(&stats, &fds, patience()).unwrap();
    }
    let upload = UploadHead { prefix: 16, len: 100_000, handles: 0 };
    raw.send(&Head { len: 100_016, code: Call::Upload as u8, quiet: false, lane: 0, number: 1 }.to_bytes());
    raw.send(&upload.to_bytes());
    for _ in 0..100 {
        raw.channel.send_all(&[1; 500], &fds, patience()).unwrap();
    }
    scene.step();
    scene.quiet_but(2);
    drop((raw, channel));
    scene.end();
}

#[test]
fn crowds_that_connect_and_hang() {
    let scene = Scene::new();
    let crowd: Vec<Channel> = (0..300).map(|_| Channel::connect(scene.manager.address(), patience()).unwrap()).collect();
    scene.step();
    // Who means it still gets in.
    for _ in 0..10 {
        let mut raw = Raw::connect(&scene.manager);
        assert!(matches!(raw.call(Call::Names, &[]), Answer::Done(_)));
        scene.step();
    }
    // The one that has hung longest made room, and has been told why.
    let (mut told, mut buffer) = (Vec::new(), [0; 512]);
    while let Received::Bytes(count) = crowd[0].receive_before(&mut buffer, &mut Vec::new(), 0, patience()).unwrap() {
        told.extend_from_slice(&buffer[..count]);
    }
    assert!(String::from_utf8_lossy(&told).ends_with("or 256 others were waited for: try again, it or the machine was busy"));
    drop(crowd);
    scene.end();
}

#[test]
fn one_who_never_reads() {
    let scene = Scene::new();
    let raw = Raw::connect(&scene.manager);
    let stats = frame(Call::Stats as u8, 1, 1, &[]);
    let many = stats.repeat(1000);
    // Until the manager takes no more: its answers fill the socket and then its own buffer.
    let mut sent = 0usize;
    let mut idle = 0;
    while idle < 200 {
        match raw.channel.send(&many[sent % stats.len()..]).unwrap() {
            0 => idle += 1,
            count => (sent, idle) = (sent + count, 0),
        }
        scene.step();
    }
    assert!(sent < 64 << 20, "{sent} bytes of requests were taken");
    // Reads after all: everything is answered.
    let mut raw = raw;
    for _ in 0..sent / stats.len() {
        assert!(matches!(raw.answer(), Answer::Done(_)));
    }
    raw.send(&stats[sent % stats.len()..]);
    drop(raw);
    scene.end();
}

#[test]
fn one_who_is_stopped_in_the_middle_of_a_frame() {
    let scene = Scene::new();
    let mut peer = Peer::spawn("crowds::role_half_a_frame", scene.manager.address());
    assert_eq!(peer.hear(), "half");
    peer.stop();
    for _ in 0..100 {
        scene.step();
    }
    peer.go_on();
    assert_eq!(peer.ask("rest"), "answered");
    peer.tell("half again");
    assert_eq!(peer.hear(), "half");
    peer.stop();
    scene.step();
    drop(peer);
    scene.end();
}

#[test]
fn role_half_a_frame() {
    let Some(address) = task() else { return };
    let offer = ClientOffer { versions: Versions::ours(ARCHIVE_FORMAT), purpose: Purpose::Session, authkey: None };
    let (channel, welcome, fds) = handshake::connect(&address.parse().unwrap(), &offer, patience()).unwrap();
    let mut raw = Raw { channel, welcome, fds, received: Vec::new(), refused: None };
    assert!(raw.welcome.session > 0);
    let stats = frame(Call::Stats as u8, 1, 1, &[]);
    loop {
        raw.send(&stats[..7]);
        say("half");
        if heard().is_none() {
            return;
        }
        raw.send(&stats[7..]);
        assert!(matches!(raw.answer(), Answer::Done(_)));
        say("answered");
        if heard().is_none() {
            return;
        }
    }
}

#[test]
fn tickets_that_are_hoarded() {
    let scene = Scene::new();
    let mut raw = Raw::connect(&scene.manager);
    for number in 0..50 {
        raw.request(Call::Ticket as u8, number, 1, &[]);
    }
    assert!(matches!(raw.answer(), Answer::Done(_)));
    let start = Instant::now();
    scene.step();
    // Four commits, each behind one ticket's time at the most, and not behind all fifty (ten seconds).
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    drop(raw);
    scene.end();
}

/// Who gives a ticket back and asks for the next one in one breath, while another's commit waits for it.
#[test]
fn tickets_one_after_the_other() {
    let scene = Scene::new();
    let dict: Dict<u64, u64> = scene.manager.dict([(1u64, 1u64)]).unwrap();
    let [mut greedy, mut other] = [(); 2].map(|()| Raw::connect(&scene.manager));
    let number_of = |answer| match answer {
        Answer::Done(outcomes) => match outcomes[..] {
            [Outcome::Number(number)] => number,
            ref other => panic!("{other:?}"),
        },
        other => panic!("{other:?}"),
    };
    let mut ticket = number_of(greedy.call(Call::Ticket, &[]));
    for round in 2..20u64 {
        let number = round.to_le_bytes();
        let insert =
            Op::Insert { object: dict.id(), key: &1u64.to_le_bytes(), value: Payload::inline(&number), only_if_absent: false, lend: false };
        other.request(Call::Commit as u8, 1, round, &commit(&[], &[insert]));
        // Then the commit has come as well, and waits: unless this ticket's time is over.
        assert!(matches!(greedy.call(Call::Names, &[]), Answer::Done(_)));
        let back = |number: u64| frame(Call::TicketBack as u8, 0, 0, &number.to_le_bytes());
        // All of it is read in one round; or it takes two turns, so that the next ticket is asked for in the round of those who have waited.
        let nothing = back(0).repeat(if round % 2 == 0 { 0 } else { 150 });
        greedy.send(&[back(ticket), nothing, frame(Call::Ticket as u8, 1, 1, &[])].concat());
        ticket = number_of(greedy.answer());
        assert_eq!(*dict.get(1).unwrap().unwrap(), round, "its turn comes before the next ticket");
        assert!(matches!(other.answer(), Answer::Done(_)));
    }
    drop((greedy, other, dict));
    scene.end();
}

/// More tickets at a time than a session has lanes: nobody remembers them all.
#[test]
fn tickets_without_end() {
    let scene = Scene::new();
    let mut raw = Raw::connect(&scene.manager);
    let asked = frame(Call::Ticket as u8, 1, 1, &[]).repeat(4_000);
    raw.send(&asked);
    raw.closed();
    drop(raw);
    scene.end();
}

/// Few bytes and much work: a turn is not counted in bytes alone.
#[test]
fn short_requests_of_long_work() {
    let scene = Scene::new();
    let list: List<u64> = scene.manager.list(0..50_000u64).unwrap();
    let dict: Dict<u64, u64> = scene.manager.dict([(1u64, 1u64)]).unwrap();
    let mut raw = Raw::connect(&scene.manager);
    let mut requests = frame(Call::Commit as u8, 1, 1, &commit(&[], &[Op::ListReverse { object: list.id() }])).repeat(60);
    let value = Payload::inline(&[2, 0, 0, 0, 0, 0, 0, 0]);
    let last = Op::Insert { object: dict.id(), key: &1u64.to_le_bytes(), value, only_if_absent: false, lend: false };
    requests.extend(frame(Call::Commit as u8, 1, 1, &commit(&[], &[last])));
    raw.send(&requests);
    assert!(matches!(raw.answer(), Answer::Done(_)));
    scene.step();
    assert_eq!(*dict.get(1).unwrap().unwrap(), 1, "the others had to wait for all of it");
    (0..60).for_each(|_| assert!(matches!(raw.answer(), Answer::Done(_))));
    assert_eq!(*dict.get(1).unwrap().unwrap(), 2);
    drop((raw, list, dict));
    scene.end();
}

/// Bytes of memory that a process has.
fn resident(process: i32) -> u64 {
    let statm = std::fs::read_to_string(format!("/proc/{process}/statm")).unwrap();
    let pages: u64 = statm.split(' ').nth(1).unwrap().parse().unwrap();
    pages * rustix::param::page_size() as u64
}

#[test]
fn who_has_said_much_once_keeps_no_memory_for_that() {
    let scene = Scene::new();
    // References that nobody has: done at once, and not answered.
    let large = frame(Call::Release as u8, 0, 0, &vec![0xff; 16 << 20]);
    let say_much = || {
        let mut raw = Raw::connect(&scene.manager);
        raw.send(&large);
        raw.call(Call::Names, &[]);
        raw
    };
    drop(say_much());
    scene.quiet();
    let before = resident(scene.process);
    let raws: Vec<Raw> = (0..4).map(|_| say_much()).collect();
    let after = resident(scene.process);
    assert!(after < before + (16 << 20), "from {before} to {after} bytes");
    drop(raws);
    scene.end();
}
