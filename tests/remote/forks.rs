//! Forked children and the hosts of their parents: errors that say so, and nothing else.
use crate::support::{WELL, forked};
use commonhold::{ErrorKind, Manager, Transaction};

struct Bell;

#[commonhold::remote]
impl Bell {
    pub fn new() -> Self {
        Bell
    }
    pub fn ring(&self) {}
}

#[test]
fn what_a_forked_child_runs_or_makes_is_refused() {
    for lanes in [true, false] {
        let manager = Manager::builder().lanes(lanes).start().unwrap();
        let nothing = |_: &Transaction<'_>, (): ()| Ok(());
        // So that there is a line that it could take for its own.
        manager.run(nothing, ()).unwrap();
        let bell = manager.create(Bell::new, ()).unwrap();
        bell.ring().unwrap();
        let ended = forked(|| {
            let said = [manager.run(nothing, ()), manager.create(Bell::new, ()).map(drop), bell.ring(), bell.call_async().ring().map(drop)];
            said.into_iter().all(|said| said.is_err_and(|error| error.kind() == ErrorKind::UsedAfterFork))
        });
        assert_eq!(ended, WELL, "lanes: {lanes}");
        manager.run(nothing, ()).unwrap();
    }
}
