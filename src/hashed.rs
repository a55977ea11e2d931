//! Large tables by name.
//!
//! In an ordered map of 100,000 names a search compares seventeen of them, and each lies somewhere else
//! in memory: with rooms that many, a message would wait for memory more than for anything else. A hash
//! finds the entry in one step. Strangers choose the names, so each table hashes with keys of its own;
//! entries are kept beside the hashes, in an order that depends on what was done alone, so that one
//! seed always gives one order.

use std::borrow::Borrow;
use std::hash::Hash;

use indexmap::IndexMap;

/// So many places are kept however few are taken.
const PLACES_KEPT: usize = 64;

/// Values by key, in no order that means anything.
#[derive(Debug)]
pub struct HashedMap<K, V>(IndexMap<K, V>);

impl<K, V> Default for HashedMap<K, V> {
    fn default() -> Self {
        Self(IndexMap::default())
    }
}

impl<K: Hash + Eq, V> HashedMap<K, V> {
    /// How many entries there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The value of a key.
    pub fn get<Q: Hash + Eq + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        self.0.get(key)
    }

    /// The value of a key, to be changed.
    pub fn get_mut<Q: Hash + Eq + ?Sized>(&mut self, key: &Q) -> Option<&mut V>
    where
        K: Borrow<Q>,
    {
        self.0.get_mut(key)
    }

    /// The key as it lies in the table.
    pub fn key<Q: Hash + Eq + ?Sized>(&self, key: &Q) -> Option<&K>
    where
        K: Borrow<Q>,
    {
        self.0.get_key_value(key).map(|(key, _)| key)
    }

    /// Whether there is a value of this key.
    pub fn contains_key<Q: Hash + Eq + ?Sized>(&self, key: &Q) -> bool
    where
        K: Borrow<Q>,
    {
        self.0.contains_key(key)
    }

    /// Sets the value of a key; the one it had.
    pub fn insert(&mut self, key: K, value: V) -> Option<V> {
        self.0.insert(key, value)
    }

    /// The value of a key; a new one if it had none.
    pub fn or_default(&mut self, key: K) -> &mut V
    where
        V: Default,
    {
        self.0.entry(key).or_default()
    }

    /// Takes the value of a key out. A table that was twice as large gives memory back.
    pub fn remove<Q: Hash + Eq + ?Sized>(&mut self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
    {
        let value = self.0.swap_remove(key)?;
        let len = self.0.len();
        if self.0.capacity() > PLACES_KEPT && len < self.0.capacity() / 2 {
            // With places to spare, or the next few would move everything again.
            self.0.shrink_to(len + len / 2);
        }
        Some(value)
    }

    /// The keys.
    pub fn keys(&self) -> impl Iterator<Item = &K> {
        self.0.keys()
    }

    /// The values.
    pub fn values(&self) -> impl Iterator<Item = &V> {
        self.0.values()
    }

    /// Keys and values.
    pub fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.0.iter()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_memory_of_a_crowd_is_given_back() {
        let mut map = HashedMap::default();
        for key in 0..10_000 {
            map.insert(key, key);
        }
        for key in 0..9_990 {
            assert_eq!(map.remove(&key), Some(key));
            assert!(map.0.capacity() <= PLACES_KEPT.max(2 * map.len() + 2));
        }
        assert!(map.0.capacity() <= PLACES_KEPT, "{}", map.0.capacity());
        assert!((9_990..10_000).all(|key| map.get(&key) == Some(&key)));
    }

    proptest! {
        #[test]
        fn behaves_as_the_standard_map(steps in proptest::collection::vec((0..40_u8, any::<bool>()), 0..200)) {
            let (mut map, mut twin, mut model) = (HashedMap::default(), HashedMap::default(), BTreeMap::new());
            for (number, (key, is_in)) in steps.into_iter().enumerate() {
                if is_in {
                    prop_assert_eq!(map.insert(key, number), model.insert(key, number));
                    twin.insert(key, number);
                } else {
                    prop_assert_eq!(map.remove(&key), model.remove(&key));
                    twin.remove(&key);
                }
                prop_assert_eq!(map.get(&key), model.get(&key));
                prop_assert_eq!(map.len(), model.len());
                prop_assert!(map.iter().eq(twin.iter()), "the same steps give the same order");
            }
            let mut keys: Vec<_> = map.keys().copied().collect();
            keys.sort_unstable();
            prop_assert!(keys.iter().eq(model.keys()));
        }
    }
}
