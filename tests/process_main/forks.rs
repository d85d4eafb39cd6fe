//! Children that a program forks by itself.
use super::*;

pub fn forked_children() {
    let manager = Manager::builder().capacity(64 << 20).start().unwrap();
    let list = manager.list([1u64, 2]).unwrap();
    let child = Process::builder()
        .daemon(true)
        .spawn(
            |list: List<u64>| {
                endure();
                list
            },
            list,
        )
        .unwrap();
    let in_fork = || {
        let refused = |result: commonhold::Result<()>| result.is_err_and(|error| error.kind() == ErrorKind::UsedAfterFork);
        let all =
            refused(child.kill()) && refused(child.terminate()) && refused(child.join().map(drop)) && refused(child.wait(None).map(drop));
        // Its own are its own.
        let own = Process::spawn(|x: u64| x * x, 5).is_ok_and(|own| active_children().len() == 1 && own.join().is_ok_and(|n| n == 25));
        all && own && child.is_alive() && child.exit_code().is_none() && active_children().is_empty()
    };
    assert_eq!(forked(in_fork), WELL);
    assert!(child.is_alive());
    child.kill().unwrap();
    assert!(child.join().is_err_and(|error| error.is_died()));
    // A supervisor, too.
    let mut supervisor = Supervisor::new(RestartStrategy::OneForOne);
    supervisor.add(ChildSpec::new("kept", endure, ())).unwrap();
    let (stopper, kept) = (supervisor.stopper().unwrap(), supervisor.children());
    let in_fork = || {
        let refused = |result: commonhold::Result<()>| result.is_err_and(|error| error.kind() == ErrorKind::UsedAfterFork);
        let all = refused(supervisor.step(None).map(drop))
            && refused(supervisor.add(ChildSpec::new("more", endure, ())))
            && refused(supervisor.shutdown())
            && refused(stopper.stop());
        drop(std::mem::replace(&mut supervisor, Supervisor::new(RestartStrategy::OneForOne)));
        all && supervisor.step(None).is_ok_and(|event| event.is_none())
    };
    assert_eq!(forked(in_fork), WELL);
    assert!(matches!(supervisor.step(None), Ok(Some(SupervisorEvent::Started { .. }))));
    assert!(supervisor.step(Duration::ZERO).unwrap().is_none() && kept[0].is_alive());
    drop(supervisor);
    assert_eq!(kept[0].exit_code(), Some(-15));
    // One that a fork holds the socket of: its end is seen nevertheless.
    let forks = || -> () {
        assert_eq!(
            forked(|| {
                let _ = Command::new("true").status();
                true
            }),
            WELL
        );
        std::process::exit(4)
    };
    let child = Process::spawn(forks, ()).unwrap();
    assert!(child.join().is_err());
    assert_eq!(child.exit_code(), Some(4));
}
