//! Names, objects, tokens, handles as values, versions: what a session promises and refuses.

use super::*;

pub fn session_names(manager: &Manager) {
    let (dict, list) = (manager.dict::<String, u64>([("a".to_string(), 1)]).unwrap(), manager.list([1u8]).unwrap());
    manager.publish("a dict", &dict).unwrap();
    assert!(manager.open::<Dict<String, u64>>("a dict").unwrap() == dict);
    refused(manager.publish("a dict", &list), ErrorKind::AlreadyExists, &["a dict", "unpublish"]);
    refused(manager.open::<Dict<String, u8>>("a dict"), ErrorKind::WrongType, &["Dict<String, u64>", "Dict<String, u8>"]);
    refused(manager.open::<List<u8>>("a dict"), ErrorKind::WrongType, &["Dict<String, u64>", "List<u8>"]);
    refused(manager.open::<List<u8>>("no such"), ErrorKind::NotFound, &["no such", "a dict"]);
    manager.publish_over("a dict", &list).unwrap();
    assert!(manager.open::<List<u8>>("a dict").unwrap() == list);
    assert!(manager.unpublish("a dict").unwrap() && !manager.unpublish("a dict").unwrap());
    refused(manager.open::<List<u8>>("a dict"), ErrorKind::NotFound, &["no named objects"]);
    refused(manager.publish("", &list), ErrorKind::OutOfRange, &["1 to 200"]);
    refused(manager.publish(&"n".repeat(201), &list), ErrorKind::OutOfRange, &["1 to 200"]);
    let names = ["n".repeat(200), "ünï cödé".into(), "two\nlines".into(), " ".into(), "tab\t".into(), "1 2".into()];
    for name in &names {
        manager.publish(name, &list).unwrap();
        assert!(manager.open::<List<u8>>(name).unwrap() == list, "{name:?}");
    }
    let mut expected = names.to_vec();
    expected.sort();
    let mut found = manager.names().unwrap();
    found.sort();
    assert_eq!(found, expected);
    let elsewhere = Manager::in_process().unwrap();
    refused(elsewhere.publish("mine", &list), ErrorKind::Refused, &["own manager"]);
    // A name alone keeps its object.
    let (id, kept) = (dict.id(), "kept");
    manager.publish(kept, &dict).unwrap();
    drop(dict);
    manager.audit().unwrap();
    assert_eq!(manager.open::<Dict<String, u64>>(kept).unwrap().id(), id);
}

pub fn session_open_or_create(manager: &Manager) {
    let made = manager.open_or_create("x", |session| session.dict::<String, u8>([("a".to_string(), 1)])).unwrap();
    let again = manager.open_or_create("x", |_| panic!("it is there")).unwrap();
    assert!(made == again);
    refused(manager.open_or_create("x", |session| session.list([1u8])), ErrorKind::WrongType, &["List<u8>"]);
    refused(manager.open_or_create("y", |_| -> commonhold::Result<List<u8>> { Err(Error::other("mine")) }), ErrorKind::Other, &["mine"]);
    refused(manager.open_or_create("", |session| session.list([1u8])), ErrorKind::OutOfRange, &["1 to 200"]);
    let made: Vec<u64> = std::thread::scope(|scope| {
        let open = || manager.open_or_create("race", |session| session.counter(0)).unwrap().id();
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(open)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(made.iter().all(|id| *id == made[0]));
}

pub fn session_objects(manager: &Manager) {
    let before = manager.stats().unwrap().objects;
    let dict = manager.dict((0..20_000u32).map(|n| (n, format!("{n}")))).unwrap();
    let dict: Dict<u32, String> = dict;
    let list: List<String> = manager.list((0..20_000).map(|n| format!("{n}"))).unwrap();
    assert_eq!((dict.len().unwrap(), list.len().unwrap()), (20_000, 20_000));
    assert_eq!(list.get(19_999).unwrap().unwrap(), "19999");
    let clone = dict.clone();
    assert!(clone == dict && clone.id() == dict.id());
    assert_eq!(HashSet::from([clone, dict.clone()]).len(), 1);
    drop((dict, list));
    let settled = || manager.stats().unwrap().objects == before;
    while !settled() {
        std::thread::yield_now();
    }
}

pub fn session_figures(manager: &Manager) {
    let list: List<u64> = manager.list(0..1000u64).unwrap();
    let snapshot = manager.snapshot().unwrap();
    list.clear().unwrap();
    let stats = manager.stats().unwrap();
    assert!(stats.version >= 2 && stats.sessions == 1 && stats.objects == 1, "{stats:?}");
    assert!(
        stats.live_bytes > 0 && stats.backed_bytes >= stats.live_bytes && stats.budget_bytes == 512 << 20 && stats.blocks > 0,
        "{stats:?}"
    );
    assert_eq!(stats.oldest_pin, Some(snapshot.version()));
    assert!(stats.oldest_pin_holder.is_some_and(|who| who.contains(&format!("pid {}", std::process::id()))));
    assert!(stats.retired_bytes > 0 && stats.metadata_bytes > 0);
    drop(snapshot);
    assert_eq!(manager.stats().unwrap().oldest_pin, None);
    assert!(manager.is_alive() && !manager.wait_for_end(Duration::ZERO).unwrap());
    assert!(format!("{manager:?}").contains(&manager.address().to_string()));
    assert_eq!(Manager::connect(&manager.address().to_string()).unwrap().version(), manager.version());
}

pub fn session_pid(manager: &Manager) {
    let listener = |manager: &Manager| {
        let channel = Channel::connect(manager.address(), Instant::now() + Duration::from_secs(10)).unwrap();
        (sys::peer_credentials(&channel).unwrap().pid, Session::greet(channel, manager.address().clone(), None).unwrap())
    };
    // The kernel's word about who listens there, and what a session by that socket says.
    let (pid, other) = listener(manager);
    assert_eq!((manager.pid(), other.pid()), (pid, pid));
    assert_eq!(std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap() == "commonhold\n", pid != std::process::id());
    let within = Manager::in_process().unwrap();
    let pids = (within.pid(), listener(&within).0, manager.counter(0).unwrap().session().unwrap().pid());
    assert_eq!(pids, (std::process::id(), std::process::id(), pid));
    within.shutdown().unwrap();
    assert_eq!(within.pid(), std::process::id());
}

pub fn tokens(manager: &Manager) {
    let dict = manager.dict::<String, u64>([("a".to_string(), 1)]).unwrap();
    let line = dict.token().unwrap().to_string();
    let token: Token = format!("  {line}\n").parse().unwrap();
    assert_eq!((token.address(), &token), (manager.address(), &dict.token().unwrap()));
    assert!(!line.contains(char::is_whitespace), "{line}");
    assert!(manager.attach::<Dict<String, u64>>(&token).unwrap() == dict && token.open::<Dict<String, u64>>().unwrap() == dict);
    refused(manager.attach::<List<u8>>(&token), ErrorKind::WrongType, &["List<u8>"]);
    for wrong in ["", "commonhold", "commonhold:1:2:3", "commonhold:x:1:2:@a", "nonsense with blanks", &"x".repeat(5000)] {
        refused(wrong.parse::<Token>(), ErrorKind::OutOfRange, &["not a token", "whole line"]);
    }
    let elsewhere = Manager::in_process().unwrap();
    refused(elsewhere.attach::<Dict<String, u64>>(&token), ErrorKind::NotFound, &["another manager"]);
    drop(dict);
    manager.audit().unwrap();
    refused(manager.attach::<Dict<String, u64>>(&token), ErrorKind::NotFound, &["gone"]);
}

pub fn handles_in_values(manager: &Manager) {
    #[derive(Shared, Clone, Debug, PartialEq)]
    struct Desk {
        name: String,
        jobs: List<String>,
        done: Option<Counter>,
    }
    let desk = |name: &str| Desk { name: name.into(), jobs: manager.list(["first".to_string()]).unwrap(), done: manager.counter(1).ok() };
    let desks = manager.dict::<u8, Desk>([(1, desk("a")), (2, desk("b"))]).unwrap();
    manager.audit().unwrap();
    let found = desks.get(1).unwrap().unwrap().to_owned();
    assert_eq!((found.jobs.get(0).unwrap().unwrap().to_owned(), found.done.as_ref().unwrap().get().unwrap()), ("first".to_string(), 1));
    let guard = desks.get(1).unwrap().unwrap();
    let (jobs, done) = (found.jobs.id(), found.done.as_ref().unwrap().id());
    let printed = format!(r#"Desk {{ name: "a", jobs: <List<String> object {jobs}>, done: Some(<Counter object {done}>) }}"#);
    assert_eq!((format!("{guard:?}"), format!("{:?}", guard.jobs)), (printed, format!("<object {jobs}>")));
    drop(guard);
    let nested: Dict<String, Dict<u8, Desk>> = manager.dict([("all".to_string(), desks.clone())]).unwrap();
    assert!(nested.get("all").unwrap().unwrap().to_owned() == desks);
    // A circle: the dict holds itself, and goes when nobody else does.
    let circle: Dict<String, Dict<u8, u8>> = manager.dict(none::<String, Dict<u8, u8>>()).unwrap();
    drop(circle);
    let list: List<Dict<u8, Desk>> = manager.list([desks.clone(), desks.clone()]).unwrap();
    assert_eq!(list.count(&desks).unwrap(), 2);
    // Read while nobody here holds the dict: so the handle holds nothing either, before its first use.
    let id = desks.id();
    drop((desks, found));
    let read = list.get(0).unwrap().unwrap().to_owned();
    drop((nested, list));
    while manager.stats().unwrap().objects > 0 {
        std::thread::yield_now();
    }
    assert_eq!(read.id(), id);
    refused(read.len(), ErrorKind::NotFound, &["object", "lives while"]);
    let elsewhere = Manager::in_process().unwrap();
    let foreign: List<List<u8>> = elsewhere.list([] as [List<u8>; 0]).unwrap();
    let mine: List<u8> = manager.list([1u8]).unwrap();
    refused(foreign.push(mine), ErrorKind::Refused, &["another manager"]);
}

/// A handle that is given away lives until the commit that stores it, whatever the manager does before.
pub fn handles_given_away(manager: &Manager) {
    let outer: List<List<u8>> = manager.list([] as [List<u8>; 0]).unwrap();
    let board: Dict<u8, List<u8>> = manager.dict(none::<u8, List<u8>>()).unwrap();
    let value: Value<Option<List<u8>>> = manager.value(None).unwrap();
    let given = || {
        let list = manager.list([1u8]);
        // By then the manager has done with everything that was sent before.
        for _ in 0..3 {
            manager.stats().unwrap();
        }
        list.unwrap()
    };
    manager
        .batch(|batch| {
            batch.push(&outer, given())?;
            batch.insert(&board, 1, given())?;
            batch.set(&value, Some(given()))?;
            batch.push(&outer, given())?;
            batch.set_at(&outer, 1, given())?;
            manager.stats().and_then(|_| manager.stats()).map(|_| ())
        })
        .unwrap();
    manager
        .transaction(|tx| {
            tx.push(&outer, given())?;
            tx.insert(&board, 2, given())?;
            manager.stats().and_then(|_| manager.stats()).map(|_| ())
        })
        .unwrap();
    outer.extend((0..3).map(|_| given())).unwrap();
    board.extend((3..6).map(|n| (n, given()))).unwrap();
    let made: List<List<u8>> = manager.list((0..3).map(|_| given())).unwrap();
    let board_made: Dict<u8, List<u8>> = manager.dict((0..3).map(|n| (n, given()))).unwrap();
    for list in outer.iter().unwrap().chain(made.iter().unwrap()).map(|list| list.to_owned()) {
        assert_eq!(list.len().unwrap(), 1);
    }
    for list in board.values().unwrap().chain(board_made.values().unwrap()).map(|list| list.to_owned()) {
        assert_eq!(list.len().unwrap(), 1);
    }
    assert_eq!((outer.len().unwrap(), board.len().unwrap(), value.get().unwrap().to_owned().unwrap().len().unwrap()), (6, 5, 1));
    let abandoned: commonhold::Result<()> = manager.batch(|batch| {
        batch.push(&outer, given())?;
        Err(Error::other("no"))
    });
    abandoned.unwrap_err();
    // Nothing is held on to: what the containers hold is all there is.
    drop((outer, board, value, made, board_made));
    while manager.stats().unwrap().objects > 0 {
        std::thread::yield_now();
    }
}

pub fn everything_fails_once_the_manager_is_gone(manager: &Manager) {
    let dict = manager.dict::<String, u64>([("a".to_string(), 1)]).unwrap();
    let list: List<u64> = manager.list([1u64]).unwrap();
    let (value, counter, space): (Value<String>, Counter, Namespace) =
        (manager.value("v").unwrap(), manager.counter(1).unwrap(), manager.namespace().unwrap());
    let (guard, snapshot, token) = (dict.get("a").unwrap().unwrap(), manager.snapshot().unwrap(), dict.token().unwrap());
    manager.shutdown().unwrap();
    fn gone<T>(result: commonhold::Result<T>) {
        let error = result.err().expect("there is no manager any more");
        assert!(error.is_disconnected(), "{error:?}");
        assert!(error.to_string().contains("ended"), "{error}");
    }
    gone(dict.get("a"));
    gone(dict.contains_key("a"));
    gone(dict.len());
    gone(dict.insert("a", 1));
    gone(dict.get_or_insert("a", 1));
    gone(dict.remove("a"));
    gone(dict.add("a", 1));
    gone(dict.clear());
    gone(dict.compare_exchange("a", None, Some(1)));
    gone(dict.update("a", |old| old));
    gone(dict.extend([("a", 1)]));
    gone(dict.retain(|_, _| true));
    gone(dict.pop_last());
    gone(dict.iter());
    gone(dict.iter_ordered());
    gone(dict.to_owned());
    gone(dict.token());
    gone(dict.version());
    gone(dict.changed_since(0));
    gone(dict.wait_for_change(&mut 0, None));
    gone(list.get(0));
    gone(list.push(1));
    gone(list.set(0, 1));
    gone(list.pop());
    gone(list.extend([1]));
    gone(list.splice(.., [1]));
    gone(list.truncate(0));
    gone(list.swap(0, 0));
    gone(list.reverse());
    gone(list.sort());
    gone(list.index_of(1));
    gone(list.remove_value(1));
    gone(list.slice(..));
    gone(list.iter());
    gone(value.get());
    gone(value.set("x"));
    gone(value.update(|_| {}));
    gone(value.compare_exchange("v", "x"));
    gone(counter.get());
    gone(counter.add(1));
    gone(space.get::<u8>("a"));
    gone(space.set("a", 1u8));
    gone(space.remove("a"));
    gone(space.names());
    gone(manager.snapshot());
    gone(manager.batch(|batch| batch.push(&list, 1)));
    gone(manager.transaction(|tx| tx.push(&list, 1)));
    gone(manager.publish("x", &list));
    gone(manager.unpublish("x"));
    gone(manager.names());
    gone(manager.open::<List<u64>>("x"));
    gone(manager.open_or_create("x", |session| session.counter(1)));
    gone(manager.stats());
    gone(manager.audit());
    gone(manager.counter(1));
    gone(manager.attach::<Dict<String, u64>>(&token));
    assert!(!manager.is_alive() && manager.wait_for_end(None).unwrap());
    manager.shutdown().unwrap();
    assert_eq!((*guard, dict.at(&snapshot).len(), list.at(&snapshot).to_vec()), (1, 1, vec![1]));
    assert!(dict.to_string().contains("ended") && format!("{dict:?}").contains("Dict"));
    for printed in [list.to_string(), value.to_string(), counter.to_string()] {
        assert!(printed.starts_with("<the manager has ended") && printed.ends_with('>'), "{printed}");
    }
}
