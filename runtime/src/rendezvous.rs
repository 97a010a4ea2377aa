//! Rendezvous hashing: who, of several, for this key.
//!
//! Invariant: a function of the key and the names alone. All who ask about the same key and the same
//! names get the same order, and a name that comes or goes moves no other.

/// The names in their order for `key`, the first choice first. Equal names keep their order.
pub fn order<T: AsRef<str>>(key: &str, mut names: Vec<T>) -> Vec<T> {
    names.sort_by_cached_key(|name| std::cmp::Reverse(weight(key, name.as_ref())));
    names
}

fn weight(key: &str, name: &str) -> u64 {
    let mut hasher = blake3::Hasher::new();
    // The length keeps ("a", "bc") and ("ab", "c") apart.
    hasher.update(&(key.len() as u64).to_le_bytes());
    hasher.update(key.as_bytes());
    hasher.update(name.as_bytes());
    let mut first = [0; 8];
    hasher.finalize_xof().fill(&mut first);
    u64::from_le_bytes(first)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn keys_spread_over_names() {
        let names: Vec<String> = (0..8).map(|at| format!("http://worker-{at}:5000")).collect();
        let mut first = std::collections::BTreeMap::new();
        for key in 0..800 {
            let chosen = order(&key.to_string(), names.clone()).remove(0);
            *first.entry(chosen).or_insert(0) += 1;
        }
        // 100 each on the average, with a standard deviation of 9.
        assert!(first.len() == 8 && first.values().all(|count| (60..140).contains(count)));
    }

    proptest! {
        #[test]
        fn a_name_that_goes_moves_no_other(key: String, names in prop::collection::btree_set("[a-z]{1,6}", 1..8)) {
            let names: Vec<String> = names.into_iter().collect();
            let all = order(&key, names.clone());
            for gone in &names {
                let left: Vec<_> = names.iter().filter(|name| *name != gone).cloned().collect();
                let expected: Vec<_> = all.iter().filter(|name| *name != gone).cloned().collect();
                prop_assert_eq!(order(&key, left), expected);
            }
        }
    }
}
