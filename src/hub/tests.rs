//! Tests of one hub with clients that speak the wire's language.

mod connecting;
mod events;
mod rooms;

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::testing::{Shard, TestStore};
use super::*;
use crate::engine::Sid;
use crate::metrics::testing::bounds_met;
use crate::wire::Content;

fn shard() -> Shard {
    Shard::new(0, &Rc::default())
}

fn with_store() -> (Shard, Rc<TestStore>) {
    let store = Rc::default();
    (Shard::new(0, &store), store)
}
