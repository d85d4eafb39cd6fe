//! What a pipe does, whoever is at its ends.

use crate::players::{Part, Player, Talk, World, line};
use crate::support::{until, until_promptly};
use commonhold::{Connection, Dict, ErrorKind, Handle, List, Manager, PipeOptions, PipeReceiver, PipeSender, Process, Queue};
use std::collections::VecDeque;
use std::time::{Duration, Instant};

pub const PARTS: &[(&str, Part)] = &[("echo", echo), ("keep", keep), ("receive all", receive_all), ("sleep in", sleep_in)];

type Item = (u64, Vec<u8>);

/// Sends back what comes, until the end of the stream.
fn echo(talk: &mut Talk) {
    let pipe: Connection<Item> = talk.hear_handle();
    talk.say("there");
    while let Some(item) = pipe.recv().unwrap() {
        pipe.send(item).unwrap();
    }
    talk.say("done");
}

/// Has an end, and lets go of it when told to.
fn keep(talk: &mut Talk) {
    let pipe: Connection<Item> = talk.hear_handle();
    talk.say("there");
    talk.hear();
    drop(pipe);
    talk.say("done");
}

fn receive_all(talk: &mut Talk) {
    let pipe: PipeReceiver<u64> = talk.hear_handle();
    talk.say("there");
    talk.say(pipe.iter().sum::<commonhold::Result<u64>>().unwrap());
}

/// Sleeps in a call until it fails, or ends.
fn sleep_in(talk: &mut Talk) {
    let pipe: Connection<Item> = talk.hear_handle();
    let way = talk.hear().unwrap();
    talk.say("sleeps");
    let ended = match way.as_str() {
        "recv" => pipe.recv().map(|item| item.is_none()),
        "poll" => pipe.poll(None),
        _ => pipe.send((0, Vec::new())).map(|()| false).map_err(Into::into),
    };
    talk.say(ended.map_or_else(|error| format!("{:?}", error.kind()), |ended| format!("{ended}")));
}

/// A player with an end that nobody else has.
fn with_end(world: &World, part: &str, end: impl Handle) -> Player {
    let mut player = world.player(part, &[line(&end)]);
    if part != "sleep in" {
        player.expect("there");
    }
    player
}

fn item(number: u64, len: usize) -> Item {
    (number, (0..len).map(|at| (at as u64 * 7 + number) as u8).collect())
}

#[test]
fn items_go_there_and_back() {
    for world in World::all() {
        let (ours, theirs) = world.manager.pipe::<Item>().unwrap();
        let mut player = with_end(&world, "echo", theirs);
        for (number, len) in [0, 1, 60, 1000, 5000, 70_000, 1 << 20].into_iter().enumerate() {
            ours.send(item(number as u64, len)).unwrap();
            assert_eq!(ours.recv().unwrap(), Some(item(number as u64, len)));
        }
        (0..50).for_each(|number| ours.send(item(number, 10)).unwrap());
        ours.close_sending().unwrap();
        assert!(ours.send(item(1, 1)).unwrap_err().is_closed());
        for number in 0..50 {
            assert_eq!(ours.recv().unwrap(), Some(item(number, 10)));
        }
        player.expect("done");
        assert_eq!(ours.recv().unwrap(), None);
        assert_eq!(ours.in_use().unwrap(), (0, 0));
        player.finish();
        world.manager.audit().unwrap();
    }
}

#[test]
fn the_last_holders_going_ends_the_stream() {
    for world in World::all() {
        let (ours, theirs) = world.manager.pipe::<Item>().unwrap();
        let mut players = [with_end(&world, "keep", theirs.clone()), with_end(&world, "keep", theirs)];
        players[0].say("go");
        players[0].expect("done");
        assert!(!ours.poll(Duration::from_millis(20)).unwrap(), "one still has it");
        ours.send(item(1, 10)).unwrap();
        std::thread::scope(|scope| {
            let sleeper = scope.spawn(|| ours.recv());
            players[1].say("go");
            players[1].expect("done");
            assert_eq!(sleeper.join().unwrap().unwrap(), None);
        });
        let error = ours.send(item(1, 1)).unwrap_err();
        assert!(error.is_closed() && error.to_string().contains("other end"), "{error}");
        players.into_iter().for_each(Player::finish);
        world.manager.audit().unwrap();
    }
}

#[test]
fn what_was_sent_before_the_end_is_received() {
    for world in World::all() {
        let (receiver, sender) = world.manager.pipe_one_way::<u64>().unwrap();
        let mut player = with_end(&world, "receive all", receiver);
        (1..=100).for_each(|number| sender.send(number).unwrap());
        drop(sender);
        player.expect(5050);
        player.finish();
    }
}

#[test]
fn a_closed_end_wakes_both_sides() {
    let manager = Manager::in_process().unwrap();
    for ours_closes in [true, false] {
        let (ours, theirs) = manager.pipe_with::<u8, u8>(PipeOptions::new().capacity(1)).unwrap();
        theirs.send(1).unwrap();
        std::thread::scope(|scope| {
            let sender = scope.spawn(|| theirs.send(2));
            let receiver = scope.spawn(|| theirs.recv());
            // So that both are asleep, most of the time: it must not matter.
            std::thread::sleep(Duration::from_millis(5));
            if ours_closes {
                ours.close().unwrap()
            } else {
                theirs.close().unwrap()
            };
            assert!(sender.join().unwrap().unwrap_err().is_closed());
            assert_eq!(receiver.join().unwrap().unwrap(), None);
        });
        assert_eq!((ours.recv().unwrap(), ours.recv().unwrap()), (Some(1), None));
        assert!(ours.send(1).unwrap_err().is_closed());
    }
}

#[test]
fn full_and_empty_are_said() {
    let manager = Manager::in_process().unwrap();
    let (receiver, sender) = manager.pipe_one_way_with::<Vec<u8>>(PipeOptions::new().capacity(2).bytes_max(8 << 10)).unwrap();
    assert!(receiver.try_recv().unwrap().is_none());
    assert!(receiver.recv_timeout(Duration::from_millis(1)).unwrap_err().is_timed_out());
    let error = sender.send(vec![0; 9 << 10]).unwrap_err();
    assert!(error.kind() == ErrorKind::TooLarge && !error.to_string().contains("queue"), "{error}");
    assert!(sender.try_send(&[1; 10][..]).unwrap().is_ok() && sender.try_send(vec![2; 3000]).unwrap().is_ok());
    assert_eq!(sender.try_send(vec![3; 3]).unwrap(), Err(vec![3; 3]));
    let full = sender.send_timeout(&[3; 3][..], Duration::from_millis(1)).unwrap_err();
    let told = "the pipe stayed full for 1ms: wait longer, or see who receives, and how fast";
    assert_eq!((full.kind(), full.to_string().as_str()), (ErrorKind::TimedOut, told));
    assert_eq!(receiver.recv().unwrap().unwrap(), [1; 10]);
    sender.send_timeout(&[3; 3][..], Duration::from_secs(60)).unwrap();
    assert_eq!(receiver.recv_timeout(Duration::from_secs(60)).unwrap().unwrap(), [2; 3000]);
    assert_eq!(receiver.try_recv().unwrap().unwrap(), [3; 3]);
    for options in [PipeOptions::new().capacity(0), PipeOptions::new().bytes_max(65 << 30)] {
        assert_eq!(manager.pipe_with::<u8, u8>(options).unwrap_err().kind(), ErrorKind::OutOfRange);
    }
}

#[test]
fn ends_are_handles_like_others() {
    let manager = Manager::start().unwrap();
    let before = manager.stats().unwrap();
    let (ours, theirs) = manager.pipe_with::<String, u64>(PipeOptions::new()).unwrap();
    assert!(format!("{ours:?}").contains("<Connection<String, u64> object"), "{ours:?}");
    let token = theirs.token().unwrap().to_string();
    assert_eq!(manager.attach::<Connection<String, u64>>(&token.parse().unwrap()).unwrap_err().kind(), ErrorKind::WrongType);
    let shelf: Dict<u8, Connection<u64, String>> = manager.dict([(1, theirs)]).unwrap();
    // The shelf holds it.
    assert!(!ours.poll(Duration::from_millis(5)).unwrap());
    ours.send("how many?").unwrap();
    let theirs = shelf.get(1).unwrap().unwrap().to_owned();
    assert_eq!(theirs.recv().unwrap().unwrap(), "how many?");
    theirs.send(7).unwrap();
    drop(theirs);
    assert_eq!(ours.recv().unwrap(), Some(7));
    assert!(!ours.poll(Duration::from_millis(5)).unwrap());
    shelf.clear().unwrap();
    assert_eq!(ours.recv().unwrap(), None);
    drop((ours, shelf));
    let left = || manager.stats().map(|stats| (stats.objects, stats.segments)).unwrap();
    until_promptly("nothing is left", || left() == (before.objects, before.segments));
    manager.audit().unwrap();
}

#[test]
fn an_end_in_its_own_pipe_is_collected() {
    let manager = Manager::start().unwrap();
    let before = manager.stats().unwrap().objects;
    let (receiver, sender) = manager.pipe_one_way::<Option<PipeSender<u64>>>().unwrap();
    let (inner, other) = manager.pipe_one_way::<u64>().unwrap();
    sender.send(Some(other)).unwrap();
    let other = receiver.recv().unwrap().unwrap().unwrap();
    other.send(3).unwrap();
    drop(other);
    assert_eq!((inner.recv().unwrap(), inner.recv().unwrap()), (Some(3), None));
    let (queue, pipe): (Queue<Connection<u8>>, _) = (manager.queue(4).unwrap(), manager.pipe::<u8>().unwrap());
    queue.send(pipe.1).unwrap();
    drop(queue);
    assert_eq!(pipe.0.recv().unwrap(), None, "it went with the queue that it lay in");
    drop((receiver, sender, inner, pipe.0));
    until("all are gone", || manager.stats().unwrap().objects == before);
    manager.audit().unwrap();
}

#[test]
fn handles_travel_through_pipes() {
    let manager = Manager::start().unwrap();
    let (ours, theirs) = manager.pipe_with::<List<u64>, List<u64>>(PipeOptions::new()).unwrap();
    let child = Process::spawn(
        |pipe: Connection<List<u64>>| -> commonhold::Result<()> {
            while let Some(list) = pipe.recv()? {
                list.push(2)?;
                pipe.send(list)?;
            }
            Ok(())
        },
        theirs,
    )
    .unwrap();
    ours.send(manager.list([1]).unwrap()).unwrap();
    assert_eq!(ours.recv().unwrap().unwrap().to_owned().unwrap(), [1, 2]);
    drop(ours);
    child.join().unwrap().unwrap();
}

#[test]
fn a_childs_end_is_the_childs_alone() {
    let manager = Manager::start().unwrap();
    let exits = |_: Connection<u64>, _: PipeReceiver<u64>| -> () { std::process::exit(3) };
    let dies = |_: Connection<u64>, _: PipeReceiver<u64>| -> () { std::process::abort() };
    let returns = |_: Connection<u64>, _: PipeReceiver<u64>| ();
    for way in 0..6 {
        let (ours, theirs) = manager.pipe::<u64>().unwrap();
        let (receiver, sender) = manager.pipe_one_way_with::<u64>(PipeOptions::new().capacity(1)).unwrap();
        sender.send(1).unwrap();
        // Nobody asks for the child any more; its end must show all the same, to who waits for items or for room.
        match way % 3 {
            0 => drop(Process::spawn(exits, (theirs, receiver)).unwrap()),
            1 => drop(Process::spawn(dies, (theirs, receiver)).unwrap()),
            _ => drop(Process::spawn(returns, (theirs, receiver)).unwrap()),
        }
        if way < 3 {
            assert!(sender.send(2).unwrap_err().is_closed());
        }
        assert_eq!(ours.recv().unwrap(), None);
        assert!(sender.try_send(2).is_err_and(|error| error.is_closed()) || sender.send(2).unwrap_err().is_closed());
    }
}

#[test]
fn the_managers_death_wakes_everybody() {
    let world = World::of_processes();
    let (ours, theirs) = world.manager.pipe_with::<Item, Item>(PipeOptions::new().capacity(1)).unwrap();
    theirs.send(item(1, 1)).unwrap();
    let mut players: Vec<Player> = [("recv", &theirs), ("poll", &theirs), ("send", &theirs)]
        .into_iter()
        .map(|(way, end)| {
            let mut player = world.player("sleep in", &[line(end)]);
            player.say(way);
            player.expect("sleeps");
            player
        })
        .collect();
    crate::support::process_of(&world.manager).kill();
    // What can only fail is ready.
    ["Disconnected", "true", "Disconnected"].into_iter().zip(&mut players).for_each(|(said, player)| player.expect(said));
    assert!(ours.recv().unwrap_err().is_disconnected() && ours.send(item(1, 1)).unwrap_err().is_disconnected());
    players.into_iter().for_each(Player::finish);
}

#[test]
fn a_pipe_does_what_two_deques_do() {
    use proptest::prelude::*;
    let manager = Manager::in_process().unwrap();
    let config = ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() };
    let step = (0..6u8, any::<bool>(), 0..3000usize);
    proptest!(config, |(steps in prop::collection::vec(step, 1..100))| {
        let pipe = manager.pipe_with::<Vec<u8>, Vec<u8>>(PipeOptions::new().capacity(4)).unwrap();
        let ends = [&pipe.0, &pipe.1];
        let (mut ways, mut open) = ([VecDeque::new(), VecDeque::new()], [true, true]);
        for (step, side, len) in steps {
            let (here, there) = (usize::from(side), usize::from(!side));
            match step {
                0..=2 => match ends[here].try_send(vec![len as u8; len]) {
                    Ok(sent) => {
                        prop_assert!(open[here] && sent.is_ok() == (ways[here].len() < 4));
                        match sent {
                            Ok(()) => ways[here].push_back(len),
                            Err(item) => prop_assert_eq!(item, vec![len as u8; len]),
                        }
                    }
                    Err(error) => prop_assert!(error.is_closed() && !open[here]),
                },
                3 | 4 => {
                    let poll = ends[here].poll(Duration::ZERO).unwrap();
                    prop_assert_eq!(poll, !ways[there].is_empty() || !open[there]);
                    let received = ends[here].try_recv().unwrap().map(|bytes| bytes.len());
                    prop_assert_eq!(received, ways[there].pop_front());
                }
                _ if len < 100 => {
                    ends[here].close().unwrap();
                    open = [false, false];
                }
                _ if len < 300 => {
                    ends[here].close_sending().unwrap();
                    open[here] = false;
                }
                _ => {}
            }
        }
    });
}

#[test]
fn raw_bytes_pass_as_they_are() {
    let manager = Manager::in_process().unwrap();
    let (ours, theirs) = manager.pipe::<Vec<u8>>().unwrap();
    let mut bytes = vec![9; 3];
    for len in [0, 1, 88, 89, 3000, 100_000] {
        let sent = item(5, len).1;
        ours.send_bytes(&sent).unwrap();
        assert!(theirs.recv_bytes(&mut bytes).unwrap() && bytes == sent, "{len}");
        theirs.send(sent.clone()).unwrap();
        assert_eq!(ours.recv().unwrap(), Some(sent));
    }
    ours.send_bytes(b"last").unwrap();
    drop(ours);
    assert!(theirs.recv_bytes(&mut bytes).unwrap() && bytes == b"last");
    assert!(!theirs.recv_bytes(&mut bytes).unwrap() && bytes.is_empty(), "the end of the stream");
}

#[test]
fn a_very_large_item() {
    let manager = Manager::start().unwrap();
    let (receiver, sender) = manager.pipe_one_way::<Vec<u8>>().unwrap();
    let before = Instant::now();
    let large: Vec<u8> = (0..64u32 << 20).map(|at| (at >> 3) as u8).collect();
    sender.send(&large).unwrap();
    assert!(receiver.recv().unwrap().unwrap() == large, "after {:?}", before.elapsed());
}
