//! Where an app stands in the paths of a host: under a prefix that it knows (kept) or does not know (stripped), and the
//! table that finds an app by its prefix. What the app's answers say of paths is put right by `rewrite`.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use http::{Uri, uri::PathAndQuery};

use crate::path;

/// The place of one app in the paths of a host: `/pod/3/theia`, or the root.
#[derive(Debug)]
pub struct Prefix {
    /// Without a slash at the end; empty for the root.
    path: Box<str>,
    strips: bool,
    /// The app was seen to lead from `PREFIX/` to `PREFIX`: leading back there would go on for ever.
    bare: AtomicBool,
}

/// Why a text is no prefix.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum PrefixError {
    /// It is not `/` followed by segments with nothing in them that could be read in two ways.
    #[error("a prefix is / or whole segments such as /pod/3, without escapes, dot segments, `;` or `\\`")]
    Ambiguous,
    /// There is a route with this prefix.
    #[error("this prefix is taken")]
    Taken,
}

impl Prefix {
    /// The place of an app that is asked for its whole path, and so has to know its prefix (Jupyter's `base_url`).
    ///
    /// # Errors
    /// [`PrefixError::Ambiguous`].
    pub fn kept(path: &str) -> Result<Self, PrefixError> {
        Self::new(path, false)
    }

    /// The place of an app that believes to stand at the root: the prefix is taken off its paths, and put before those
    /// that its answers name.
    ///
    /// # Errors
    /// [`PrefixError::Ambiguous`].
    pub fn stripped(path: &str) -> Result<Self, PrefixError> {
        Self::new(path, true)
    }

    fn new(path: &str, strips: bool) -> Result<Self, PrefixError> {
        let trimmed = path.strip_suffix('/').unwrap_or(path);
        let segments = trimmed.split('/').count() - 1;
        let whole = trimmed.is_empty() || path::is_plain(trimmed, segments);
        if !path.starts_with('/') || !whole || trimmed.ends_with('/') || trimmed.contains(['%', '?', '#']) {
            return Err(PrefixError::Ambiguous);
        }
        Ok(Self { path: trimmed.into(), strips, bare: AtomicBool::new(false) })
    }

    /// The prefix, without a slash at its end: the root's is empty.
    pub fn as_str(&self) -> &str {
        &self.path
    }

    /// Whether it is taken off.
    pub fn strips(&self) -> bool {
        self.strips
    }

    /// How many segments it has.
    pub fn segments(&self) -> usize {
        self.path.bytes().filter(|b| *b == b'/').count()
    }

    /// Whether a path is this prefix, or goes on below it.
    pub fn covers(&self, path: &str) -> bool {
        path.strip_prefix(&*self.path).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }

    /// Whether the prefix is put before paths that the app names.
    pub(crate) fn is_added(&self) -> bool {
        self.strips && !self.path.is_empty()
    }

    /// Where a person who left the last slash out is led to, so that relative links work.
    pub(crate) fn with_slash(&self, target: &Uri) -> Option<String> {
        let led = self.is_added() && target.path() == &*self.path && !self.bare.load(Ordering::Relaxed);
        let query = target.query().map(|query| format!("?{query}")).unwrap_or_default();
        led.then(|| format!("{}/{query}", self.path))
    }

    /// The app leads from `PREFIX/` to `PREFIX`: from now on it is asked for that itself.
    pub(crate) fn leave_bare(&self) {
        self.bare.store(true, Ordering::Relaxed);
    }

    /// What the app is asked for: all after the prefix, byte for byte. `None` where the target is not under it.
    pub(crate) fn target(&self, target: Uri) -> Option<Uri> {
        if !self.covers(target.path()) {
            return None;
        }
        let Some(whole) = target.into_parts().path_and_query else { return Some(Uri::default()) };
        if !self.is_added() {
            return Some(Uri::from(whole));
        }
        let rest = &whole.as_str()[self.path.len()..];
        let below = match rest.as_bytes().first() {
            Some(b'/') => PathAndQuery::try_from(rest),
            _ => PathAndQuery::try_from(format!("/{rest}")),
        };
        below.ok().map(Uri::from)
    }
}

/// Finds what stands under a path: of the prefixes that cover it, the longest.
#[derive(Debug)]
pub struct Routes<T> {
    by_prefix: HashMap<Box<str>, (Arc<Prefix>, T)>,
    segments: usize,
}

impl<T> Default for Routes<T> {
    fn default() -> Self {
        Self { by_prefix: HashMap::new(), segments: 0 }
    }
}

impl<T> Routes<T> {
    /// Adds one.
    ///
    /// # Errors
    /// [`PrefixError::Taken`].
    pub fn add(&mut self, prefix: Prefix, target: T) -> Result<(), PrefixError> {
        if self.by_prefix.contains_key(&prefix.path) {
            return Err(PrefixError::Taken);
        }
        self.segments = self.segments.max(prefix.segments());
        self.by_prefix.insert(prefix.path.clone(), (Arc::new(prefix), target));
        Ok(())
    }

    /// The longest prefix that covers `path`, and what stands there.
    pub fn find(&self, path: &str) -> Option<(&Arc<Prefix>, &T)> {
        let ends = path.bytes().enumerate().filter(|(_, b)| *b == b'/').map(|(at, _)| at);
        let ends = ends.chain(std::iter::once(path.len())).take(self.segments + 1);
        let found = ends.filter_map(|end| self.by_prefix.get(&path[..end])).last();
        found.map(|(prefix, target)| (prefix, target))
    }

    /// How many segments the longest prefix has: [`Limits::routed_segments`](crate::Limits::routed_segments) may be no
    /// less, for what is routed by must have one reading.
    pub fn segments(&self) -> usize {
        self.segments
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_whole_prefix_is_found() {
        let mut routes = Routes::default();
        routes.add(Prefix::kept("/").unwrap(), "root").unwrap();
        routes.add(Prefix::kept("/pod/3").unwrap(), "pod").unwrap();
        routes.add(Prefix::stripped("/pod/3/theia/").unwrap(), "theia").unwrap();
        assert_eq!(routes.add(Prefix::kept("/pod/3/").unwrap(), "again"), Err(PrefixError::Taken));
        assert_eq!(routes.segments(), 3);
        let find = |path| routes.find(path).map(|(_, target)| *target);
        for (path, wanted) in [
            ("/", "root"),
            ("/pod", "root"),
            ("/pod/", "root"),
            ("/pod/30", "root"),
            ("/pod/3", "pod"),
            ("/pod/3/", "pod"),
            ("/pod/3/theia", "theia"),
            ("/pod/3/theia/a/b/c", "theia"),
            ("/pod/3/theia2", "pod"),
            ("/x/pod/3/theia", "root"),
        ] {
            assert_eq!(find(path), Some(wanted), "{path}");
        }
        assert!(Routes::<()>::default().find("/").is_none());
    }

    #[test]
    fn what_is_below_goes_through_byte_for_byte() {
        let target = |prefix: &Prefix, uri: &str| prefix.target(uri.parse().unwrap()).map(|u| u.to_string());
        let stripped = Prefix::stripped("/pod/3").unwrap();
        for (asked, sent) in [
            ("/pod/3", "/"),
            ("/pod/3?a=/b", "/?a=/b"),
            ("/pod/3/", "/"),
            ("/pod/3/a/%2e%2e/%252f;x?y=%00&z", "/a/%2e%2e/%252f;x?y=%00&z"),
            ("/pod/3//evil", "//evil"),
            ("/pod/3/pod/3/", "/pod/3/"),
        ] {
            assert_eq!(target(&stripped, asked).as_deref(), Some(sent));
        }
        assert_eq!(target(&stripped, "/pod/30"), None);
        assert_eq!(target(&stripped, "/"), None);
        let kept = Prefix::kept("/pod/3").unwrap();
        assert_eq!(target(&kept, "/pod/3/a?b").as_deref(), Some("/pod/3/a?b"));
        let root = Prefix::stripped("/").unwrap();
        assert_eq!(target(&root, "/a?b").as_deref(), Some("/a?b"));
    }

    #[test]
    fn a_prefix_has_one_reading() {
        for path in
            ["", "pod", "/..", "/a/../b", "//", "//a", "/a//", "/a//b", "/%61", "/a;b", "/a?b", "/a#b", "/é"]
        {
            assert_eq!(Prefix::kept(path).unwrap_err(), PrefixError::Ambiguous, "{path:?}");
        }
    }
}
