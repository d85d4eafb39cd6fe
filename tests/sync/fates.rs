//! What happens to others when a player is killed, or stopped, at each of its counted points.

use crate::players::World;
use crate::support::{Watched, state_of, until};
use commonhold_ipc::points::{CLIENT_STOP_VARIABLE, CLIENT_VARIABLE};
use std::sync::atomic::{AtomicBool, Ordering};

/// Plays a part again and again, killed at its first point, its second, … until it comes to its end. Meanwhile `others` go on;
/// after each death `after` looks whether all is well. Returns the number of deaths.
pub fn deaths(world: &World, part: &str, handles: &[String], others: impl Fn(&AtomicBool) + Sync, mut after: impl FnMut(u64)) -> u64 {
    for point in 1.. {
        let mut player = world.doomed_player(part, handles, CLIENT_VARIABLE, point);
        let over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let busy = scope.spawn(|| others(&over));
            let _ = player.hear();
            over.store(true, Ordering::Relaxed);
            busy.join().unwrap();
        });
        let killed = player.was_killed();
        until("the session of the dead is over", || world.sessions() == 1);
        after(point);
        world.manager.audit().unwrap();
        if !killed {
            println!("{part}: {} deaths", point - 1);
            return point - 1;
        }
    }
    unreachable!()
}

/// Plays a part again and again, stopped at its first point, its second, … until it comes to its end. While it is stopped, `others`
/// do something that must not hang, whether it succeeds or not; then it goes on to its end.
pub fn stops(world: &World, part: &str, handles: &[String], others: impl Fn()) -> u64 {
    for point in 1.. {
        let mut player = world.doomed_player(part, handles, CLIENT_STOP_VARIABLE, point);
        let watched = Watched::of(player.role().pid());
        let (mut stopped, mut ended) = (false, false);
        // It may have said its last word before it stops.
        until("it stops or ends", || {
            stopped = state_of(watched.pid) == Some('T');
            ended = watched.has_ended();
            others();
            stopped || ended
        });
        if stopped {
            others();
            player.go_on();
        }
        player.expect("done");
        player.finish();
        until("its session is over", || world.sessions() == 1);
        world.manager.audit().unwrap();
        if !stopped {
            println!("{part}: {} stops", point - 1);
            return point - 1;
        }
    }
    unreachable!()
}
