//! Arrays and their kin as objects: handles, limits, memory, introspection.

use crate::support::{WELL, forked, until_promptly};
use commonhold::{Array, Dict, ErrorKind, Handle, Manager, Process, SharedBytes, StripedCounter, Token};

#[test]
fn handles_travel() {
    fn is_shared<T: Send + Sync>() {}
    is_shared::<(Array<char>, SharedBytes, StripedCounter)>();
    let manager = Manager::start().unwrap();
    let array = manager.array([1u32, 2, 3]).unwrap();
    let shelf: Dict<String, Array<u32>> = manager.dict([("numbers".to_string(), array.clone())]).unwrap();
    shelf.get("numbers").unwrap().unwrap().to_owned().set(0, 9).unwrap();
    let token = array.token().unwrap().to_string();
    let same: Array<u32> = token.parse::<Token>().unwrap().open().unwrap();
    assert!(same == array && same.get(0).unwrap() == 9);
    assert_eq!(manager.attach::<Array<i32>>(&token.parse().unwrap()).unwrap_err().kind(), ErrorKind::WrongType);
    manager.publish("numbers", &array).unwrap();
    assert_eq!(manager.open::<Array<u32>>("numbers").unwrap().len().unwrap(), 3);
    assert_eq!(manager.open::<SharedBytes>("numbers").unwrap_err().kind(), ErrorKind::WrongType);
    let queue = manager.queue::<Array<u32>>(2).unwrap();
    queue.send(&array).unwrap();
    assert_eq!(queue.recv().unwrap().unwrap().get(2).unwrap(), 3);
    assert_eq!((array.to_string(), format!("{array:?}").contains("Array<u32> object")), ("[9, 2, 3]".to_string(), true));
    manager.unpublish("numbers").unwrap();
    drop((array, same));
    shelf.clear().unwrap();
    drop(queue);
    until_promptly("its memory is gone", || manager.stats().unwrap().segment_bytes == 0);
    manager.audit().unwrap();
}

fn fill(array: Array<f32>, block: SharedBytes, counter: StripedCounter) -> Array<f32> {
    array.fill(0.25).unwrap();
    block.fill(1..3, 7).unwrap();
    counter.add(5).unwrap();
    array
}

#[test]
fn processes_take_and_return_them() {
    let manager = Manager::start().unwrap();
    let (array, block) = (manager.array::<f32>(4).unwrap(), manager.shared_bytes(4).unwrap());
    let counter = manager.striped_counter(0).unwrap();
    let returned = Process::spawn(fill, (array.clone(), block.clone(), counter.clone())).unwrap().join().unwrap();
    assert!(returned == array && array.to_vec().unwrap() == [0.25; 4]);
    assert_eq!((block.to_vec().unwrap(), counter.get().unwrap()), (vec![0, 7, 7, 0], 5));
}

#[test]
fn they_are_listed_with_their_size() {
    let manager = Manager::in_process().unwrap();
    let array = manager.array::<(u64, bool)>(1000).unwrap();
    let block = manager.shared_bytes(77).unwrap();
    let _counter = manager.striped_counter(0).unwrap();
    let objects = manager.objects().unwrap();
    let of = |id: u64| objects.iter().find(|object| object.id == id).map(|object| (object.kind.as_str(), object.len)).unwrap();
    assert_eq!((of(array.id()), of(block.id())), (("Array", 1000), ("SharedBytes", 77)));
    assert!(objects.iter().any(|object| object.kind == "StripedCounter" && object.len == 0));
    assert!(objects.iter().any(|object| object.type_text.contains("Array<(u64, bool,)>")), "{objects:?}");
    let bytes = manager.stats().unwrap().segment_bytes;
    assert!((16_000 + 77..20_000).contains(&bytes), "{bytes}");
    manager.audit().unwrap();
}

#[test]
fn there_is_only_so_much_memory() {
    let manager = Manager::builder().capacity(8 << 20).start().unwrap();
    let error = manager.array::<u64>(1 << 20).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Full, "{error}");
    assert!(error.to_string().contains("larger capacity"), "{error}");
    assert_eq!(manager.shared_bytes(usize::MAX).unwrap_err().kind(), ErrorKind::TooLarge);
    assert_eq!(manager.array::<u128>(usize::MAX / 2).unwrap_err().kind(), ErrorKind::TooLarge);
    assert_eq!(manager.array::<u8>(1 << 44).unwrap_err().kind(), ErrorKind::Full);
    let half = manager.shared_bytes(2 << 20).unwrap();
    let other = manager.shared_bytes((2 << 20) - 4096).unwrap();
    assert_eq!(manager.shared_bytes(8192).unwrap_err().kind(), ErrorKind::Full);
    drop(half);
    until_promptly("it is given back", || manager.array::<u8>(1 << 20).is_ok());
    assert_eq!(other.len().unwrap(), (2 << 20) - 4096);
    manager.audit().unwrap();
}

/// Of every size up to some hundred mebibytes; both ends are there, and the manager answers meanwhile.
#[test]
fn large_ones_have_all_their_memory() {
    let manager = Manager::start().unwrap();
    for len in [1usize, 4095, 4096, 65_153, 65_537, 1 << 20, 256 << 20] {
        let array = manager.array::<u64>(len.div_ceil(8)).unwrap();
        let last = array.len().unwrap() - 1;
        array.set(last, 7).unwrap();
        assert_eq!((array.get(0).unwrap(), array.get(last).unwrap()), (if last == 0 { 7 } else { 0 }, 7));
        let block = manager.shared_bytes(len).unwrap();
        block.write_at(len - 1, &[9]).unwrap();
        assert_eq!(block.read(len - 1..len).unwrap(), [9]);
        assert!(block.write_at(len, &[9]).is_err());
    }
    until_promptly("all is given back", || manager.stats().unwrap().segment_bytes == 0);
}

#[test]
fn blocks_are_copied_to_each_other() {
    let manager = Manager::in_process().unwrap();
    let (left, right) = (manager.shared_bytes(30_000).unwrap(), manager.shared_bytes(20_001).unwrap());
    let bytes: Vec<u8> = (0..20_001u32).map(|at| (at % 253) as u8).collect();
    right.write_at(0, &bytes).unwrap();
    left.copy_from(9_999, &right, 0..20_001).unwrap();
    assert!(left.read(9_999..30_000).unwrap() == bytes);
    left.copy_to(9_999..19_999, &left, 10_000).unwrap();
    assert!(left.read(10_000..20_000).unwrap() == bytes[..10_000]);
    assert_eq!(left.copy_to(0..30_000, &right, 0).unwrap_err().kind(), ErrorKind::OutOfRange);
}

#[test]
fn forked_children_are_told() {
    let manager = Manager::start().unwrap();
    let (array, block) = (manager.array([5u64]).unwrap(), manager.shared_bytes(5).unwrap());
    let counter = manager.striped_counter(3).unwrap();
    let ended = forked(|| {
        let errors = [array.get(0).map(drop), array.lock().map(drop), block.to_vec().map(drop), counter.add(1)];
        errors.into_iter().all(|result| result.is_err_and(|error| error.kind() == ErrorKind::UsedAfterFork))
    });
    assert_eq!(ended, WELL);
    assert_eq!((array.get(0).unwrap(), counter.get().unwrap()), (5, 3));
}
