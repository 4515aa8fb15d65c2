//! The wall clock, as people read it where this process runs.

/// A moment of local time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Local {
    /// As in 2026.
    pub year: i64,
    /// 0 to 11.
    pub month: usize,
    /// 1 to 31.
    pub day: i32,
    /// 0 to 23.
    pub hour: i32,
    /// 0 to 59.
    pub minute: i32,
}

/// Local time at so many seconds since 1970, by `TZ` or `/etc/localtime`. `None` where the year is beyond reckoning.
pub fn local(seconds: i64) -> Option<Local> {
    // SAFETY: tm is plain data, for which all zeros is a value (tm(3type)).
    let mut split: libc::tm = unsafe { std::mem::zeroed() };
    // SAFETY: reads one number and writes one tm, both ours (localtime_r(3)).
    if unsafe { libc::localtime_r(&raw const seconds, &raw mut split) }.is_null() {
        return None;
    }
    Some(Local {
        year: i64::from(split.tm_year) + 1900,
        month: usize::try_from(split.tm_mon).ok()?,
        day: split.tm_mday,
        hour: split.tm_hour,
        minute: split.tm_min,
    })
}
