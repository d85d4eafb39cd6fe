//! How long objects live, and when their `Drop` runs.
use crate::support::{Parent, Role, process_of, until};
use commonhold::{Dict, Handle, Manager, Process, Session};
use commonhold_ipc::points::CLIENT_VARIABLE;

struct Guest {
    name: String,
    book: Dict<String, String>,
    file: String,
}

#[commonhold::remote]
impl Guest {
    pub fn arrive(name: String, book: Dict<String, String>, file: String) -> commonhold::Result<Self> {
        book.insert(&name, "here")?;
        Ok(Guest { name, book, file })
    }
    pub fn name(&self) -> String {
        self.name.clone()
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let _ = self.book.insert(&self.name, "gone");
        if !self.file.is_empty() {
            let _ = std::fs::write(&self.file, "gone");
        }
    }
}

fn guest(manager: &Session, name: &str, book: &Dict<String, String>) -> GuestProxy {
    manager.create(Guest::arrive, (name.to_string(), book.clone(), String::new())).unwrap().unwrap()
}

/// One that is there, made at the first time.
fn again_by_name(manager: &Manager, book: &Dict<String, String>) -> GuestProxy {
    manager.open::<GuestProxy>("other").unwrap_or_else(|_| {
        let other = guest(manager, "other", book);
        manager.publish("other", &other).unwrap();
        other
    })
}

fn is(book: &Dict<String, String>, name: &str, what: &str) -> bool {
    book.get(name).unwrap().is_some_and(|found| *found == *what)
}

fn leave(guest: GuestProxy) -> commonhold::Result<String> {
    guest.name()
}

#[test]
fn the_last_handle_lets_it_go() {
    let manager = crate::manager();
    let book = manager.dict::<String, String>([]).unwrap();
    let ada = guest(&manager, "ada", &book);
    let id = ada.id();
    let again = ada.clone();
    drop(ada);
    assert_eq!(Process::spawn(leave, (again.clone(),)).unwrap().join().unwrap().unwrap(), "ada");
    assert!(is(&book, "ada", "here"));
    drop(again);
    until("ada is gone", || is(&book, "ada", "gone"));
    assert!(manager.objects().unwrap().iter().all(|object| object.id != id));
    // By name it lives without handles.
    let bob = guest(&manager, "bob", &book);
    manager.publish("bob", &bob).unwrap();
    drop(bob);
    let bob = manager.open::<GuestProxy>("bob").unwrap();
    assert_eq!(bob.name().unwrap(), "bob");
    drop(bob);
    assert!(is(&book, "bob", "here"));
    manager.unpublish("bob").unwrap();
    until("bob is gone", || is(&book, "bob", "gone"));
    // And in a container.
    let shelf = manager.dict([(1u64, guest(&manager, "eve", &book))]).unwrap();
    assert_eq!(shelf.get(1u64).unwrap().unwrap().to_owned().name().unwrap(), "eve");
    assert!(is(&book, "eve", "here"));
    shelf.clear().unwrap();
    until("eve is gone", || is(&book, "eve", "gone"));
    // Taken out of a dict or a list, or written over: so is what was read in place, when it is let go.
    let row = manager.list::<GuestProxy>([]).unwrap();
    for name in ["removed", "overwritten", "popped", "set"] {
        let guest = guest(&manager, name, &book);
        if matches!(name, "removed" | "overwritten") { shelf.insert(1u64, guest).map(drop) } else { row.push(guest) }.unwrap();
        let next = match name {
            "removed" => shelf.remove(1u64).map(|was| was.is_some()),
            "overwritten" => shelf.insert(1u64, again_by_name(&manager, &book)).map(|was| was.is_some()),
            "popped" => row.pop().map(|was| was.is_some()),
            _ => row.set(0, again_by_name(&manager, &book)).map(|_| true),
        };
        assert!(next.unwrap(), "{name}");
        until(name, || is(&book, name, "gone"));
    }
    assert!(is(&book, "other", "here"), "which has taken their places");
    manager.audit().unwrap();
}

#[test]
fn role_that_dies_creating() {
    let Some(mut parent) = Parent::of("lives::role_that_dies_creating") else { return };
    let book: Dict<String, String> = parent.hear_handle();
    let name = parent.hear();
    let guest = guest(&book.session().unwrap(), &name, &book);
    assert_eq!(guest.name().unwrap(), name);
    parent.say("done");
}

#[test]
fn who_dies_at_any_point_of_creating_leaves_no_object() {
    let manager = crate::manager();
    let book = manager.dict::<String, String>([]).unwrap();
    // The host is there before.
    drop(guest(&manager, "first", &book));
    until("the first is gone", || is(&book, "first", "gone"));
    let objects = manager.objects().unwrap().len();
    let mut made = 0;
    for point in 1.. {
        let mut role = Role::start_with("lives::role_that_dies_creating", |command| {
            command.env(CLIENT_VARIABLE, point.to_string());
        });
        role.say(book.token().unwrap());
        role.say(point);
        let said = role.hear();
        role.end();
        // If it was made, somebody let it go: its `Drop` has run.
        until("nobody is left", || {
            let there = book.get(point.to_string()).unwrap().is_some();
            manager.objects().unwrap().len() == objects && (!there || is(&book, &point.to_string(), "gone"))
        });
        made += usize::from(is(&book, &point.to_string(), "gone"));
        if said.is_some() {
            assert!(point > 5 && made > 2, "it has reached points: {point}, {made} of them behind the creation");
            break;
        }
    }
    manager.audit().unwrap();
}

#[test]
fn many_come_and_go_and_leave_nothing() {
    let manager = crate::manager();
    let book = manager.dict::<String, String>([]).unwrap();
    let before = manager.objects().unwrap().len();
    let guests: Vec<_> = (0..100).map(|n| guest(&manager, &n.to_string(), &book)).collect();
    for (n, guest) in guests.iter().enumerate() {
        assert_eq!(guest.name().unwrap(), n.to_string());
    }
    drop(guests);
    until("all are gone", || book.iter().unwrap().all(|(_, what)| *what == *"gone"));
    until("nothing is left", || manager.objects().unwrap().len() == before);
    manager.audit().unwrap();
}

#[test]
fn a_host_alone_keeps_no_manager() {
    let name = format!("remote-idle-{}", std::process::id());
    let manager = Manager::builder().idle_timeout(std::time::Duration::from_millis(200)).open_or_start(&name).unwrap();
    let book = manager.dict::<String, String>([]).unwrap();
    manager.publish("ada", &guest(&manager, "ada", &book)).unwrap();
    let server = process_of(&manager);
    drop((book, manager));
    assert!(server.end_within(crate::support::PATIENCE).is_some());
}

#[test]
fn an_orderly_end_drops_what_is_left() {
    let file = std::env::temp_dir().join(format!("commonhold-guest-{}", std::process::id()));
    let manager = crate::manager();
    let book = manager.dict::<String, String>([]).unwrap();
    let text = file.to_string_lossy().into_owned();
    let ada = manager.create(Guest::arrive, ("ada".to_string(), book.clone(), text)).unwrap().unwrap();
    let server = process_of(&manager);
    manager.shutdown().unwrap();
    assert!(ada.name().unwrap_err().is_disconnected());
    until("its drop has run", || std::fs::read(&file).is_ok_and(|text| text == b"gone"));
    std::fs::remove_file(&file).unwrap();
    assert!(server.end_within(crate::support::PATIENCE).is_some());
}

#[test]
fn what_there_is_is_listed_with_its_size_and_who_holds_it() {
    let manager = crate::manager();
    let book = manager.dict([("ada".to_string(), "here".to_string())]).unwrap();
    let list = manager.list([1u64, 2, 3]).unwrap();
    let (queue, lock) = (manager.queue::<u64>(100).unwrap(), manager.lock().unwrap());
    let shelf: Dict<String, commonhold::Lock> = manager.dict([("lock".to_string(), lock.clone())]).unwrap();
    let guest = guest(&manager, "bob", &book);
    manager.publish("queue", &queue).unwrap();
    let sessions = manager.sessions().unwrap();
    let (hosts, ours): (Vec<_>, Vec<_>) = sessions.iter().partition(|session| session.is_host);
    assert_eq!((hosts.len(), ours.len(), ours[0].pid), (1, 1, std::process::id()));
    let (host, ours) = (hosts[0].number, ours[0].number);
    let objects = manager.objects().unwrap();
    let found = |id: u64| objects.iter().find(|object| object.id == id).unwrap();
    let held = |id: u64, by: u64| found(id).holders.iter().any(|(session, times)| *session == by && *times > 0);
    for (id, kind, type_text, len) in [
        (book.id(), "Dict", "String", 2),
        (list.id(), "List", "u64", 3),
        (queue.id(), "Queue", "u64", 0),
        (lock.id(), "Lock", "", 0),
        (shelf.id(), "Dict", "Lock", 1),
        (guest.id(), "Remote", "Guest", 0),
    ] {
        let object = found(id);
        assert_eq!((object.kind.as_str(), object.len), (kind, len), "{object:?}");
        assert!(object.type_text.contains(type_text), "{object:?}");
        assert!(held(id, ours) && object.references > 0, "{object:?}");
        // What lies in memory of its own says how much that is.
        assert_eq!(object.bytes > 0, matches!(kind, "Queue" | "Lock"), "{object:?}");
    }
    assert!(held(book.id(), host) && !held(list.id(), host), "its guest has a handle on it");
    assert_eq!((found(queue.id()).names.as_slice(), found(lock.id()).inside), (&["queue".to_string()][..], 1));
    assert!(found(queue.id()).bytes > found(lock.id()).bytes);
}

#[test]
fn every_kind_of_object_is_listed_and_counted() {
    let manager = crate::manager();
    let before = manager.stats().unwrap();
    let book = manager.dict::<String, String>([]).unwrap();
    let (receiver, sender) = manager.pipe_one_way::<u64>().unwrap();
    let guest = guest(&manager, "ada", &book);
    let list = manager.list([1u64]).unwrap();
    let (value, counter, namespace) = (manager.value(1u64).unwrap(), manager.counter(3).unwrap(), manager.namespace().unwrap());
    let (lock, rlock, rwlock) = (manager.lock().unwrap(), manager.rlock().unwrap(), manager.rw_lock().unwrap());
    let (semaphore, bounded) = (manager.semaphore(2).unwrap(), manager.bounded_semaphore(2).unwrap());
    let (condition, event, barrier) = (manager.condition().unwrap(), manager.event().unwrap(), manager.barrier(2).unwrap());
    let (queue, array) = (manager.queue::<u64>(9).unwrap(), manager.array([1u32, 2, 3]).unwrap());
    let (bytes, striped) = (manager.shared_bytes(100).unwrap(), manager.striped_counter(4).unwrap());
    let wanted = [
        (book.id(), "Dict", 1, false),
        (list.id(), "List", 1, false),
        (value.id(), "Value", 8, false),
        (counter.id(), "Counter", 0, false),
        (namespace.id(), "Namespace", 0, false),
        (lock.id(), "Lock", 0, true),
        (rlock.id(), "RLock", 0, true),
        (rwlock.id(), "RwLock", 0, true),
        (semaphore.id(), "Semaphore", 0, true),
        (bounded.id(), "BoundedSemaphore", 0, true),
        (condition.id(), "Condition", 0, true),
        (event.id(), "Event", 0, true),
        (barrier.id(), "Barrier", 0, true),
        (queue.id(), "Queue", 0, true),
        (array.id(), "Array", 3, true),
        (bytes.id(), "SharedBytes", 100, true),
        (striped.id(), "StripedCounter", 0, true),
        (receiver.id(), "PipeEnd", 0, false),
        (sender.id(), "PipeEnd", 0, false),
        (guest.id(), "Remote", 0, false),
    ];
    let ours = manager.sessions().unwrap().into_iter().find(|session| !session.is_host).unwrap();
    let objects = manager.objects().unwrap();
    for (id, kind, len, has_memory) in wanted {
        let object = objects.iter().find(|object| object.id == id).unwrap_or_else(|| panic!("a {kind} is not listed"));
        assert_eq!((object.kind.as_str(), object.len, object.bytes > 0), (kind, len, has_memory), "{object:?}");
        assert!(object.holders.iter().any(|(session, times)| *session == ours.number && *times > 0), "{object:?}");
        assert_eq!(object.host.is_some(), kind == "Remote", "{object:?}");
    }
    let stats = manager.stats().unwrap();
    // A pipe has a queue besides its ends.
    assert_eq!(stats.objects, objects.len() as u64);
    assert_eq!(stats.objects - before.objects, wanted.len() as u64 + 1);
    let segments = wanted.iter().filter(|(.., has_memory)| *has_memory).count() as u64 + 1;
    assert_eq!(stats.segments - before.segments, segments);
    assert!(stats.segment_bytes > before.segment_bytes && stats.live_bytes > before.live_bytes && stats.sessions >= 2, "{stats:?}");
    assert!(ours.objects >= wanted.len() as u64, "{ours:?}");
    manager.audit().unwrap();
}
