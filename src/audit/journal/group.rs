//! What everybody who appended in one turn of the flusher waits for.
//!
//! One allocation and one wake per turn, however many calls are in it. Must not know what was written.

use std::fmt;
use std::pin::Pin;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};

const PENDING: u8 = 0;
const WRITTEN: u8 = 1;
const FAILED: u8 = 2;

/// The journal cannot be written at the moment: nothing may be let through. [`super::Journal::health`] says since when and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JournalDown;

impl fmt::Display for JournalDown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the journal cannot be written")
    }
}

impl std::error::Error for JournalDown {}

/// The entries of one turn.
#[derive(Debug, Default)]
pub(super) struct Group {
    state: AtomicU8,
    wakers: Mutex<Vec<Waker>>,
}

impl Group {
    /// Tells everybody who waits, and everybody who asks later.
    pub(super) fn complete(&self, result: Result<(), JournalDown>) {
        let wakers = {
            let mut wakers = self.wakers.lock().unwrap_or_else(PoisonError::into_inner);
            self.state.store(if result.is_ok() { WRITTEN } else { FAILED }, Ordering::Release);
            std::mem::take(&mut *wakers)
        };
        for waker in wakers {
            waker.wake();
        }
    }

    fn result(&self) -> Option<Result<(), JournalDown>> {
        match self.state.load(Ordering::Acquire) {
            PENDING => None,
            WRITTEN => Some(Ok(())),
            _ => Some(Err(JournalDown)),
        }
    }
}

/// Resolves when an entry, and everything this worker appended before it, is durable.
#[derive(Debug)]
#[must_use = "an answer may leave only once its record is durable"]
pub struct Written {
    /// `None`: it was clear at once that it cannot be written.
    group: Option<Arc<Group>>,
    /// Where our waker stands in the group, once it does.
    place: Option<usize>,
}

impl Written {
    pub(super) fn of(group: Arc<Group>) -> Self {
        Self { group: Some(group), place: None }
    }

    pub(super) fn failed() -> Self {
        Self { group: None, place: None }
    }

    /// The result, if it is known already.
    #[must_use]
    pub fn now(&self) -> Option<Result<(), JournalDown>> {
        self.group.as_ref().map_or(Some(Err(JournalDown)), |group| group.result())
    }
}

impl Future for Written {
    type Output = Result<(), JournalDown>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Self { group, place } = &mut *self;
        let Some(group) = group else { return Poll::Ready(Err(JournalDown)) };
        if let Some(result) = group.result() {
            return Poll::Ready(result);
        }
        let mut wakers = group.wakers.lock().unwrap_or_else(PoisonError::into_inner);
        // It may have been completed since: then the wakers are taken, and ours would never be called.
        if let Some(result) = group.result() {
            return Poll::Ready(result);
        }
        match place.and_then(|at| wakers.get_mut(at)) {
            Some(waker) => waker.clone_from(cx.waker()),
            None => {
                *place = Some(wakers.len());
                wakers.push(cx.waker().clone());
            }
        }
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;
    use std::task::Wake;

    use super::*;

    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    #[test]
    fn everybody_in_a_group_is_woken_once_however_often_they_polled() {
        let group = Arc::new(Group::default());
        let counts: Vec<_> = (0..3).map(|_| Arc::new(Count(AtomicUsize::new(0)))).collect();
        let mut waiting: Vec<_> = counts.iter().map(|_| Written::of(Arc::clone(&group))).collect();
        for _ in 0..4 {
            for (written, count) in waiting.iter_mut().zip(&counts) {
                let waker = Waker::from(Arc::clone(count));
                assert!(Pin::new(written).poll(&mut Context::from_waker(&waker)).is_pending());
            }
        }
        group.complete(Ok(()));
        for (mut written, count) in waiting.into_iter().zip(&counts) {
            assert_eq!(count.0.load(Ordering::SeqCst), 1);
            let polled = Pin::new(&mut written).poll(&mut Context::from_waker(Waker::noop()));
            assert_eq!(polled, Poll::Ready(Ok(())));
        }
    }

    #[test]
    fn a_failed_group_says_so_before_and_after() {
        let group = Arc::new(Group::default());
        let before = Written::of(Arc::clone(&group));
        assert_eq!(before.now(), None);
        group.complete(Err(JournalDown));
        assert_eq!(before.now(), Some(Err(JournalDown)));
        assert_eq!(Written::of(group).now(), Some(Err(JournalDown)));
        assert_eq!(Written::failed().now(), Some(Err(JournalDown)));
    }
}
