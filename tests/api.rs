//! The programs of the documentation, as one user would write them.
#![forbid(unsafe_op_in_unsafe_fn)]

use commonhold::{Dict, Error, Handle, List, Manager, Shared};

commonhold::init_in_tests!();

#[derive(Shared, Debug, PartialEq, Clone)]
struct Account {
    owner: String,
    balance: i64,
    tags: Vec<String>,
}

fn account(owner: &str, balance: i64) -> Account {
    Account { owner: owner.into(), balance, tags: vec!["first".into()] }
}

fn managers() -> Vec<Manager> {
    vec![Manager::start().unwrap(), Manager::in_process().unwrap()]
}

#[test]
fn lists_read_like_lists() {
    for manager in managers() {
        let list = manager.list((0..10).map(|i| i * i)).unwrap();
        assert_eq!(list.to_string(), "[0, 1, 4, 9, 16, 25, 36, 49, 64, 81]");
        assert!(format!("{list:?}").starts_with("<List<i32> object 1 at @commonhold-"), "{list:?}");
        assert_eq!(*list.get(4).unwrap().unwrap(), 16);
        assert_eq!(format!("{:?}", list.slice(2..5).unwrap()), "[4, 9, 16]");
        assert_eq!(list.iter().unwrap().sum::<i32>(), 285);
        assert_eq!(list.pop().unwrap().unwrap(), 81);
        assert!(list.get(9).unwrap().is_none());
        list.insert(0, -1).unwrap();
        assert_eq!(list.to_owned().unwrap(), [-1, 0, 1, 4, 9, 16, 25, 36, 49, 64]);
        list.sort_by(|a, b| b.cmp(a)).unwrap();
        assert_eq!(*list.get(0).unwrap().unwrap(), 64);
        manager.audit().unwrap();
    }
}

#[test]
fn money_moves_or_not() {
    for manager in managers() {
        let accounts = manager.dict([("ada".to_string(), account("Ada", 100)), ("bob".to_string(), account("Bob", 1))]).unwrap();
        let log: List<String> = manager.list::<String>([]).unwrap();
        let moved = |amount: i64| {
            manager.transaction(|tx| {
                let mut ada = tx.get(&accounts, "ada")?.expect("ada").to_owned();
                let mut bob = tx.get(&accounts, "bob")?.expect("bob").to_owned();
                if ada.balance < amount {
                    return Err(Error::other("ada is out of money"));
                }
                ada.balance -= amount;
                bob.balance += amount;
                tx.insert(&accounts, "ada", &ada)?;
                tx.insert(&accounts, "bob", &bob)?;
                tx.push(&log, "ada -> bob")?;
                assert_eq!(tx.get(&accounts, "ada")?.unwrap().balance, ada.balance);
                Ok(())
            })
        };
        let before = manager.snapshot().unwrap();
        moved(10).unwrap();
        assert_eq!(moved(1000).unwrap_err().to_string(), "ada is out of money");
        let now = manager.snapshot().unwrap();
        let total = |at| accounts.at(at).values().map(|a| i64::from(a.balance)).sum::<i64>();
        assert_eq!((total(&before), total(&now)), (101, 101));
        assert_eq!(accounts.at(&before).get("ada").unwrap().balance, 100);
        assert_eq!(accounts.at(&now).get("ada").unwrap().balance, 90);
        assert_eq!((log.at(&before).len(), log.at(&now).len()), (0, 1));
        assert_eq!(*accounts.get("ada").unwrap().unwrap(), account("Ada", 90));
        manager.audit().unwrap();
    }
}

#[test]
fn handles_inside_containers_keep_objects_alive() {
    for manager in managers() {
        let inner = manager.dict::<String, u64>([("a".to_string(), 1)]).unwrap();
        let outer = manager.list([inner.clone()]).unwrap();
        let id = inner.id();
        drop(inner);
        let again = outer.get(0).unwrap().unwrap().to_owned();
        assert_eq!(again.id(), id);
        assert_eq!(*again.get("a").unwrap().unwrap(), 1);
        let token = again.token().unwrap().to_string();
        let third: Dict<String, u64> = manager.attach(&token.parse().unwrap()).unwrap();
        assert!(third == again);
        assert!(manager.attach::<Dict<String, i64>>(&token.parse().unwrap()).is_err());
        drop((again, third));
        outer.clear().unwrap();
        manager.audit().unwrap();
        let gone = manager.attach::<Dict<String, u64>>(&token.parse().unwrap());
        assert!(gone.is_err_and(|error| error.is_not_found()));
    }
}

#[test]
fn a_handle_from_a_value_holds_its_object_once_it_is_told_to() {
    for manager in managers() {
        let outer = manager.dict([(1u8, manager.list([7u64]).unwrap()), (2, manager.list([8]).unwrap())]).unwrap();
        let copy = |key: u8| outer.get(key).unwrap().unwrap().to_owned();
        let (kept, late) = (copy(1), copy(2));
        kept.keep().unwrap();
        kept.keep().unwrap();
        outer.clear().unwrap();
        assert_eq!(*kept.get(0).unwrap().unwrap(), 7);
        // What was in the dict is taken apart between calls.
        while manager.objects().unwrap().iter().any(|object| object.id == late.id()) {
            std::thread::yield_now();
        }
        let gone = late.keep().unwrap_err();
        assert!(gone.is_not_found() && gone.to_string().contains("is gone: nobody held it any more"), "{gone}");
        assert!(late.len().unwrap_err().is_not_found());
        drop(kept);
        // Taking hold twice has counted once.
        while manager.stats().unwrap().objects != 1 {
            std::thread::yield_now();
        }
        manager.audit().unwrap();
    }
}

#[test]
fn large_values_travel() {
    for manager in managers() {
        let dict = manager.dict::<u64, Vec<u8>>([]).unwrap();
        for size in [0usize, 1, 4095, 4096, 65_535, 65_536, 65_537, 1 << 20, 20 << 20] {
            let value: Vec<u8> = (0..size).map(|i| (i % 251) as u8).collect();
            dict.insert(size as u64, &value).unwrap();
            let back = dict.get(size as u64).unwrap().unwrap();
            assert!(back.as_slice() == value);
        }
        let list: List<String> = manager.list(["x".repeat(300_000), "y".into()]).unwrap();
        assert_eq!(list.get(0).unwrap().unwrap().len(), 300_000);
        assert_eq!(list.set(0, "z").unwrap().len(), 300_000);
        manager.audit().unwrap();
    }
}

#[test]
fn what_a_popped_handle_refers_to_lives_on() {
    for manager in managers() {
        let jobs: List<List<u64>> = manager.list([]).unwrap();
        for n in 0..3 {
            jobs.push(manager.list([n, n + 1]).unwrap()).unwrap();
        }
        // Nobody else holds the inner lists: the containers' references go with the elements, and ours take their place.
        let job = jobs.pop().unwrap().unwrap().to_owned();
        manager.audit().unwrap();
        assert_eq!(job.to_owned().unwrap(), [2, 3]);
        let first = jobs.remove(0).unwrap().unwrap();
        manager.audit().unwrap();
        assert_eq!(first.to_owned().to_owned().unwrap(), [0, 1]);
        let names: Dict<u8, List<u64>> = manager.dict([(1, job)]).unwrap();
        assert_eq!(names.remove(1).unwrap().unwrap().to_owned().len().unwrap(), 2);
        drop(first);
        manager.audit().unwrap();
        assert_eq!(manager.stats().unwrap().objects, 3, "jobs, names, and the list that is still in jobs");
    }
}

/// Held by the compiler: what users may send to other threads, share, print. A guard stays with its thread.
#[test]
fn public_types_have_the_common_traits() {
    use commonhold::*;
    fn handle<T: Handle + Shared + Clone + Send + Sync + std::fmt::Debug>() {}
    fn shared<T: Send + Sync + std::fmt::Debug>() {}
    fn sent<T: Send + std::fmt::Debug>() {}
    fn shown<T: std::fmt::Debug>() {}
    fn error<T: std::error::Error + Send + Sync + Clone + 'static>() {}
    fn unsent<T: std::error::Error + Into<Error> + Send + Sync + 'static>() {}
    error::<Error>();
    unsent::<SendError<String>>();
    handle::<Dict<String, u8>>();
    handle::<List<u8>>();
    handle::<Value<u8>>();
    handle::<Counter>();
    handle::<Namespace>();
    handle::<Lock>();
    handle::<RLock>();
    handle::<RwLock>();
    handle::<Semaphore>();
    handle::<BoundedSemaphore>();
    handle::<Condition>();
    handle::<Event>();
    handle::<Barrier>();
    handle::<Queue<u8>>();
    handle::<Connection<u8>>();
    handle::<PipeReceiver<u8>>();
    handle::<PipeSender<u8>>();
    handle::<Array<u8>>();
    handle::<SharedBytes>();
    handle::<StripedCounter>();
    shared::<Manager>();
    shared::<Session>();
    shared::<Snapshot>();
    shared::<Token>();
    shared::<Pool>();
    shared::<AsyncResult<u8>>();
    shared::<Process<u8>>();
    shared::<ParentProcess>();
    shared::<Any>();
    shared::<ErrorKind>();
    shared::<QueueOptions>();
    shared::<PipeOptions>();
    sent::<ManagerBuilder>();
    sent::<ProcessBuilder>();
    sent::<PoolBuilder>();
    sent::<Writer>();
    sent::<Supervisor>();
    sent::<ChildSpec>();
    sent::<DeadLetters<u8>>();
    sent::<Permit<'_>>();
    shown::<Batch<'_>>();
    shown::<Transaction<'_>>();
    shown::<Ref<'_, u8>>();
    shown::<View<'_, u8>>();
    shown::<DictIter<'_, u8, u8>>();
    shown::<ListIter<'_, u8>>();
    shown::<DictAt<'_, u8, u8>>();
    shown::<ListAt<'_, u8>>();
    shown::<Slice<'_, u8>>();
    shown::<ArrayIter<'_, u8>>();
    shown::<BytesCursor<'_>>();
    shown::<QueueIter<'_, u8>>();
    shown::<Lease<u8>>();
    shown::<Watch<'_, u8>>();
    shown::<Progress>();
    shown::<LockGuard<'_>>();
    shown::<RLockGuard<'_>>();
    shown::<ReadGuard<'_>>();
    shown::<WriteGuard<'_>>();
    shown::<Party>();
    shown::<Acquired<u8>>();
    shown::<ObjectInfo>();
    shown::<SessionInfo>();
    shown::<Stats>();
}
