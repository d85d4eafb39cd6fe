//! Who uses a primitive: threads of this process, children, or processes that know nothing of each other. A *part* is played by
//! any of them alike: it hears lines and says lines.

use crate::support::{PATIENCE, Parent, Role};
use commonhold::{Handle, Manager, Token};
use rustix::process::Signal;
use std::fmt::Display;
use std::os::unix::process::ExitStatusExt;
use std::sync::mpsc::{Receiver, Sender, channel};

/// What a part does.
pub type Part = fn(&mut Talk);

/// The other end of a player.
pub enum Talk {
    Thread(Receiver<String>, Sender<String>),
    Process(Parent),
}

impl Talk {
    pub fn say(&mut self, line: impl Display) {
        match self {
            // Nobody listens any more: the test is over.
            Talk::Thread(_, to) => drop(to.send(line.to_string())),
            Talk::Process(parent) => parent.say(line),
        }
    }

    /// The next line; none when nobody talks any more.
    pub fn hear(&mut self) -> Option<String> {
        match self {
            Talk::Thread(from, _) => from.recv().ok(),
            Talk::Process(parent) => Some(parent.hear()),
        }
    }

    /// Hears a handle's token.
    pub fn hear_handle<H: Handle>(&mut self) -> H {
        self.hear().unwrap().parse::<Token>().unwrap().open().unwrap()
    }
}

/// The process in which a part is played: hears which.
#[test]
fn role_player() {
    let Some(mut parent) = Parent::of("players::role_player") else { return };
    let part = crate::part(&parent.hear());
    part(&mut Talk::Process(parent));
}

/// A manager for processes that are not its owner's.
#[test]
fn role_host() {
    let Some(mut parent) = Parent::of("players::role_host") else { return };
    let manager = Manager::start().unwrap();
    parent.say(manager.address());
    parent.wait_for_end();
}

/// One who plays a part.
pub enum Player {
    Thread(Sender<String>, Receiver<String>, Option<std::thread::JoinHandle<()>>),
    Process(Role),
}

impl Player {
    /// In a process of its own, to which something happens at one of its points.
    fn process(part: &str, fate: Option<(&str, u64)>) -> Player {
        let mut role = Role::start_with("players::role_player", |command| {
            if let Some((variable, point)) = fate {
                command.env(variable, point.to_string());
            }
        });
        role.say(part);
        Player::Process(role)
    }

    fn thread(part: &str) -> Player {
        let part = crate::part(part);
        let ((to, hears), (says, from)) = (channel(), channel());
        let thread = std::thread::spawn(move || part(&mut Talk::Thread(hears, says)));
        Player::Thread(to, from, Some(thread))
    }

    pub fn say(&mut self, line: impl Display) {
        match self {
            Player::Thread(to, ..) => drop(to.send(line.to_string())),
            Player::Process(role) => role.say(line),
        }
    }

    /// The next line; none if it has ended.
    pub fn hear(&mut self) -> Option<String> {
        match self {
            Player::Thread(_, from, _) => from.recv_timeout(PATIENCE).ok(),
            Player::Process(role) => role.hear(),
        }
    }

    #[track_caller]
    pub fn expect(&mut self, line: impl Display) {
        assert_eq!(self.hear(), Some(line.to_string()));
    }

    /// Waits for its end, which must be a good one.
    pub fn finish(mut self) {
        match &mut self {
            Player::Thread(to, _, thread) => {
                *to = channel().0;
                thread.take().unwrap().join().unwrap();
            }
            Player::Process(role) => assert!(role.end().success()),
        }
    }

    /// Waits for its end: whether it killed itself.
    pub fn was_killed(mut self) -> bool {
        let Player::Process(role) = &mut self else { unreachable!("only processes die alone") };
        let status = role.end();
        assert!(status.success() || status.signal() == Some(9), "{status}");
        !status.success()
    }

    pub fn role(&mut self) -> &mut Role {
        let Player::Process(role) = self else { unreachable!("a thread has no process of its own") };
        role
    }

    pub fn kill(&mut self) {
        self.role().kill();
    }

    pub fn stop(&mut self) {
        self.role().stop();
    }

    pub fn go_on(&mut self) {
        self.role().signal(Signal::CONT);
    }
}

/// A manager and how its users stand to it.
pub struct World {
    pub manager: Manager,
    threads: bool,
    _host: Option<Role>,
}

impl World {
    /// Each kind.
    pub fn all() -> impl Iterator<Item = World> {
        let made: [fn() -> World; 3] = [
            || World { manager: Manager::in_process().unwrap(), threads: true, _host: None },
            World::of_processes,
            || {
                let mut host = Role::start("players::role_host");
                let manager = Manager::connect(&host.hear().unwrap()).unwrap();
                World { manager, threads: false, _host: Some(host) }
            },
        ];
        made.into_iter().map(|make| make())
    }

    /// One whose users can be killed.
    pub fn of_processes() -> World {
        World { manager: Manager::start().unwrap(), threads: false, _host: None }
    }

    /// One who plays a part with these handles.
    pub fn player(&self, part: &str, handles: &[String]) -> Player {
        let mut player = if self.threads { Player::thread(part) } else { Player::process(part, None) };
        handles.iter().for_each(|token| player.say(token));
        player
    }

    /// The same in a process to which something happens at one of its points.
    pub fn doomed_player(&self, part: &str, handles: &[String], variable: &str, point: u64) -> Player {
        let mut player = Player::process(part, Some((variable, point)));
        handles.iter().for_each(|token| player.say(token));
        player
    }

    /// How many sessions there are when only this process has one.
    pub fn sessions(&self) -> u64 {
        let stats = self.manager.stats().unwrap();
        stats.sessions + stats.lingering
    }
}

/// A handle as a line.
pub fn line(handle: &impl Handle) -> String {
    handle.token().unwrap().to_string()
}
