//! Which requests were made before, in bounded memory.

use std::{
    collections::{HashSet, hash_map::RandomState},
    hash::BuildHasher,
    mem,
};

use http::Method;

/// So many are remembered for certain, and twice as many at most: 8 bytes each. What is made again and again stays among them,
/// whatever else a page asks for.
const MOST: usize = 2048;

/// By their hashes, which nobody outside can foresee.
#[derive(Debug, Default)]
pub(super) struct Made {
    hasher: RandomState,
    recent: HashSet<u64>,
    before: HashSet<u64>,
}

impl Made {
    /// Remembers it. Whether it is not known to have been made before.
    pub(super) fn is_new(&mut self, method: &Method, path: &str, length: Option<u64>) -> bool {
        let hash = self.hasher.hash_one((method.as_str(), path, length));
        if self.recent.contains(&hash) {
            return false;
        }
        if self.recent.len() >= MOST {
            self.before = mem::take(&mut self.recent);
        }
        let known = self.before.contains(&hash);
        self.recent.insert(hash);
        !known
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_of_ten_thousand_paths_fills_no_memory_and_hides_no_poll() {
        let mut made = Made::default();
        assert!(made.is_new(&Method::GET, "/poll", None));
        for n in 0..10_000 {
            made.is_new(&Method::GET, &format!("/{n}"), None);
            assert!(!made.is_new(&Method::GET, "/poll", None), "{n}");
            assert!(made.recent.len() <= MOST && made.before.len() <= MOST);
        }
    }

    #[test]
    fn method_path_and_length_tell_requests_apart() {
        let mut made = Made::default();
        for (method, path, length) in [
            (Method::GET, "/a", None),
            (Method::PUT, "/a", None),
            (Method::PUT, "/a", Some(1)),
            (Method::PUT, "/a", Some(2)),
            (Method::GET, "/b", None),
        ] {
            assert!(made.is_new(&method, path, length));
            assert!(!made.is_new(&method, path, length));
        }
    }
}
