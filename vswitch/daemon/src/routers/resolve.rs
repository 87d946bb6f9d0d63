//! Finding neighbours: frames are held while these are asked for, a few for each, and not more than a share for each VLAN.

use super::{Heard, Key, Lost, Speaker, TRIES, TRY_EVERY, Unanswered};
use std::collections::{BTreeMap, VecDeque};
use vswitch_core::{clock::Instant, route::Routing, vlan::VlanId};

/// Frames that wait for one neighbour: the latest (RFC 1122 §2.3.2.2).
pub(super) const HELD: usize = 3;

/// Neighbours that are asked for, of all VLANs and by one: so the frames that wait are three times as many.
pub(super) const ASKED: usize = 256;
pub(super) const ASKED_BY_ONE: usize = 64;

/// Bytes of frames of one VLAN that wait.
pub(super) const HELD_BYTES: usize = 1 << 20;

/// Frames that are noted at a time as having waited in vain: no more are recorded of a moment.
const NOTED: usize = 64;

/// A neighbour that is asked for.
#[derive(Debug)]
pub(super) struct Asked {
    /// The VLAN that the first frame for it came from: it counts as asked by this one.
    pub(super) asker: VlanId,
    pub(super) held: VecDeque<Held>,
    /// When it was asked for first.
    pub(super) since: Instant,
    tries: u8,
    /// When it is asked for again, or given up.
    pub(super) due: Instant,
}

/// A frame that waits.
#[derive(Debug)]
pub(super) struct Held {
    /// The VLAN that it came from.
    pub(super) vlan: VlanId,
    frame: Vec<u8>,
}

impl Speaker {
    /// Keeps a frame for a neighbour that is not known, who is asked for.
    pub(super) fn hold(&mut self, heard: Heard<'_>, key: Key, now: Instant) -> Result<(), Lost> {
        if self.failed.has(key, now) {
            self.note_unanswered(heard, key, false);
            self.tell_unreachable(heard, now);
            return Err(Lost::Unreachable);
        }
        let of_vlan = |held: &&Held| held.vlan == heard.vlan;
        let waiting = self.asked.values().flat_map(|asked| &asked.held).filter(of_vlan);
        if waiting.map(|held| held.frame.len()).sum::<usize>() + heard.frame.len() > HELD_BYTES {
            return Err(Lost::TooMany);
        }
        let held = Held { vlan: heard.vlan, frame: heard.frame.to_vec() };
        if let Some(asked) = self.asked.get_mut(&key) {
            let crowded = if asked.held.len() == HELD { asked.held.pop_front() } else { None };
            asked.held.push_back(held);
            self.counts.held += 1;
            if let Some(crowded) = crowded {
                self.counts.lose(Lost::HoldFull);
                self.with(heard.routing, &crowded.frame, |speaker, heard| {
                    speaker.note_unanswered(heard, key, true);
                });
            }
            return Ok(());
        }
        self.make_room(heard.vlan)?;
        let held = VecDeque::from([held]);
        self.asked.insert(key, Asked { asker: heard.vlan, held, since: now, tries: 0, due: now });
        self.counts.held += 1;
        self.ask_for(heard.routing, key, now);
        Ok(())
    }

    /// Asks for a neighbour that the router itself needs, for this VLAN's sake.
    pub(super) fn seek(
        &mut self,
        routing: &Routing,
        key: Key,
        asker: VlanId,
        now: Instant,
    ) -> Result<(), Lost> {
        if !self.asked.contains_key(&key) {
            self.make_room(asker)?;
            self.asked.insert(key, Asked { asker, held: VecDeque::new(), since: now, tries: 0, due: now });
            self.ask_for(routing, key, now);
        }
        Ok(())
    }

    /// Makes sure that one more may be asked for by this VLAN. If all have too many, one goes that the VLAN with the most asks for.
    fn make_room(&mut self, vlan: VlanId) -> Result<(), Lost> {
        let mut askers: BTreeMap<VlanId, usize> = BTreeMap::new();
        self.asked.values().for_each(|asked| *askers.entry(asked.asker).or_default() += 1);
        let own = askers.get(&vlan).copied().unwrap_or(0);
        if own >= ASKED_BY_ONE {
            return Err(Lost::TooMany);
        }
        if self.asked.len() < ASKED {
            return Ok(());
        }
        let most = askers.into_iter().max_by_key(|(_, count)| *count);
        let (most, _) = most.filter(|(_, most)| *most > own + 1).ok_or(Lost::TooMany)?;
        let theirs = self.asked.iter().filter(|(_, asked)| asked.asker == most);
        let oldest = theirs.min_by_key(|(_, asked)| asked.since).map(|(key, _)| *key).ok_or(Lost::TooMany)?;
        let lost = self.asked.remove(&oldest).map_or(0, |asked| asked.held.len());
        self.counts.lose_many(Lost::TooMany, lost as u64);
        Ok(())
    }

    /// Asks for a neighbour once more, if its asker may; else later.
    fn ask_for(&mut self, routing: &Routing, key: Key, now: Instant) {
        let Some(asked) = self.asked.get_mut(&key) else { return };
        asked.due = now + TRY_EVERY;
        if self.segments.get(&asked.asker).is_some_and(|segment| segment.asks.take(1, now)) {
            asked.tries += 1;
            self.ask(routing, key, None);
        }
    }

    /// Asks again for those who did not answer in time, and gives up those who were asked for often enough.
    pub(super) fn ask_again(&mut self, routing: &Routing, now: Instant) {
        let due: Vec<Key> =
            self.asked.iter().filter(|(_, asked)| asked.due <= now).map(|(key, _)| *key).collect();
        for key in due {
            if self.asked.get(&key).is_some_and(|asked| asked.tries < TRIES) {
                self.ask_for(routing, key, now);
                continue;
            }
            let Some(asked) = self.asked.remove(&key) else { continue };
            self.counts.failed += 1;
            self.failed.note(key, now);
            for held in asked.held {
                self.counts.lose(Lost::Unreachable);
                // Each is told, by what it says now: it was read when it came.
                self.with(routing, &held.frame, |speaker, heard| {
                    speaker.note_unanswered(heard, key, false);
                    speaker.tell_unreachable(heard, now);
                });
            }
        }
    }

    /// Notes that a frame is lost, for whoever records it.
    fn note_unanswered(&mut self, heard: Heard<'_>, (vlan, _): Key, crowded: bool) {
        if self.unanswered.len() < NOTED {
            let (port, head, len) = (heard.routing.port, heard.judged().to_vec(), heard.view().len);
            self.unanswered.push(Unanswered { port, vlan, crowded, head, len });
        }
    }

    /// A neighbour is known now: frames that waited for it go on, in order.
    pub(super) fn go_on_with(&mut self, routing: &Routing, key: Key, now: Instant) {
        let Some(asked) = self.asked.remove(&key) else { return };
        self.counts.resolved += 1;
        for held in asked.held {
            // The routes may be others than when it came.
            self.with(routing, &held.frame, |speaker, heard| {
                let goes_on =
                    speaker.waits_for(heard, now).and_then(|waits| speaker.forward(heard, waits, now));
                if let Err(why) = goes_on {
                    speaker.counts.lose(why);
                }
            });
        }
        self.ask_who_is_found(routing, key, now);
    }
}
