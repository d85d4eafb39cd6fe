//! Processes that are started in a role, and never come to `init`; children that say what cannot be read.
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

/// Role: joins children of which one says what cannot be read, more than a socket holds.
pub fn hears_noise() {
    let directory = tempfile::tempdir().unwrap();
    let program = directory.path().join("noise");
    write_program(&program, "#!/bin/sh\nhead -c 10000000 /dev/zero | tr '\\0' '\\377' >&\"${COMMONHOLD_BOOT##*:}\"\nexit 3\n");
    let noise = || Process::builder().executable(&program).spawn(returns_seven, ()).unwrap();
    let is_unreadable = |error: &commonhold::Error| {
        error.kind() == ErrorKind::Corrupt && error.to_string().ends_with("a message between parent and child that cannot be read")
    };

    let (first, second) = (noise(), Process::spawn(returns_seven, ()).unwrap());
    commonhold::join_children().unwrap();
    assert!(active_children().is_empty());
    assert_eq!(second.join().unwrap(), 7);
    for _ in 0..2 {
        let error = first.join().unwrap_err();
        assert!(is_unreadable(&error) && error.to_string().contains("running `"), "{error}");
        assert_eq!(first.exit_code(), Some(3));
    }

    let mut supervisor = Supervisor::new(RestartStrategy::OneForOne).max_restarts(1, PATIENCE);
    let executable = program.clone();
    supervisor.add(ChildSpec::new("noise", || (), ()).configure(move |builder| builder.executable(&executable))).unwrap();
    let (mut ends, mut starts) = (0, 0);
    let error = supervisor
        .run(|event| match event {
            SupervisorEvent::Ended { why: Some(why), .. } if is_unreadable(&why) => ends += 1,
            SupervisorEvent::Restarted { .. } => starts += 1,
            SupervisorEvent::Started { .. } | SupervisorEvent::GaveUp { .. } => {}
            other => panic!("{other}"),
        })
        .unwrap_err();
    assert!(error.to_string().starts_with("the supervisor has given up: after 1 restarts"), "{error}");
    assert_eq!((ends, starts), (2, 1));
}

fn returns_seven() -> u64 {
    7
}

pub fn noise_is_an_end_like_others() {
    let mut program = role("hears-noise").stderr(Stdio::piped()).spawn().unwrap();
    let ended = Watched::of(program.id()).end_within(PATIENCE);
    program.kill().unwrap();
    let output = program.wait_with_output().unwrap();
    assert!(ended.is_some() && output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
