//! Letters from any thread to the one that owns the box, which looks at a flag until there are some.

#[cfg(loom)]
use loom::sync::{
    Mutex,
    atomic::{AtomicBool, Ordering},
};
use std::sync::PoisonError;
#[cfg(not(loom))]
use std::sync::{
    Mutex,
    atomic::{AtomicBool, Ordering},
};

/// A box of letters.
pub(super) struct Letterbox<L> {
    letters: Mutex<Vec<L>>,
    /// Whether there are any: all that a busy owner looks at.
    waiting: AtomicBool,
}

impl<L> Letterbox<L> {
    pub(super) fn new() -> Self {
        Self { letters: Mutex::new(Vec::new()), waiting: AtomicBool::new(false) }
    }

    /// Leaves a letter. An owner that found none may be about to sleep: wake it after this.
    pub(super) fn leave(&self, letter: L) {
        self.letters.lock().unwrap_or_else(PoisonError::into_inner).push(letter);
        self.waiting.store(true, Ordering::Release);
    }

    /// Whether there is a letter.
    #[inline(always)]
    pub(super) fn waiting(&self) -> bool {
        self.waiting.load(Ordering::Acquire)
    }

    /// All letters, oldest first.
    pub(super) fn take(&self) -> Vec<L> {
        self.waiting.store(false, Ordering::Relaxed);
        std::mem::take(&mut self.letters.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// How a ring is fetched from two workers, in every order that threads can take (loom). The box is the real one.
///
/// `RUSTFLAGS="--cfg loom" cargo test --lib model`
#[cfg(all(loom, test))]
mod model {
    use super::*;
    use loom::{
        model::Builder,
        sync::{Arc, Notify, atomic::AtomicUsize, mpsc},
        thread,
    };

    /// How often a thread may be taken off its CPU where it would not have given it up.
    const PREEMPTIONS: usize = 2;

    /// Turns that a worker takes before it has nothing more to do but to wait for letters.
    const TURNS: usize = 1;

    /// A ring that several workers use.
    #[derive(Default)]
    struct Ring {
        /// Frames that were delivered into it.
        used: AtomicUsize,
        /// The control thread has it back.
        back: AtomicBool,
    }

    /// What a worker is told.
    enum Letter {
        /// To give the ring back.
        Detach(mpsc::Sender<()>),
        /// Something else.
        Other,
    }

    /// A worker's box, and what its descriptor for waking is to it: one that is rung before it waits does not wait.
    struct Mail {
        letters: Letterbox<Letter>,
        bell: Notify,
    }

    /// A worker: turn after turn it reads its letters first; with nothing to do it arms, looks once more, and sleeps.
    fn work(mail: &Mail, ring: Arc<Ring>) {
        let mut turns = 0;
        let mut ring = Some(ring);
        while ring.is_some() || turns < TURNS {
            if mail.letters.waiting() {
                for letter in mail.letters.take() {
                    let Letter::Detach(answer) = letter else { continue };
                    ring = None;
                    answer.send(()).unwrap();
                }
            }
            if turns == TURNS {
                if ring.is_some() && !mail.letters.waiting() {
                    mail.bell.wait();
                }
                continue;
            }
            turns += 1;
            if let Some(ring) = &ring {
                assert!(!ring.back.load(Ordering::Relaxed), "a worker uses a ring that was given back");
                ring.used.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    #[test]
    fn a_ring_comes_back_once_no_worker_uses_it_and_sleeping_ones_are_woken() {
        let mut builder = Builder::new();
        builder.preemption_bound = Some(PREEMPTIONS);
        builder.check(|| {
            let ring = Arc::new(Ring::default());
            let mails = [(); 2].map(|()| Arc::new(Mail { letters: Letterbox::new(), bell: Notify::new() }));
            let workers = mails.clone().map(|mail| {
                let ring = ring.clone();
                thread::spawn(move || work(&mail, ring))
            });
            let answers = mails.map(|mail| {
                let (answer, answered) = mpsc::channel();
                for letter in [Letter::Other, Letter::Detach(answer)] {
                    mail.letters.leave(letter);
                    mail.bell.notify();
                }
                answered
            });
            answers.into_iter().for_each(|answer| answer.recv().unwrap());
            ring.back.store(true, Ordering::Relaxed);
            let used = ring.used.load(Ordering::Relaxed);
            workers.into_iter().for_each(|worker| worker.join().unwrap());
            assert_eq!(ring.used.load(Ordering::Relaxed), used, "nothing is delivered any more");
        });
    }
}
