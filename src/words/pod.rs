//! Pod numbers, and the ports that belong to them.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A session's number on its gateway's host, counted from 1. It owns `width` ports from `base + width × number`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PodNumber(u16);

impl PodNumber {
    /// The number as such.
    pub fn value(self) -> u16 {
        self.0
    }
}

impl fmt::Display for PodNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Which pods a node has, and where their ports lie.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PodRange {
    base: u16,
    width: u16,
    count: u16,
}

impl PodRange {
    /// `None` where a port would lie below 1024 or above 65535, a pod would have fewer than two ports, or there would be no pod.
    pub fn new(base: u16, width: u16, count: u16) -> Option<Self> {
        let last = u32::from(base) + u32::from(width) * (u32::from(count) + 1);
        let first = u32::from(base) + u32::from(width);
        (width >= 2 && count >= 1 && first >= 1024 && last <= 65536).then_some(Self { base, width, count })
    }

    /// All pods, from number 1 up.
    pub fn pods(self) -> impl Iterator<Item = PodNumber> {
        (1..=self.count).map(PodNumber)
    }

    /// Pod number `number`, if the node has it.
    pub fn pod(self, number: u16) -> Option<PodNumber> {
        (1..=self.count).contains(&number).then_some(PodNumber(number))
    }

    /// The port of a pod's ssh server. Binding it is how the pod is allocated.
    pub fn ssh_port(self, pod: PodNumber) -> u16 {
        self.base + self.width * pod.0
    }

    /// The port of a pod's HTTPS gateway.
    pub fn https_port(self, pod: PodNumber) -> u16 {
        self.ssh_port(pod) + 1
    }

    /// The port that a pod's host on another machine dials; none where pods have only two.
    pub fn link_port(self, pod: PodNumber) -> Option<u16> {
        (self.width >= 3).then(|| self.ssh_port(pod) + 2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_range_gives_the_ports_people_know() {
        let range = PodRange::new(3000, 10, 1000).unwrap();
        let third = range.pod(3).unwrap();
        assert_eq!((range.ssh_port(third), range.https_port(third)), (3030, 3031));
        assert_eq!(range.link_port(third), Some(3032));
        assert_eq!(PodRange::new(3000, 2, 10).unwrap().link_port(third), None);
        assert_eq!((range.pod(0), range.pod(1001)), (None, None));
    }

    #[test]
    fn no_range_reaches_past_the_last_port_or_below_the_first_unprivileged_one() {
        assert!(PodRange::new(65_000, 10, 100).is_none());
        assert!(PodRange::new(0, 10, 100).is_none());
        assert!(PodRange::new(3000, 1, 100).is_none());
        assert!(PodRange::new(3000, 10, 0).is_none());
        assert!(PodRange::new(3000, u16::MAX, u16::MAX).is_none());
    }
}
