//! Flaws that a hostile reading of the store has found: each test failed before its repair.

mod world;

use commonhold_ipc::catalog::Kind;
use world::World;

#[test]
fn an_object_that_is_let_go_twice_goes() {
    let mut world = World::new(64 << 20, 32 << 20, u64::MAX);
    let id = world.create(Kind::Dict, 0, 8);
    world.settle();
    // Let go and taken again before anybody looked: nothing is to be dropped.
    world.store.release(id);
    world.store.retain(id).unwrap();
    world.settle();
    world.store.release(id);
    assert!(world.store.has_work());
    world.settle();
    assert_eq!(world.store.root().objects, 0);
}
