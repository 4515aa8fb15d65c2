//! Polls what was woken, and leaves the rest alone.
//!
//! A task is polled as a whole, and what it consists of with it: for one request, a client's connection is asked some six
//! times whether more has come, each time through HTTP and TLS down to the socket. What has returned `Pending` has nothing
//! new to say until its waker is called ([`std::future::Future::poll`]), so each part that is dear to ask has a waker of its
//! own, which notes that it was, and wakes the task.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Wake, Waker},
};

/// One part of a task.
pub(crate) struct Woken {
    shared: Arc<Shared>,
    /// Of `shared`.
    waker: Waker,
}

#[derive(Default)]
struct Shared(Mutex<State>);

#[derive(Default)]
struct State {
    /// It was polled in vain, and not woken since.
    rests: bool,
    /// Whoever would wake the task is in it.
    is_quiet: bool,
    /// Who is to be woken. Taken when that is done.
    task: Option<Waker>,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Wake for Shared {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        let task = {
            let mut state = self.state();
            state.rests = false;
            if state.is_quiet { None } else { state.task.take() }
        };
        // Not under the lock: this may end the task, and us with it.
        if let Some(task) = task {
            task.wake();
        }
    }
}

impl Woken {
    /// One that was not polled yet.
    pub(crate) fn new() -> Self {
        let shared = Arc::<Shared>::default();
        Self { waker: Waker::from(Arc::clone(&shared)), shared }
    }

    /// Polls, unless that was in vain and nothing has come since. What is polled has to be woken by its context alone.
    pub(crate) fn poll<T>(
        &self,
        cx: &mut Context<'_>,
        poll: impl FnOnce(&mut Context<'_>) -> Poll<T>,
    ) -> Poll<T> {
        let mut before = None;
        let rests = {
            let mut state = self.shared.state();
            if !state.task.as_ref().is_some_and(|task| task.will_wake(cx.waker())) {
                before = state.task.replace(cx.waker().clone());
            }
            // Before it is polled: what comes meanwhile counts.
            std::mem::replace(&mut state.rests, true)
        };
        // Not under the lock, as it may be the last that is left of its task.
        drop(before);
        if rests {
            return Poll::Pending;
        }
        let polled = poll(&mut Context::from_waker(&self.waker));
        if polled.is_ready() {
            self.again();
        }
        polled
    }

    /// It has something to do, of which no waker knows.
    pub(crate) fn again(&self) {
        self.shared.state().rests = false;
    }

    /// Does what may wake this part, within its own task, which polls it before it waits: to wake the task as well would
    /// only make it look twice.
    pub(crate) fn quietly<T>(&self, act: impl FnOnce() -> T) -> T {
        self.shared.state().is_quiet = true;
        let done = act();
        self.shared.state().is_quiet = false;
        done
    }

    /// It belongs to no task for now.
    pub(crate) fn leave_task(&self) {
        let task = self.shared.state().task.take();
        drop(task);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[derive(Default)]
    struct Task(AtomicUsize);

    impl Wake for Task {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn task() -> (Arc<Task>, Waker) {
        let task = Arc::<Task>::default();
        (Arc::clone(&task), Waker::from(task))
    }

    impl Task {
        fn wakes(&self) -> usize {
            self.0.load(Ordering::Relaxed)
        }
    }

    /// How a part that has nothing to say is polled: whether at all, and its waker.
    fn poll_in_vain(woken: &Woken, by: &Waker) -> Option<Waker> {
        let mut own = None;
        let polled = woken.poll(&mut Context::from_waker(by), |cx| {
            own = Some(cx.waker().clone());
            Poll::<()>::Pending
        });
        assert!(polled.is_pending());
        own
    }

    #[test]
    fn it_is_polled_once_for_each_time_that_it_is_woken() {
        let (woken, (task, by)) = (Woken::new(), task());
        let own = poll_in_vain(&woken, &by).expect("it was new");
        assert!(poll_in_vain(&woken, &by).is_none());
        own.wake_by_ref();
        own.wake_by_ref();
        assert_eq!(task.wakes(), 1, "one that is woken already need not be again");
        assert!(poll_in_vain(&woken, &by).is_some() && poll_in_vain(&woken, &by).is_none());
        own.wake_by_ref();
        assert_eq!(task.wakes(), 2);
    }

    #[test]
    fn what_comes_while_it_is_polled_is_not_lost() {
        let (woken, (task, by)) = (Woken::new(), task());
        let polled = woken.poll(&mut Context::from_waker(&by), |cx| {
            cx.waker().wake_by_ref();
            Poll::<()>::Pending
        });
        assert!(polled.is_pending() && task.wakes() == 1);
        assert!(poll_in_vain(&woken, &by).is_some());
    }

    #[test]
    fn what_was_ready_is_asked_again() {
        let (woken, (_, by)) = (Woken::new(), task());
        let ready = || woken.poll(&mut Context::from_waker(&by), |_| Poll::Ready(1));
        assert!(ready().is_ready() && ready().is_ready());
        assert!(poll_in_vain(&woken, &by).is_some() && ready().is_pending());
        woken.again();
        assert!(ready().is_ready());
    }

    #[test]
    fn the_task_that_polled_last_is_woken() {
        let (woken, (first, by_first), (second, by_second)) = (Woken::new(), task(), task());
        let own = poll_in_vain(&woken, &by_first).unwrap();
        assert!(poll_in_vain(&woken, &by_second).is_none(), "another task is no news");
        own.wake_by_ref();
        assert_eq!((first.wakes(), second.wakes()), (0, 1));
        poll_in_vain(&woken, &by_second).unwrap();
        woken.leave_task();
        own.wake_by_ref();
        assert_eq!((first.wakes(), second.wakes()), (0, 1));
        assert!(poll_in_vain(&woken, &by_first).is_some(), "it was woken, whoever heard of it");
    }

    #[test]
    fn its_own_task_is_not_woken_by_what_it_does_quietly() {
        let (woken, (task, by)) = (Woken::new(), task());
        let own = poll_in_vain(&woken, &by).unwrap();
        woken.quietly(|| own.wake_by_ref());
        assert_eq!(task.wakes(), 0);
        assert!(poll_in_vain(&woken, &by).is_some());
        own.wake_by_ref();
        assert_eq!(task.wakes(), 1);
    }
}
