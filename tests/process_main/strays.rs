//! Processes that are started in a role, and never come to `init`.
use super::*;

struct Clerk;

#[commonhold::remote]
impl Clerk {
    pub fn new() -> Self {
        Clerk
    }
}

/// Instead of `init`, if this program was started as a host or a manager by one that is to see this.
pub fn go_astray() {
    let Ok(way) = std::env::var("ASTRAY") else { return };
    if !std::env::args().next().is_some_and(|name| name.starts_with("commonhold-")) {
        return;
    }
    // Should nobody else end it.
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL)).unwrap();
    let (_, channel) = commonhold_ipc::boot::enter().unwrap().unwrap();
    if way == "says" {
        // A report without a letter.
        channel.send(&0u32.to_le_bytes()).unwrap();
    }
    drop(channel);
    endure();
}

/// Role: says what it is told when it starts such processes, and whether none is there afterwards, running or to be waited for.
pub fn starts_strays() {
    let manager = Manager::in_process().unwrap();
    println!("{}", manager.create(Clerk::new, ()).map(drop).unwrap_err());
    println!("{}", Manager::open_or_start("stray").map(drop).unwrap_err());
    println!("{}", waitpid(None, WaitOptions::NOHANG).is_err_and(|errno| errno == rustix::io::Errno::CHILD));
}

pub fn strays_are_ended() {
    let unheard = |what: &str| {
        format!(
            "the {what}'s process did not report: the process at the other end of the socket has ended before all of its message was there \
             (it went on as another program); does `main` call `commonhold::init()` before anything else?"
        )
    };
    let unread = |what: &str| format!("the {what}'s process sent a report that cannot be read: start the very same executable");
    for (way, told) in [("leaves", ["host", "manager"].map(unheard)), ("says", ["host", "manager"].map(unread))] {
        let directory = tempfile::tempdir().unwrap();
        let mut program =
            role("starts-strays").env("ASTRAY", way).env("COMMONHOLD_RUNTIME_DIR", directory.path().join("run")).spawn().unwrap();
        let ended = Watched::of(program.id()).end_within(PATIENCE);
        program.kill().unwrap();
        assert!(ended.is_some(), "{way}: it waits for ever");
        let said = String::from_utf8(program.wait_with_output().unwrap().stdout).unwrap();
        assert_eq!(said, format!("{}\n{}\ntrue\n", told[0], told[1]), "{way}");
    }
}
