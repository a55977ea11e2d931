//! The contract, kept in memory.

use std::rc::Rc;

use futures_lite::future::block_on;
use project_yum::store::memory::MemoryStore;

use crate::contract;

#[test]
fn keeps_the_contract() {
    block_on(contract::holds(Rc::new(MemoryStore::new())));
}

#[test]
fn orders_the_messages_of_many_threads() {
    let store = MemoryStore::new();
    contract::many_writers(4, 100, &store);
}
