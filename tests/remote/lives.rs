//! How long objects live, and when their `Drop` runs.
use crate::support::{process_of, until};
use commonhold::{Dict, Handle, Manager, Process};

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

fn guest(manager: &Manager, name: &str, book: &Dict<String, String>) -> GuestProxy {
    manager.create(Guest::arrive, (name.to_string(), book.clone(), String::new())).unwrap().unwrap()
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
