//! Two programs that share a manager and know nothing of each other but names and traits.
//!
//! The other program is this test's own executable under another build id: to everybody here that is another program, with other types, and a
//! host of its own.
use crate::support::{PATIENCE, Parent, Role, Watched, process_of, signal_to, state_of, stop, until, write_program};
use commonhold::{Barrier, ErrorKind, Handle, Manager, Token};
use commonhold_ipc::task::Build;
use rustix::process::Signal;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// What both programs know.
#[commonhold::remote]
pub trait Scales {
    fn weigh(&mut self, grams: u64) -> u64;
}

/// The other program's.
mod theirs {
    #[derive(Default)]
    pub struct Shop {
        sold: u64,
    }

    #[commonhold::remote(traits(super::Scales))]
    impl Shop {
        pub fn new() -> Self {
            Shop::default()
        }
        pub fn buy(&mut self, count: u64) -> u64 {
            self.sold += count;
            self.sold
        }
        /// What other scales say, from within this object.
        pub fn ask(&mut self, scales: super::ScalesProxy, grams: u64) -> commonhold::Result<u64> {
            scales.weigh(grams)
        }
        /// The same, when somebody else is in those as well.
        pub fn meet(&mut self, both: commonhold::Barrier, scales: super::ScalesProxy, ms: u64) -> commonhold::Result<u64> {
            super::meet(&both, &scales, ms)
        }
        pub fn wait(&mut self, begun: commonhold::Counter) -> commonhold::Result<()> {
            begun.add(1)?;
            loop {
                std::thread::park();
            }
        }
    }

    impl super::Scales for Shop {
        fn weigh(&mut self, grams: u64) -> u64 {
            self.sold += 1;
            grams + 100
        }
    }
}

/// Within one of two objects, when somebody is in the other one.
fn meet(both: &Barrier, scales: &ScalesProxy, ms: u64) -> commonhold::Result<u64> {
    both.wait()?;
    scales.with_timeout(Duration::from_millis(ms)).weigh(1)
}

/// This program's.
struct Balance;

#[commonhold::remote(traits(Scales))]
impl Balance {
    pub fn new() -> Self {
        Balance
    }
    /// What the shop says when it has asked this object.
    pub fn go_around(&mut self, shop: theirs::ShopProxy, to: ScalesProxy) -> commonhold::Result<u64> {
        shop.ask(to, 5)?
    }
    pub fn meet(&mut self, both: Barrier, scales: ScalesProxy, ms: u64) -> commonhold::Result<u64> {
        meet(&both, &scales, ms)
    }
}

impl Scales for Balance {
    fn weigh(&mut self, grams: u64) -> u64 {
        grams + 200
    }
}

/// This one's idea of it, from another time.
mod ours {
    /// The trait as it was before it weighed in halves.
    #[commonhold::remote]
    pub trait Scales {
        fn weigh(&mut self, grams: f64) -> f64;
    }

    #[derive(Default)]
    pub struct Shop {
        names: Vec<String>,
    }

    #[commonhold::remote]
    impl Shop {
        pub fn new() -> Self {
            Shop::default()
        }
        pub fn buy(&mut self, name: &str) -> u64 {
            self.names.push(name.to_owned());
            self.names.len() as u64
        }
    }
}

/// A program's file, removed when dropped.
struct Program(PathBuf);

impl Program {
    /// This one's executable, as the linker would have made it of other sources: one for each `mark`.
    fn other(mark: u8) -> Program {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let mut bytes = std::fs::read("/proc/self/exe").unwrap();
        // Without a build id, a file of its own is enough.
        let id = &Build::own().id;
        if !id.is_empty() {
            // In a note near the file's beginning.
            let place = bytes.windows(id.len()).take(1 << 16).position(|bytes| bytes == id).expect("the build id stands in the file");
            bytes[place] ^= mark;
        }
        let name = format!("other-program-{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        write_program(&path, bytes);
        Program(path)
    }

    /// It, serving a shop under that name.
    fn serve(&self, manager: &Manager, name: &str) -> Role {
        let mut role = Role::start_program(&self.0, "programs::role_other_program");
        role.say(manager.address());
        role.say(name);
        role
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

#[test]
fn role_other_program() {
    let Some(mut parent) = Parent::of("programs::role_other_program") else { return };
    let address = parent.hear();
    let name = parent.hear();
    let manager = Manager::builder().register::<theirs::Shop>().connect(address.as_str()).unwrap();
    let make = || manager.create(theirs::Shop::new, ()).unwrap();
    let first = make();
    match manager.publish(&name, &first) {
        Ok(()) => parent.say("serving"),
        Err(error) => parent.say(format!("{:?}: {error}", error.kind())),
    }
    loop {
        match parent.hear().as_str() {
            "token" => parent.say(first.token().unwrap()),
            "again" => {
                manager.publish_over(&name, &make()).unwrap();
                parent.say("again");
            }
            "mine" => parent.say(manager.open::<theirs::ShopProxy>(&name).unwrap().buy(0).unwrap()),
            other => panic!("{other}"),
        }
    }
}

/// The process in which an object lives.
fn host_of(manager: &Manager, id: u64) -> u32 {
    let host = manager.objects().unwrap().into_iter().find(|object| object.id == id).unwrap().host.unwrap();
    manager.sessions().unwrap().into_iter().find(|session| session.number == host).unwrap().pid
}

/// The processes of hosts.
fn hosts(manager: &Manager) -> Vec<u32> {
    manager.sessions().unwrap().into_iter().filter(|session| session.is_host).map(|session| session.pid).collect()
}

#[test]
fn a_program_is_used_by_a_trait_alone_and_outlived_by_its_objects() {
    let (manager, program) = (crate::manager(), Program::other(1));
    let mut role = program.serve(&manager, "shop");
    role.expect("serving");
    let scales = manager.open::<ScalesProxy>("shop").unwrap();
    assert_eq!(scales.weigh(5).unwrap(), 105);
    // A token of the type leads to its trait as well.
    role.say("token");
    let token: Token = role.hear().unwrap().parse().unwrap();
    assert_eq!(token.open::<ScalesProxy>().unwrap().weigh(6).unwrap(), 106);
    assert_eq!(token.open::<theirs::ShopProxy>().unwrap().buy(3).unwrap(), 5);
    // The host is the manager's from then on: what was published lives on without its program.
    role.kill();
    assert_eq!(manager.open::<theirs::ShopProxy>("shop").unwrap().buy(1).unwrap(), 6);
    assert_eq!(scales.weigh(7).unwrap(), 107);
    manager.audit().unwrap();
}

#[test]
fn calls_in_a_circle_of_two_hosts_are_an_error_or_end_with_their_time_out() {
    let (manager, program) = (crate::manager(), Program::other(1));
    let mut role = program.serve(&manager, "shop");
    role.expect("serving");
    let shop = manager.open::<theirs::ShopProxy>("shop").unwrap();
    let balance = manager.create(Balance::new, ()).unwrap();
    let (shop_scales, our_scales) = (manager.open::<ScalesProxy>("shop").unwrap(), ScalesProxy::from(balance.clone()));
    assert_ne!(host_of(&manager, shop.id()), host_of(&manager, balance.id()));
    // From here to the shop and back: one chain of calls, which knows where it is. Another way round there is no circle.
    let error = balance.go_around(shop.clone(), our_scales.clone()).unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Deadlock, "{error}");
    assert_eq!(shop.ask(our_scales.clone(), 7).unwrap().unwrap(), 207);
    // Two chains, each in one of the objects, and each wants the other one: no host knows both. The time-outs end it.
    let both = manager.barrier(2).unwrap();
    for _ in 0..3 {
        let theirs = shop.call_async().meet(both.clone(), our_scales.clone(), 100).unwrap();
        let ours = balance.call_async().meet(both.clone(), shop_scales.clone(), 100).unwrap();
        let met = [theirs.get().unwrap(), ours.get().unwrap()];
        // As soon as one has given up the other one may come in.
        assert!(met.iter().any(|met| met.as_ref().is_err_and(|error| error.is_timed_out())), "{met:?}");
        assert!(met.iter().all(|met| met.as_ref().map_or_else(|error| error.is_timed_out(), |grams| *grams > 100)), "{met:?}");
        // And both serve on.
        assert_eq!((shop_scales.weigh(1).unwrap(), our_scales.weigh(1).unwrap()), (101, 201));
    }
    manager.audit().unwrap();
}

#[test]
fn a_host_of_another_program_that_dies_is_a_clear_error_and_comes_again() {
    let (manager, program) = (crate::manager(), Program::other(1));
    let mut role = program.serve(&manager, "shop");
    role.expect("serving");
    let shop = manager.open::<theirs::ShopProxy>("shop").unwrap();
    let begun = manager.counter(0).unwrap();
    let waiting = std::thread::spawn({
        let (shop, begun) = (shop.clone(), begun.clone());
        move || shop.wait(begun).unwrap_err()
    });
    until("the method runs", || begun.get().unwrap() == 1);
    let scales = manager.open::<ScalesProxy>("shop").unwrap();
    let ahead = scales.call_async().weigh(1).unwrap();
    let [host] = hosts(&manager)[..] else { panic!("there is one host") };
    Watched::of(host).kill();
    for error in [waiting.join().unwrap(), ahead.get().unwrap_err(), scales.weigh(1).unwrap_err(), shop.buy(1).unwrap_err()] {
        assert!(error.is_died() && error.to_string().to_lowercase().contains("make a new object"), "{error:?}");
    }
    assert!(manager.open::<ScalesProxy>("shop").unwrap().weigh(1).unwrap_err().is_died());
    // Its program makes another one, in a new host.
    role.say("again");
    role.expect("again");
    let again = hosts(&manager);
    assert!(again.len() == 1 && again[0] != host, "{host} and then {again:?}");
    assert_eq!(manager.open::<ScalesProxy>("shop").unwrap().weigh(1).unwrap(), 101);
    manager.audit().unwrap();
}

#[test]
fn a_host_of_another_program_that_is_stopped_delays_its_callers_alone() {
    let (manager, program) = (crate::manager(), Program::other(1));
    let mut role = program.serve(&manager, "shop");
    role.expect("serving");
    let scales = manager.open::<ScalesProxy>("shop").unwrap();
    assert_eq!(scales.weigh(1).unwrap(), 101);
    let mine = manager.create(ours::Shop::new, ()).unwrap();
    let host = host_of(&manager, scales.id());
    assert_ne!(host, host_of(&manager, mine.id()));
    stop(host);
    for _ in 0..3 {
        assert!(scales.with_timeout(Duration::from_millis(20)).weigh(1).unwrap_err().is_timed_out());
    }
    assert_eq!(mine.buy("bread").unwrap(), 1);
    assert_eq!(manager.list([1u64]).unwrap().len().unwrap(), 1);
    signal_to(host, Signal::CONT);
    assert_eq!(scales.with_timeout(PATIENCE).weigh(2).unwrap(), 102);
    role.say("mine");
    assert!(role.hear().is_some());
    manager.audit().unwrap();
}

#[test]
fn a_host_that_is_stopped_ends_with_its_manager_when_nobody_else_is_left() {
    let program = Program::other(1);
    for killed in [true, false] {
        let manager = crate::manager();
        let mut role = program.serve(&manager, "shop");
        role.expect("serving");
        let [host] = hosts(&manager)[..] else { panic!("there is one host") };
        let watched = Watched::of(host);
        stop(host);
        role.kill();
        // A stopped host is nobody's failure, and a call to it or a line to it lets nothing go on.
        let scales = manager.open::<ScalesProxy>("shop").unwrap();
        assert!(scales.with_timeout(Duration::from_millis(20)).weigh(1).unwrap_err().is_timed_out());
        assert_eq!(state_of(host), Some('T'));
        if killed {
            process_of(&manager).kill();
        } else {
            drop((scales, manager));
        }
        assert!(watched.end_within(PATIENCE).is_some(), "killed: {killed}");
    }
}

#[test]
fn what_is_not_there_is_told_with_what_is() {
    let program = Program::other(1);
    let manager = crate::manager();
    let mut first = program.serve(&manager, "shop");
    first.expect("serving");
    // A third program, which has not offered anything.
    let third = Program::other(2);
    let mut third = Role::start_program(&third.0, "programs::role_that_offers_nothing");
    third.say(manager.address());
    let said = third.hear().unwrap();
    for part in ["NotFound", "another program", "has Shop", "Manager::builder().register::<Type>()"] {
        assert!(said.contains(part), "{part}: {said}");
    }
    assert!(manager.open::<ScalesProxy>("shop").is_ok());
    let error = manager.open::<ScalesProxy>("store").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
    manager.audit().unwrap();
}

struct Fresh;

#[commonhold::remote]
impl Fresh {
    pub fn new() -> Self {
        Fresh
    }
}

#[test]
fn role_that_offers_nothing() {
    let Some(mut parent) = Parent::of("programs::role_that_offers_nothing") else { return };
    let manager = Manager::connect(parent.hear().as_str()).unwrap();
    match manager.create(Fresh::new, ()) {
        Ok(_) => parent.say("made"),
        Err(error) => parent.say(format!("{:?}: {error}", error.kind())),
    }
}

#[test]
fn the_same_name_with_other_methods_is_told_apart_by_its_signatures() {
    let (manager, program) = (crate::manager(), Program::other(1));
    let mut role = program.serve(&manager, "shop");
    role.expect("serving");
    role.say("token");
    let token: Token = role.hear().unwrap().parse().unwrap();
    let told = |error: commonhold::Error, theirs: &str, ours: &str| {
        assert_eq!(error.kind(), ErrorKind::WrongType, "{error}");
        let text = error.to_string();
        assert!(text.contains(theirs) && text.contains(ours) && text.contains("open it with the type that it was made with"), "{text}");
    };
    // By name, by token, as the type and as the trait: both signatures are told.
    told(manager.open::<ours::ShopProxy>("shop").unwrap_err(), "buy(&mut self, u64)", "buy(&mut self, String)");
    told(token.open::<ours::ShopProxy>().unwrap_err(), "buy(&mut self, u64)", "buy(&mut self, String)");
    told(manager.open::<ours::ScalesProxy>("shop").unwrap_err(), "weigh(&mut self, u64)", "weigh(&mut self, f64)");
    told(token.open::<ours::ScalesProxy>().unwrap_err(), "weigh(&mut self, u64)", "weigh(&mut self, f64)");
    assert_eq!(manager.open::<ScalesProxy>("shop").unwrap().weigh(1).unwrap(), 101);
    manager.audit().unwrap();
}

#[test]
fn two_programs_may_have_types_of_one_name_but_not_one_published_name() {
    let (manager, one, two) = (crate::manager(), Program::other(1), Program::other(1));
    let mut first = one.serve(&manager, "shop");
    first.expect("serving");
    // Both are the same build under their file's names; this one is another, with another type of the name.
    let ours = manager.create(ours::Shop::new, ()).unwrap();
    assert_eq!(ours.buy("bread").unwrap(), 1);
    assert_eq!(hosts(&manager).len(), 2);
    let shops = manager.objects().unwrap().into_iter().filter(|object| object.type_text.contains("Shop")).count();
    assert_eq!(shops, 2);
    // A name that is taken is told to whoever comes later, and stays what it was.
    let mut second = two.serve(&manager, "shop");
    let said = second.hear().unwrap();
    assert!(said.starts_with("AlreadyExists: ") && said.contains("shop"), "{said}");
    let error = manager.publish("shop", &ours).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AlreadyExists, "{error}");
    assert_eq!(manager.open::<ScalesProxy>("shop").unwrap().weigh(1).unwrap(), 101);
    // The same build has one host, whoever came first.
    assert_eq!(hosts(&manager).len(), 2);
    second.say("again");
    second.expect("again");
    first.say("mine");
    first.expect("0");
    manager.audit().unwrap();
}
