//! The machine's own interfaces, which clusters come and go with: Chromium gives up what is under way when an address comes or
//! goes, and connections to one that is gone leave the machine and wait.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// How many need them as they are.
static NEEDED: Mutex<usize> = Mutex::new(0);
static LEFT: Condvar = Condvar::new();

/// While it is held, no test changes them. Who waits to change them keeps nobody from holding one more.
#[must_use = "they are still while this is held"]
pub(crate) struct Still(());

/// Waits for a change that is under way.
pub(crate) fn still() -> Still {
    *needed() += 1;
    Still(())
}

/// Changes them once nobody needs them as they are.
pub(crate) fn change<T>(how: impl FnOnce() -> T) -> T {
    let _nobody = LEFT.wait_while(needed(), |needed| *needed > 0).unwrap_or_else(PoisonError::into_inner);
    how()
}

fn needed() -> MutexGuard<'static, usize> {
    NEEDED.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Drop for Still {
    fn drop(&mut self) {
        *needed() -= 1;
        LEFT.notify_all();
    }
}
