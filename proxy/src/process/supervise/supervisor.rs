//! [`Supervisor`]: the machine that starts, watches, stops and starts again.

use super::event::SupervisorEvent;
use super::spec::{ChildSpec, Restart, RestartStrategy, Running};
use crate::patience::deadline_after;
use crate::process::children::ChildProcess;
use crate::wait::{Waitable, wait_until};
use commonhold_ipc::error::{Error, ErrorKind, Result};
use commonhold_ipc::fork::Stamp;
use commonhold_ipc::sys::wait_readable;
use std::collections::VecDeque;
use std::fmt;
use std::io::{PipeReader, PipeWriter, Write};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Restarts that are allowed within [`PERIOD`], unless it is said otherwise.
const RESTARTS: u32 = 3;
const PERIOD: Duration = Duration::from_secs(5);

struct Member {
    spec: ChildSpec,
    running: Option<Running>,
    restarts: u64,
}

/// What is being done, across steps.
struct Plan {
    /// Children to stop, by their places: the last first.
    stop: Vec<usize>,
    /// What was done about the last of them so far.
    asked: Option<Asked>,
    then: Then,
}

#[derive(Clone, Copy)]
struct Asked {
    /// When its time is over.
    until: Option<Instant>,
    killed: bool,
}

enum Then {
    /// Children to start, by their places.
    Start(VecDeque<usize>),
    /// Nothing more; with the error if the supervisor has given up.
    End(Option<Error>),
}

enum Phase {
    Watches,
    Stopped,
    GaveUp(Error),
}

/// Starts children, sees them end, and starts them again, within limits. `Send`.
///
/// It has no thread of its own: children are watched over while somebody is in [`run`](Self::run) or [`step`](Self::step). Run it on the
/// main thread, on one of its own (`std::thread::spawn(move || supervisor.run(drop))`), or by steps beside other things. Its children are
/// daemonic: they end with this process, however it ends. A child may be a supervisor of children of its own.
///
/// ```
/// # commonhold::init_in_tests!();
/// # fn main() -> commonhold::Result<()> {
/// use commonhold::{ChildSpec, Manager, Queue, Restart, RestartStrategy, Supervisor, SupervisorEvent};
///
/// /// Dies of every third job, which comes back then.
/// fn work(jobs: Queue<u64>) -> commonhold::Result<()> {
///     while let Some(job) = jobs.lease()? {
///         if *job % 3 == 0 && job.attempt() == 1 {
///             std::process::exit(7);
///         }
///         job.ack()?;
///     }
///     Ok(())
/// }
///
/// let manager = Manager::start()?;
/// let jobs = manager.queue(100)?;
/// jobs.send_many(1..8u64)?;
/// jobs.close()?;
///
/// let mut supervisor = Supervisor::new(RestartStrategy::OneForOne);
/// supervisor.add(ChildSpec::new("worker", work, jobs.clone()).restart(Restart::Transient))?;
/// let mut deaths = 0;
/// supervisor.run(|event| match &event {
///     SupervisorEvent::Ended { why: Some(why), .. } => {
///         assert!(why.to_string().contains("exit code 7"));
///         deaths += 1;
///     }
///     other => println!("{other}"),
/// })?;
/// assert_eq!((deaths, jobs.len()?), (2, 0));
/// # Ok(())
/// # }
/// ```
pub struct Supervisor {
    strategy: RestartStrategy,
    restarts_max: u32,
    period: Duration,
    /// In the order in which they were added, started, and are looked at.
    members: Vec<Member>,
    /// When children were started again lately.
    restarts: VecDeque<Instant>,
    plan: Option<Plan>,
    events: VecDeque<SupervisorEvent>,
    phase: Phase,
    bell: Option<Arc<Bell>>,
    stamp: Stamp,
}

impl Supervisor {
    /// A supervisor without children.
    pub fn new(strategy: RestartStrategy) -> Supervisor {
        Supervisor {
            strategy,
            restarts_max: RESTARTS,
            period: PERIOD,
            members: Vec::new(),
            restarts: VecDeque::new(),
            plan: None,
            events: VecDeque::new(),
            phase: Phase::Watches,
            bell: None,
            stamp: Stamp::now(),
        }
    }

    /// Allows so many restarts within a period, of all children together; at one more, all are stopped, and the supervisor gives up.
    /// 3 within 5 s unless it is said otherwise. With `RestartStrategy::OneForAll` and `RestForOne`, one death is one restart.
    #[must_use = "it gives the supervisor back"]
    pub fn max_restarts(mut self, restarts: u32, period: Duration) -> Self {
        (self.restarts_max, self.period) = (restarts, period);
        self
    }

    /// Starts a child, and supervises it from now on, as the last one.
    ///
    /// # Errors
    /// As [`Process::spawn`](crate::process::Process::spawn): then it is not added. `AlreadyExists` if there is one of that name;
    /// `Refused` if the supervisor has been stopped or has given up.
    pub fn add(&mut self, spec: ChildSpec) -> Result<()> {
        self.stamp.check()?;
        if !matches!(self.phase, Phase::Watches) || self.is_ending() {
            let text = format!("{} cannot be supervised: the supervisor has been stopped, or has given up; make a new one", spec.name);
            return Err(Error::new(ErrorKind::Refused, text));
        }
        if self.members.iter().any(|member| member.spec.name == spec.name) {
            let text = format!("there is a supervised child {} already: give this one another name", spec.name);
            return Err(Error::new(ErrorKind::AlreadyExists, text));
        }
        let running = spec.start()?;
        self.events.push_back(SupervisorEvent::Started { name: spec.name.clone(), pid: running.child.pid() });
        self.members.push(Member { spec, running: Some(running), restarts: 0 });
        Ok(())
    }

    /// The children that run, or were not yet seen to have ended, in their order.
    pub fn children(&self) -> Vec<ChildProcess> {
        self.members.iter().filter_map(|member| Some(member.running.as_ref()?.child.clone())).collect()
    }

    /// Whether there is anything left to do: a child that runs or is to be started, or an event that nobody has read.
    pub fn is_running(&self) -> bool {
        self.plan.is_some() || !self.events.is_empty() || self.members.iter().any(|member| member.running.is_some())
    }

    /// Supervises until no child is left, or until it is stopped: by a [`stopper`](Self::stopper). Says everything that happens to
    /// `watch`; `drop` if nobody wants to know.
    ///
    /// # Errors
    /// As [`step`](Self::step).
    pub fn run(&mut self, mut watch: impl FnMut(SupervisorEvent)) -> Result<()> {
        while let Some(event) = self.step(None)? {
            watch(event);
        }
        Ok(())
    }

    /// Supervises until something has happened, and says what. `None`: nothing has within `timeout`, or
    /// [nothing is left to do](Self::is_running); without a time-out, the latter.
    ///
    /// # Errors
    /// `Died` if it has given up: after its last event, and from then on. `UsedAfterFork` in a forked child; `System` if this process cannot
    /// wait.
    pub fn step(&mut self, timeout: impl Into<Option<Duration>>) -> Result<Option<SupervisorEvent>> {
        self.stamp.check()?;
        let deadline = deadline_after(timeout);
        loop {
            if let Some(event) = self.events.pop_front() {
                return Ok(Some(event));
            }
            if let Phase::GaveUp(error) = &self.phase {
                return Err(error.clone());
            }
            let over = deadline.is_some_and(|deadline| deadline <= Instant::now());
            self.advance()?;
            if !self.is_running() {
                return Ok(None);
            }
            if self.events.is_empty() {
                if over {
                    return Ok(None);
                }
                self.sleep(deadline)?;
            }
        }
    }

    /// Stops all children, from the last to the first, each with the time that its spec allows, and waits until they have ended. What
    /// happened can be read by [`step`](Self::step) afterwards. Dropping the supervisor does the same.
    ///
    /// # Errors
    /// `UsedAfterFork` in a forked child; `System` if this process cannot wait.
    pub fn shutdown(&mut self) -> Result<()> {
        self.stamp.check()?;
        self.begin_end(None);
        while self.plan.is_some() {
            self.carry_out()?;
            if self.plan.is_some() {
                self.sleep(None)?;
            }
        }
        Ok(())
    }

    /// Something to stop it with while it runs: from another thread, or from within the function that `run` tells of events.
    ///
    /// # Errors
    /// `System` if the system has no descriptors left.
    pub fn stopper(&mut self) -> Result<SupervisorStopper> {
        let bell = match &self.bell {
            Some(bell) => bell.clone(),
            None => self.bell.insert(Arc::new(Bell::new()?)).clone(),
        };
        Ok(SupervisorStopper(bell))
    }

    /// Does what can be done now, without waiting.
    fn advance(&mut self) -> Result<()> {
        if self.bell.as_ref().is_some_and(|bell| bell.has_rung()) {
            self.begin_end(None);
        }
        match self.plan {
            Some(_) => self.carry_out(),
            None => self.look(),
        }
    }

    fn is_ending(&self) -> bool {
        matches!(&self.plan, Some(Plan { then: Then::End(_), .. }))
    }

    /// Begins with stopping everything, unless that has begun or is done. A plan to start something is dropped.
    fn begin_end(&mut self, error: Option<Error>) {
        if !self.is_ending() && matches!(self.phase, Phase::Watches) {
            // What it was doing about the child that it was stopping stays done, if that one is the next in turn here, too.
            let (asked, last) = self.plan.take().map_or((None, None), |plan| (plan.asked, plan.stop.last().copied()));
            let stop: Vec<usize> = (0..self.members.len()).filter(|at| self.members[*at].running.is_some()).collect();
            let asked = if stop.last().copied() == last { asked } else { None };
            self.plan = Some(Plan { stop, asked, then: Then::End(error) });
        }
    }

    /// Looks for the first child that has ended, and decides what follows from it.
    fn look(&mut self) -> Result<()> {
        for at in 0..self.members.len() {
            let Some(ended) = self.members[at].take_if_ended()? else { continue };
            let why = ended.why();
            let member = &self.members[at];
            let (name, pid) = (member.spec.name.clone(), ended.child.pid());
            let again = match member.spec.restart {
                Restart::Permanent => true,
                Restart::Transient => why.is_some(),
                Restart::Temporary => false,
            };
            let text = why.as_ref().map_or_else(|| format!("{name} (pid {pid}) has returned"), ToString::to_string);
            self.events.push_back(SupervisorEvent::Ended { name, pid, why: why.clone() });
            if again && self.may_restart(&text, why) {
                self.plan = Some(self.restart_of(at));
            }
            if member_is_forgotten(&self.members[at]) {
                self.members.remove(at);
            }
            return Ok(());
        }
        Ok(())
    }

    /// The restart of a child, and of those that go with it.
    fn restart_of(&self, at: usize) -> Plan {
        let others = match self.strategy {
            RestartStrategy::OneForOne => at..at + 1,
            RestartStrategy::OneForAll => 0..self.members.len(),
            RestartStrategy::RestForOne => at..self.members.len(),
        };
        let stop = others.clone().filter(|at| self.members[*at].running.is_some()).collect();
        let start = others.filter(|at| self.members[*at].spec.restart != Restart::Temporary).collect();
        Plan { stop, asked: None, then: Then::Start(start) }
    }

    /// Counts a restart. `false`: it is one too many, and the end has begun.
    fn may_restart(&mut self, last: &str, why: Option<Error>) -> bool {
        let now = Instant::now();
        self.restarts.retain(|then| now.duration_since(*then) < self.period);
        if self.restarts.len() < self.restarts_max as usize {
            self.restarts.push_back(now);
            return true;
        }
        let text = format!(
            "the supervisor has given up: after {} restarts within {:?} {last}. Mend what they die of, or allow more by `max_restarts`",
            self.restarts_max, self.period
        );
        let error = match why {
            Some(why) => Error::caused(ErrorKind::Died, text, why),
            None => Error::new(ErrorKind::Died, text),
        };
        self.begin_end(Some(error));
        false
    }

    /// Goes on with the plan as far as it goes without waiting.
    fn carry_out(&mut self) -> Result<()> {
        let Some(plan) = &mut self.plan else { return Ok(()) };
        while let Some(at) = plan.stop.last() {
            let member = &mut self.members[*at];
            if let Some(ended) = member.take_if_ended()? {
                let (name, pid) = (member.spec.name.clone(), ended.child.pid());
                self.events.push_back(match plan.asked {
                    Some(asked) => SupervisorEvent::Stopped { name, pid, killed: asked.killed },
                    None => SupervisorEvent::Ended { name, pid, why: ended.why() },
                });
            }
            match &member.running {
                None => {
                    plan.stop.pop();
                    plan.asked = None;
                }
                Some(running) => match plan.asked.replace(stop(&running.child, member.spec.grace, plan.asked)?) {
                    Some(_) => return Ok(()),
                    None => continue,
                },
            }
        }
        match &mut plan.then {
            Then::Start(places) => match places.pop_front() {
                Some(at) => self.start_again(at),
                None => {
                    self.plan = None;
                    self.members.retain(|member| !member_is_forgotten(member));
                }
            },
            Then::End(error) => {
                let error = error.take();
                self.plan = None;
                self.events.extend(error.clone().map(|why| SupervisorEvent::GaveUp { why }));
                self.phase = error.map_or(Phase::Stopped, Phase::GaveUp);
            }
        }
        Ok(())
    }

    fn start_again(&mut self, at: usize) {
        let member = &mut self.members[at];
        let name = member.spec.name.clone();
        match member.spec.start() {
            Ok(running) => {
                member.restarts += 1;
                let (pid, restarts) = (running.child.pid(), member.restarts);
                member.running = Some(running);
                self.events.push_back(SupervisorEvent::Restarted { name, pid, restarts });
            }
            Err(why) => {
                let text = format!("{name} could not be started: {why}");
                self.events.push_back(SupervisorEvent::NotStarted { name, why: why.clone() });
                if self.may_restart(&text, Some(why))
                    && let Some(Plan { then: Then::Start(places), .. }) = &mut self.plan
                {
                    places.push_front(at);
                }
            }
        }
    }

    /// Sleeps until there may be something to do.
    fn sleep(&self, deadline: Option<Instant>) -> Result<()> {
        let now = Some(Instant::now());
        let (children, until) = match &self.plan {
            // Of those to be stopped, one at a time.
            Some(Plan { stop, asked: Some(asked), .. }) => {
                let running = stop.last().and_then(|at| self.members[*at].running.as_ref());
                (running.into_iter().collect::<Vec<_>>(), if asked.killed { None } else { asked.until })
            }
            // There is something to do now.
            Some(_) => (Vec::new(), now),
            None => (self.members.iter().filter_map(|member| member.running.as_ref()).collect(), None),
        };
        let bell = self.bell.as_ref().filter(|_| !self.is_ending()).map(|bell| bell.reader.as_fd());
        let deadline = [deadline, until].into_iter().flatten().min();
        let children = children.into_iter().map(|running| &running.child as &dyn Waitable);
        let things: Vec<_> = children.chain(bell.iter().map(|bell| bell as &dyn Waitable)).collect();
        wait_until(&things, deadline).map(drop)
    }
}

impl Member {
    fn take_if_ended(&mut self) -> Result<Option<Running>> {
        let has_ended = match &self.running {
            Some(running) => running.child.wait(Duration::ZERO)?,
            None => false,
        };
        Ok(if has_ended { self.running.take() } else { None })
    }
}

fn member_is_forgotten(member: &Member) -> bool {
    member.running.is_none() && member.spec.restart == Restart::Temporary
}

/// Asks a child to end, or kills it if that has been done and its time is over.
fn stop(child: &ChildProcess, grace: Option<Duration>, asked: Option<Asked>) -> Result<Asked> {
    let now = Instant::now();
    let asked = match asked {
        Some(asked) => asked,
        None => {
            if grace != Some(Duration::ZERO) {
                child.terminate()?;
            }
            Asked { until: grace.and_then(|grace| now.checked_add(grace)), killed: false }
        }
    };
    if asked.killed || asked.until.is_none_or(|until| now < until) {
        return Ok(asked);
    }
    child.kill()?;
    Ok(Asked { killed: true, ..asked })
}

/// Ends all children, as [`shutdown`](Supervisor::shutdown) does.
impl Drop for Supervisor {
    fn drop(&mut self) {
        // In a forked child they are somebody else's.
        if self.stamp.is_current() && self.shutdown().is_err() {
            self.children().iter().for_each(|child| drop(child.kill()));
        }
    }
}

impl fmt::Debug for Supervisor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let running = self.members.iter().filter(|member| member.running.is_some()).count();
        write!(f, "<Supervisor {:?}, {} children, {running} running", self.strategy, self.members.len())?;
        f.write_str(match self.phase {
            Phase::Watches => ">",
            Phase::Stopped => ", stopped>",
            Phase::GaveUp(_) => ", has given up>",
        })
    }
}

/// A pipe that somebody has written into, or not.
#[derive(Debug)]
struct Bell {
    stamp: Stamp,
    /// So that nothing is written that the pipe may have no room for.
    rung: AtomicBool,
    reader: PipeReader,
    writer: PipeWriter,
}

impl Bell {
    fn new() -> Result<Bell> {
        let (reader, writer) = std::io::pipe().map_err(|error| Error::system("cannot make a pipe to stop a supervisor by", error))?;
        Ok(Bell { stamp: Stamp::now(), rung: AtomicBool::new(false), reader, writer })
    }

    fn has_rung(&self) -> bool {
        matches!(wait_readable(&[self.reader.as_fd()], Some(Instant::now())), Ok(1))
    }
}

/// Stops a [`Supervisor`] that runs, as [`shutdown`](Supervisor::shutdown) does: made by [`Supervisor::stopper`]. `Clone + Send + Sync`.
///
/// ```
/// # commonhold::init_in_tests!();
/// # fn main() -> commonhold::Result<()> {
/// use commonhold::{ChildSpec, RestartStrategy, Supervisor, parent_process};
///
/// let mut supervisor = Supervisor::new(RestartStrategy::OneForOne);
/// supervisor.add(ChildSpec::new("idler", || parent_process().unwrap().wait(None).map(drop), ()))?;
/// let stopper = supervisor.stopper()?;
/// let supervises = std::thread::spawn(move || supervisor.run(|event| println!("{event}")));
/// stopper.stop()?;
/// supervises.join().unwrap()?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct SupervisorStopper(Arc<Bell>);

impl SupervisorStopper {
    /// Stops it. Does not wait for that; nothing if it was stopped already.
    ///
    /// # Errors
    /// `UsedAfterFork` in a forked child.
    pub fn stop(&self) -> Result<()> {
        self.0.stamp.check()?;
        // SYNC: Relaxed: the pipe says it.
        if !self.0.rung.swap(true, Ordering::Relaxed) {
            (&self.0.writer).write_all(&[1]).map_err(|error| Error::system("cannot ring for a supervisor to stop", error))?;
        }
        Ok(())
    }
}
