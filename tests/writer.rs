//! Writers and deaths: a client dies at every counted point of a stream of writes, and the manager does. What has happened then is a
//! beginning of the row of writes, which holds everything that was acknowledged.
mod support;

use commonhold::{Counter, Dict, ErrorKind, Handle, List, Manager};
use commonhold_ipc::catalog;
use commonhold_ipc::points::{CLIENT_VARIABLE, MANAGER_VARIABLE};
use rustix::process::Signal;
use std::os::unix::process::ExitStatusExt;
use support::*;

commonhold::init_in_tests!();

/// Pairs of writes of one stream.
const PAIRS: u64 = 12;

/// Streams writes, some of them large, and says after each how many are acknowledged.
#[test]
fn role_streamer() {
    let Some(mut parent) = Parent::of("role_streamer") else { return };
    let list: List<u64> = parent.hear_handle();
    let texts: Dict<u64, Vec<u8>> = parent.hear_handle();
    let manager = Manager::connect(&list.token().unwrap().address().to_string()).unwrap();
    let mut writer = manager.writer().unwrap();
    for n in 0..PAIRS {
        writer.push(&list, n).unwrap();
        let bytes = [10, 3_000, 70_000][n as usize % 3];
        writer.insert(&texts, n, vec![n as u8; bytes]).unwrap();
        if n % 4 == 3 {
            writer.flush().unwrap();
        }
        parent.say(writer.acknowledged());
    }
    drop(writer);
    parent.say("done");
}

#[test]
fn a_client_dies_at_every_point_of_a_stream() {
    let said = clients_die(&Manager::start().unwrap(), &["upload: a part posted"]);
    assert!(!said.contains("upload: some bytes sent"), "{said}");
}

#[test]
fn a_client_dies_at_every_point_of_a_stream_by_the_socket() {
    let points = ["upload: some bytes sent", "request: in the middle of it", "request: sent", "reply: here"];
    clients_die(&Manager::builder().lanes(false).start().unwrap(), &points);
}

/// Clients die at every point of a stream, and surely at these. Returns what they have said of it.
fn clients_die(manager: &Manager, points: &[&str]) -> String {
    let said = tempfile::tempfile().unwrap();
    let list: List<u64> = manager.list::<u64>([]).unwrap();
    let texts: Dict<u64, Vec<u8>> = manager.dict::<u64, Vec<u8>>([]).unwrap();
    let objects = manager.stats().unwrap().objects;
    let deaths = dying_everywhere(points, |point, _| {
        list.clear().unwrap();
        texts.clear().unwrap();
        let mut client = Role::start_with("role_streamer", |command| {
            command.env(CLIENT_VARIABLE, point).stderr(said.try_clone().unwrap());
        });
        client.say(list.token().unwrap());
        client.say(texts.token().unwrap());
        let mut acknowledged = 0;
        while let Some(line) = client.hear() {
            acknowledged = line.parse().unwrap_or(2 * PAIRS);
        }
        let status = client.end();
        assert!(status.success() || status.signal() == Some(9), "{status}: {}", all_of(&said));
        until("the session of the dead client is gone", || manager.stats().unwrap().sessions == 1);
        let now = manager.snapshot().unwrap();
        let (pushed, inserted) = (list.at(&now).len() as u64, texts.at(&now).len() as u64);
        assert!(pushed + inserted >= acknowledged, "point {point}: {pushed} and {inserted}, acknowledged {acknowledged}");
        assert!(pushed == inserted || pushed == inserted + 1, "point {point}: a gap, {pushed} and {inserted}");
        assert!(list.at(&now).to_vec().into_iter().eq(0..pushed), "point {point}");
        assert!((0..inserted).all(|n| texts.at(&now).get(n).unwrap().iter().all(|byte| *byte == n as u8)), "point {point}");
        assert_eq!(manager.stats().unwrap().objects, objects, "point {point}");
        drop(now);
        manager.audit().unwrap();
        assert!(!status.success() || pushed + inserted == 2 * PAIRS, "{pushed} and {inserted}");
        !status.success()
    });
    println!("{deaths} clients have died");
    assert!(deaths > 20, "{deaths}");
    all_of(&said)
}

/// Starts a manager that will die, streams writes to it until it does, and looks at what has happened.
#[test]
fn role_streaming_owner() {
    let Some(mut parent) = Parent::of("role_streaming_owner") else { return };
    match stream_to_a_mortal() {
        Ok(0) => parent.say("done"),
        Ok(_) => parent.say("manager died"),
        // It was dead before all was ready.
        Err(error) if error.is_disconnected() || matches!(error.kind(), ErrorKind::NotFound | ErrorKind::System) => {
            parent.say("manager died early");
        }
        Err(error) => parent.say(format!("{error:?}")),
    }
}

/// Returns how many failures the writer told of.
fn stream_to_a_mortal() -> commonhold::Result<usize> {
    let manager = Manager::builder().capacity(64 << 20).start()?;
    let (list, counter): (List<u64>, Counter) = (manager.list::<u64>([])?, manager.counter(0)?);
    let autopsy = RawSession::connect(&manager, PATIENCE)?;
    let mut writer = manager.writer()?;
    let mut acknowledged = 0;
    for n in 0..PAIRS {
        if writer.push(&list, n).and_then(|_| writer.count(&counter, 1)).is_err() {
            break;
        }
        if n % 4 == 3 && writer.flush().is_ok() {
            assert_eq!(writer.acknowledged(), 2 * n + 2);
            acknowledged = 2 * n + 2;
        }
    }
    let failures = writer.failures()?;
    let pin = autopsy.pins.pin();
    let record = |id| catalog::find(&autopsy.arena, pin.root(), id).unwrap();
    let (pushed, counted) = (record(list.id()).len, record(counter.id()).root);
    assert!(pushed + counted >= acknowledged, "{pushed} and {counted}, acknowledged {acknowledged}");
    assert!(pushed == counted || pushed == counted + 1, "a gap: {pushed} and {counted}");
    let kinds: Vec<ErrorKind> = failures.iter().map(|(_, error)| error.kind()).collect();
    assert!(kinds.iter().all(|kind| matches!(kind, ErrorKind::OutcomeUnknown | ErrorKind::Disconnected)), "{failures:?}");
    if kinds.is_empty() && manager.is_alive() {
        assert_eq!((pushed, counted), (PAIRS, PAIRS));
        return Ok(0);
    }
    // Whatever is sent now fails at once.
    assert!(writer.push(&list, 0).unwrap_err().is_disconnected());
    Ok(1)
}

#[test]
fn the_manager_dies_at_every_point_of_a_stream() {
    let (mut early, mut deaths) = (0, 0);
    for point in 1.. {
        let mut owner = Role::start_with("role_streaming_owner", |command| {
            command.env(MANAGER_VARIABLE, point.to_string());
        });
        let last = owner.hear().unwrap();
        owner.kill();
        match &last[..] {
            "done" => break,
            "manager died" => deaths += 1,
            _ => {
                assert_eq!(last, "manager died early", "point {point}");
                early += 1;
            }
        }
    }
    println!("{early} managers have died before the stream, {deaths} in it");
    assert!(deaths > 20, "{deaths}");
}

#[test]
fn a_stream_waits_for_a_stopped_manager_and_hears_of_its_death() {
    let manager = Manager::start().unwrap();
    let list: List<u64> = manager.list::<u64>([]).unwrap();
    let process = process_of(&manager);
    let mut writer = manager.writer().unwrap();
    writer.push(&list, 0).unwrap();
    writer.flush().unwrap();
    signal_to(process.pid, Signal::STOP);
    until("the manager stands still", || state_of(process.pid) == Some('T'));
    // Collected, the first of them under way.
    for n in 1..100 {
        writer.push(&list, n).unwrap();
    }
    assert_eq!(writer.acknowledged(), 1);
    signal_to(process.pid, Signal::CONT);
    writer.flush().unwrap();
    assert!(list.iter().unwrap().map(|n| *n).eq(0..100));
    signal_to(process.pid, Signal::STOP);
    until("the manager stands still", || state_of(process.pid) == Some('T'));
    writer.push(&list, 100).unwrap();
    writer.push(&list, 101).unwrap();
    writer.push(&list, 102).unwrap();
    signal_to(process.pid, Signal::KILL);
    let failures = writer.failures().unwrap();
    let told: Vec<(u64, ErrorKind)> = failures.iter().map(|(number, error)| (*number, error.kind())).collect();
    assert_eq!(told, [(100, ErrorKind::OutcomeUnknown), (101, ErrorKind::Disconnected)]);
    assert!(failures[1].1.to_string().contains("writes 101 to 102"), "{failures:?}");
    assert!(writer.push(&list, 103).unwrap_err().is_disconnected());
}

#[test]
fn what_goes_as_one_message_is_published_at_once() {
    let manager = Manager::start().unwrap();
    let counter = manager.counter(0).unwrap();
    let process = process_of(&manager);
    let mut writer = manager.writer().unwrap();
    writer.count(&counter, 1).unwrap();
    writer.flush().unwrap();
    signal_to(process.pid, Signal::STOP);
    until("the manager stands still", || state_of(process.pid) == Some('T'));
    let before = manager.version();
    for _ in 0..101 {
        writer.count(&counter, 1).unwrap();
    }
    signal_to(process.pid, Signal::CONT);
    writer.flush().unwrap();
    // The first went by itself, the others together.
    assert_eq!((counter.get().unwrap(), manager.version()), (102, before + 2));
}
