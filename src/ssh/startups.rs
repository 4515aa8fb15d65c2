//! How many connections may be open that nobody has come in by yet: in all, and from one source (`MaxStartups` and
//! `PerSourceMaxStartups` of `sshd_config(5)`, without the dice). Some room is kept for the owner on this node, whatever
//! others do.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use nginx_free::PeerKey;

/// How many at a time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Bounds {
    /// In all.
    pub(crate) all: usize,
    /// From one source.
    pub(crate) per_source: usize,
    /// Of all, so many only for the one whose room is kept.
    pub(crate) reserved: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { all: 100, per_source: 10, reserved: 10 }
    }
}

/// The connections that nobody has come in by yet.
#[derive(Clone)]
pub(crate) struct Startups {
    bounds: Bounds,
    owner: PeerKey,
    open: Arc<Mutex<Open>>,
}

#[derive(Default)]
struct Open {
    strangers: usize,
    owners: usize,
    by_source: HashMap<PeerKey, usize>,
}

/// One such connection. Drop it when somebody has come in, or the connection has ended.
#[must_use]
pub(crate) struct Startup {
    source: PeerKey,
    of: Startups,
}

impl Startups {
    /// None yet. `owner` is whose room is kept.
    pub(crate) fn new(bounds: Bounds, owner: PeerKey) -> Self {
        Self { bounds, owner, open: Arc::default() }
    }

    /// Lets a connection from `source` begin; `None` where there are too many.
    pub(crate) fn begin(&self, source: PeerKey) -> Option<Startup> {
        let is_owner = source == self.owner;
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let room = if is_owner {
            open.strangers + open.owners < self.bounds.all
        } else {
            // What the owner has open beyond her reserve is taken from what others may have.
            let beyond = open.owners.saturating_sub(self.bounds.reserved);
            open.strangers + beyond + self.bounds.reserved < self.bounds.all
        };
        let from_there = open.by_source.get(&source).copied().unwrap_or(0);
        if !room || from_there >= self.bounds.per_source {
            return None;
        }
        *open.by_source.entry(source).or_insert(0) += 1;
        *(if is_owner { &mut open.owners } else { &mut open.strangers }) += 1;
        drop(open);
        Some(Startup { source, of: self.clone() })
    }
}

impl Drop for Startup {
    fn drop(&mut self) {
        let mut open = self.of.open.lock().unwrap_or_else(PoisonError::into_inner);
        let open = &mut *open;
        let count = if self.source == self.of.owner { &mut open.owners } else { &mut open.strangers };
        *count = count.saturating_sub(1);
        if let Some(left) = open.by_source.get_mut(&self.source) {
            *left = left.saturating_sub(1);
            if *left == 0 {
                open.by_source.remove(&self.source);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWNER: PeerKey = PeerKey::Local(1000);

    fn startups() -> Startups {
        Startups::new(Bounds { all: 10, per_source: 4, reserved: 2 }, OWNER)
    }

    fn stranger(number: u8) -> PeerKey {
        PeerKey::Ip([10, 0, 0, number].into())
    }

    #[test]
    fn one_source_has_no_more_than_its_share() {
        let startups = startups();
        let mut open: Vec<_> = (0..4).map(|_| startups.begin(stranger(1)).unwrap()).collect();
        assert!(startups.begin(stranger(1)).is_none());
        assert!(startups.begin(stranger(2)).is_some());
        open.pop();
        assert!(startups.begin(stranger(1)).is_some());
    }

    #[test]
    fn all_sources_together_leave_room_for_the_owner() {
        let startups = startups();
        let open: Vec<_> = (0..20).filter_map(|number| startups.begin(stranger(number))).collect();
        assert_eq!(open.len(), 8);
        let own: Vec<_> = (0..20).filter_map(|_| startups.begin(OWNER)).collect();
        assert_eq!(own.len(), 2, "in all there are no more than ten");
    }

    #[test]
    fn what_the_owner_has_beyond_her_reserve_is_counted() {
        let startups = startups();
        let own: Vec<_> = (0..20).filter_map(|_| startups.begin(OWNER)).collect();
        assert_eq!(own.len(), 4);
        let open: Vec<_> = (0..20).filter_map(|number| startups.begin(stranger(number))).collect();
        assert_eq!(open.len(), 6);
    }

    #[test]
    fn nothing_is_remembered_of_connections_that_are_over() {
        let startups = startups();
        for round in 0..100 {
            drop(startups.begin(stranger(round)).unwrap());
        }
        let open = startups.open.lock().unwrap();
        assert!(open.by_source.is_empty() && open.strangers == 0 && open.owners == 0);
    }
}
