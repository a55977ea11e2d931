//! Small ordered maps and sets that cost what they hold.
//!
//! Most connections have one namespace and a room or two. A node of the standard library's ordered map
//! has room for eleven entries, half a kilobyte where the names are kept; ten thousand idle connections
//! should not pay for that. These are sorted vectors, without a spare place while they are small. Finding
//! is a binary search; an insertion moves what is behind it, so they are for thousands of entries at most.

use std::borrow::Borrow;

/// Up to so many entries a vector grows by one; then it doubles as usual.
const EXACT_MAX: usize = 4;

/// Values by key, in the order of the keys.
#[derive(Debug, Clone)]
pub struct SortedMap<K, V>(Vec<(K, V)>);

impl<K, V> Default for SortedMap<K, V> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<K: Ord, V> SortedMap<K, V> {
    fn find<Q: Ord + ?Sized>(&self, key: &Q) -> Result<usize, usize>
    where
        K: Borrow<Q>,
    {
        // What comes in order, such as the numbers of sessions, goes to the end.
        match self.0.last() {
            Some((last, _)) if last.borrow() < key => Err(self.0.len()),
            _ => self
                .0
                .binary_search_by(|(known, _)| known.borrow().cmp(key)),
        }
    }

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
    pub fn get<Q: Ord + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        let place = self.find(key).ok()?;
        Some(&self.0[place].1)
    }

    /// The value of a key, to be changed.
    pub fn get_mut<Q: Ord + ?Sized>(&mut self, key: &Q) -> Option<&mut V>
    where
        K: Borrow<Q>,
    {
        let place = self.find(key).ok()?;
        Some(&mut self.0[place].1)
    }

    /// Whether there is a value of this key.
    pub fn contains_key<Q: Ord + ?Sized>(&self, key: &Q) -> bool
    where
        K: Borrow<Q>,
    {
        self.find(key).is_ok()
    }

    /// Sets the value of a key; the one it had.
    pub fn insert(&mut self, key: K, value: V) -> Option<V> {
        match self.find(&key) {
            Ok(place) => Some(std::mem::replace(&mut self.0[place].1, value)),
            Err(place) => {
                if self.0.len() < EXACT_MAX {
                    self.0.reserve_exact(1);
                }
                self.0.insert(place, (key, value));
                None
            }
        }
    }

    /// Takes the value of a key out.
    pub fn remove<Q: Ord + ?Sized>(&mut self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
    {
        let place = self.find(key).ok()?;
        let (_, value) = self.0.remove(place);
        if self.0.is_empty() {
            // Small pieces that nobody needs hold whole pages of memory back.
            self.0 = Vec::new();
        } else if self.0.capacity() > EXACT_MAX && self.0.len() < self.0.capacity() / 4 {
            self.0.shrink_to(self.0.len() * 2);
        }
        Some(value)
    }

    /// The keys, in order.
    pub fn keys(&self) -> impl Iterator<Item = &K> {
        self.0.iter().map(|(key, _)| key)
    }

    /// The values, in the order of their keys.
    pub fn values(&self) -> impl Iterator<Item = &V> {
        self.0.iter().map(|(_, value)| value)
    }

    /// The keys, in order, without the values.
    pub fn into_keys(self) -> impl Iterator<Item = K> {
        self.0.into_iter().map(|(key, _)| key)
    }
}

/// Keys in their order.
#[derive(Debug, Clone)]
pub struct SortedSet<K>(SortedMap<K, ()>);

impl<K> Default for SortedSet<K> {
    fn default() -> Self {
        Self(SortedMap::default())
    }
}

impl<K: Ord> SortedSet<K> {
    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether the key is there.
    pub fn contains<Q: Ord + ?Sized>(&self, key: &Q) -> bool
    where
        K: Borrow<Q>,
    {
        self.0.contains_key(key)
    }

    /// Puts a key in; whether it was not there.
    pub fn insert(&mut self, key: K) -> bool {
        self.0.insert(key, ()).is_none()
    }

    /// Takes a key out; whether it was there.
    pub fn remove<Q: Ord + ?Sized>(&mut self, key: &Q) -> bool
    where
        K: Borrow<Q>,
    {
        self.0.remove(key).is_some()
    }

    /// The keys, in order.
    pub fn iter(&self) -> impl Iterator<Item = &K> {
        self.0.keys()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn one_entry_takes_the_memory_of_one() {
        let mut map = SortedMap::default();
        map.insert(1, 'a');
        assert_eq!(map.0.capacity(), 1);
        (0..1000).for_each(|key| {
            map.insert(key, 'b');
        });
        (1..1000).for_each(|key| {
            map.remove(&key);
        });
        assert!(map.0.capacity() < 16);
        map.remove(&0);
        assert_eq!(map.0.capacity(), 0);
    }

    proptest! {
        #[test]
        fn behaves_as_the_standard_map(steps in proptest::collection::vec((0..40_u8, any::<bool>()), 0..200)) {
            let (mut map, mut model) = (SortedMap::default(), BTreeMap::new());
            for (number, (key, is_in)) in steps.into_iter().enumerate() {
                if is_in {
                    prop_assert_eq!(map.insert(key, number), model.insert(key, number));
                } else {
                    prop_assert_eq!(map.remove(&key), model.remove(&key));
                }
                prop_assert_eq!(map.get(&key), model.get(&key));
                prop_assert_eq!(map.len(), model.len());
                prop_assert!(map.keys().eq(model.keys()));
            }
        }
    }
}
