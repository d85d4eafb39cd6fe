//! Tests of the directory, the names and the lock within one process; `tests/name_lock.rs` has those between processes.
use super::*;
use crate::socket::{Channel, Listener};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::time::{Duration, Instant};

/// An empty private directory, and where the runtime directory may be made in it.
fn place() -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("runtime");
    (directory, path)
}

fn mode_of(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

fn set_mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn the_directory_is_made_private_and_found_again() {
    let (_place, path) = place();
    let made = RuntimeDir::at(&path).unwrap();
    assert_eq!((made.path(), mode_of(&path)), (path.as_path(), 0o700));
    RuntimeDir::at(&path).unwrap();
}

#[test]
fn directories_open_to_others_are_refused() {
    let (_place, path) = place();
    std::fs::create_dir(&path).unwrap();
    for mode in [0o755, 0o770, 0o701, 0o777, 0o1777] {
        set_mode(&path, mode);
        let error = RuntimeDir::at(&path).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Refused);
        assert!(error.to_string().contains(&format!("mode {mode:04o}")) && error.to_string().contains("chmod 700"), "{error}");
    }
}

#[test]
fn somebody_elses_directory_is_refused() {
    let (_place, path) = place();
    std::fs::create_dir(&path).unwrap();
    set_mode(&path, 0o700);
    // Only root can give a directory away.
    if sys::own_uid() == 0 {
        std::os::unix::fs::chown(&path, Some(12_345), None).unwrap();
        let error = RuntimeDir::at(&path).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Refused);
        assert!(error.to_string().contains("belongs to user 12345"), "{error}");
    }
}

#[test]
fn links_and_files_are_refused() {
    let (place, path) = place();
    let target = place.path().join("target");
    std::fs::create_dir(&target).unwrap();
    set_mode(&target, 0o700);
    symlink(&target, &path).unwrap();
    assert_eq!(RuntimeDir::at(&path).unwrap_err().kind(), ErrorKind::Refused);
    let file = place.path().join("file");
    std::fs::write(&file, "").unwrap();
    assert_eq!(RuntimeDir::at(&file).unwrap_err().kind(), ErrorKind::Refused);
    assert_eq!(RuntimeDir::at(&place.path().join("no/parent")).unwrap_err().kind(), ErrorKind::System);
}

#[test]
fn the_users_runtime_directory_comes_first_if_it_is_private() {
    let place = tempfile::tempdir().unwrap();
    let (xdg, temporary) = (place.path().join("xdg"), place.path().join("tmp"));
    std::fs::create_dir(&xdg).unwrap();
    std::fs::create_dir(&temporary).unwrap();
    let fallback = temporary.join(format!("commonhold-{}", sys::own_uid()));
    let found = |xdg: Option<&Path>| RuntimeDir::find(xdg, &temporary).unwrap().path().to_owned();
    set_mode(&xdg, 0o700);
    assert_eq!(found(Some(&xdg)), xdg.join("commonhold"));
    assert_eq!(mode_of(&xdg.join("commonhold")), 0o700);
    set_mode(&xdg, 0o755);
    assert_eq!(found(Some(&xdg)), fallback);
    assert_eq!(found(None), fallback);
    assert_eq!(found(Some(Path::new("relative"))), fallback);
    assert_eq!(found(Some(Path::new("/does/not/exist"))), fallback);
    assert_eq!(mode_of(&fallback), 0o700);
}

#[test]
fn names_are_checked() {
    for name in ["a", "weather station", "ü", "a.b", "a.lock", &"x".repeat(NAME_BYTES_MAX)] {
        check_name(name).unwrap();
    }
    for name in ["", ".", "..", ".hidden", "a/b", "a\0b", "a\nb", "\u{7f}", "\u{85}", &"x".repeat(NAME_BYTES_MAX + 1)] {
        let error = check_name(name).unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::OutOfRange | ErrorKind::TooLarge), "{name:?}");
    }
}

#[test]
fn long_names_get_short_files_and_keep_their_names() {
    let (_place, path) = place();
    let directory = RuntimeDir::at(&path).unwrap();
    let names = ["x".repeat(NAME_BYTES_MAX), "x".repeat(NAME_BYTES_MAX - 1), "short".to_owned()];
    let locks = names.each_ref().map(|name| NameLock::try_acquire(&directory, name).unwrap().unwrap());
    for (name, lock) in names.iter().zip(&locks) {
        assert_eq!(directory.address_of(name).unwrap(), lock.address(), "the same every time");
        let listener = Listener::bind(lock.address()).unwrap();
        Channel::connect(listener.address(), Instant::now() + Duration::from_secs(20)).unwrap();
    }
    assert_eq!(
        directory.list().unwrap(),
        [("short", true), (&names[1][..], true), (&names[0][..], true)].map(|(n, held)| (n.to_owned(), held))
    );
    locks.into_iter().for_each(|lock| lock.remove().unwrap());
    assert_eq!(std::fs::read_dir(&path).unwrap().count(), 0, "nothing is left");
}

#[test]
fn a_directory_too_long_for_any_socket_is_an_error() {
    let (_place, path) = place();
    std::fs::create_dir(&path).unwrap();
    let directory = RuntimeDir::at(&path.join("d".repeat(100))).unwrap();
    let error = directory.address_of("a").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TooLarge);
    assert!(error.to_string().contains(RUNTIME_DIR_VARIABLE), "{error}");
}

#[test]
fn a_name_is_held_once_and_its_leftovers_are_removed() {
    let (_place, path) = place();
    let directory = RuntimeDir::at(&path).unwrap();
    let lock = NameLock::try_acquire(&directory, "one").unwrap().unwrap();
    assert!(NameLock::try_acquire(&directory, "one").unwrap().is_none());
    assert!(NameLock::try_acquire(&directory, "two").unwrap().is_some());
    assert!(!lock.remove_leftover_socket().unwrap());
    let listener = Listener::bind(lock.address()).unwrap();
    let Address::Path(socket) = lock.address() else { panic!("not a path") };
    let inode = inode_of(&socket).unwrap();
    assert!(inode.is_some());
    drop((listener, lock));

    // As after a SIGKILL: both files are there, and nobody has the lock.
    let lock = loop {
        // A process that another test is starting may hold a copy of the closed descriptor for an instant.
        if let Some(lock) = NameLock::try_acquire(&directory, "one").unwrap() {
            break lock;
        }
    };
    assert!(Listener::bind(lock.address()).is_err());
    assert!(lock.remove_leftover_socket().unwrap());
    let listener = Listener::bind(lock.address()).unwrap();
    assert!(inode_of(&socket).unwrap().is_some());
    lock.remove().unwrap();
    assert_eq!(inode_of(&socket).unwrap(), None);
    drop(listener);
}

#[test]
fn what_is_no_socket_is_not_removed() {
    let (_place, path) = place();
    let directory = RuntimeDir::at(&path).unwrap();
    let lock = NameLock::try_acquire(&directory, "one").unwrap().unwrap();
    std::fs::write(path.join("one.sock"), "precious").unwrap();
    assert_eq!(lock.remove_leftover_socket().unwrap_err().kind(), ErrorKind::AlreadyExists);
    std::fs::remove_file(path.join("one.sock")).unwrap();
    symlink("/etc/hostname", path.join("two.lock")).unwrap();
    assert!(NameLock::try_acquire(&directory, "two").is_err(), "a link is not followed");
}

#[test]
fn a_lock_whose_file_was_replaced_touches_nothing() {
    let (_place, path) = place();
    let directory = RuntimeDir::at(&path).unwrap();
    let old = NameLock::try_acquire(&directory, "one").unwrap().unwrap();
    std::fs::remove_file(path.join("one.lock")).unwrap();
    assert!(!old.is_current().unwrap());
    let new = NameLock::try_acquire(&directory, "one").unwrap().unwrap();
    let _listener = Listener::bind(new.address()).unwrap();
    old.remove().unwrap();
    assert!(new.is_current().unwrap());
    assert!(path.join("one.sock").exists());
}

#[test]
fn foreign_files_are_not_listed() {
    let (_place, path) = place();
    let directory = RuntimeDir::at(&path).unwrap();
    for (file, text) in [(".hidden.lock", "x"), (".0123456789abcdef0123456789abcdef.lock", "not its name"), ("notes.txt", "")] {
        std::fs::write(path.join(file), text).unwrap();
    }
    std::fs::create_dir(path.join("directory")).unwrap();
    std::fs::write(path.join("dead.lock"), "").unwrap();
    assert_eq!(directory.list().unwrap(), [("dead".to_owned(), false)]);
}
