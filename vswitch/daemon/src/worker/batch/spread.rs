//! A heap whose destination has several receiveqs: each flow has one of them.

use super::{Delivery, Heap, Run};
use std::sync::Arc;
use vhost_net_backend::device::ring::ToGuest;
use vswitch_core::flow::Flow;

impl Delivery<'_> {
    /// Delivers a heap to receiveqs of which each gets its flows, in the order in which they were sent. `heaps` is what they wait in.
    #[inline(never)]
    pub(super) fn spread(&mut self, port: u16, to: &[Arc<ToGuest>], heap: &Heap, heaps: &mut Vec<Heap>) {
        // A panic may have left something behind.
        heaps.iter_mut().for_each(Heap::clear);
        heaps.resize_with(heaps.len().max(to.len()), Heap::default);
        for run in &heap.runs {
            for at in run.frames.clone() {
                let frame = self.ring.frame(at);
                let flow = Flow::of(frame.head(), frame.len());
                if let Some(place) = flow.choose(to.iter().map(|ring| ring.index())) {
                    heaps[place].put(run, at);
                }
            }
        }
        for ((place, to), heap) in (0..).zip(to).zip(&*heaps) {
            if heap.frames > 0 {
                self.fill((port, place), to, heap);
            }
        }
    }
}

impl Heap {
    /// One frame of `run` waits here, behind those that do.
    fn put(&mut self, run: &Run, frame: usize) {
        match self.runs.last_mut() {
            Some(last) if last.frames.end == frame && last.copy == run.copy && last.edit == run.edit => {
                last.frames.end += 1;
                self.frames += 1;
            }
            _ => self.push(Run { frames: frame..frame + 1, ..*run }),
        }
    }
}
