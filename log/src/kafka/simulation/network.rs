//! The way of a request to the broker and of its answer back, and what may happen to the process that
//! waits for it.

use std::sync::Arc;

use rdkafka::error::RDKafkaErrorCode as Code;

use super::broker::Request;
use super::{Name, Shared};

/// Time for one request, after which the client sends it again.
pub(super) const REQUEST_TIMEOUT_MS: u64 = 10_000;
/// Requests of one call before it fails.
const TRIES: u32 = 3;
/// A copy that was given up comes at most this much later.
const STRAY_MS: u64 = 30_000;
/// A process stands still for at most this long.
const STALL_MS: u64 = 30_000;

/// What a call came to.
#[derive(Debug)]
pub(super) struct Called {
    pub(super) answer: Result<u64, Code>,
    /// A connection broke while it ran.
    pub(super) disturbed: bool,
}

/// What ends a process in the middle of a call.
#[derive(Debug, Clone)]
pub(super) struct Ended(pub(super) String);

enum Way {
    There,
    /// Neither the request nor an answer.
    Nowhere,
    /// The request, but not its answer.
    NoReply,
    /// The request is given up, and comes later.
    Later,
}

impl Shared {
    /// Sends a request until it is answered, as librdkafka does inside.
    pub(super) fn call(self: &Arc<Self>, who: &Name, request: &Request) -> Result<Called, Ended> {
        let mut disturbed = false;
        for _ in 0..TRIES {
            self.meanwhile(who)?;
            let mut world = self.world();
            let chaos = world.chaos;
            let way = match world.random.per_mille(chaos.lost) {
                false => Way::There,
                true => match world.random.below(3) {
                    0 => Way::Nowhere,
                    1 => Way::NoReply,
                    _ => Way::Later,
                },
            };
            // Either the connection breaks, or the client's patience ends.
            let breaks = world.random.per_mille(400);
            let answer = match way {
                Way::There | Way::NoReply => {
                    let world = &mut *world;
                    Some(world.broker.answer(request.clone(), &mut world.random))
                }
                Way::Nowhere => None,
                Way::Later => {
                    let at_ms = world.now_ms + world.random.below(STRAY_MS);
                    world.strays.push((at_ms, request.clone()));
                    None
                }
            };
            let lost = !matches!(way, Way::There);
            world.tell(|| format!("{who:?} {request:?}: {answer:?}, lost: {lost}"));
            if let (Way::There, Some(answer)) = (way, answer) {
                return Ok(Called { answer, disturbed });
            }
            world.counts.lost += 1;
            drop(world);
            if breaks {
                disturbed = true;
            } else {
                self.wait(REQUEST_TIMEOUT_MS).map_err(Ended)?;
            }
        }
        Ok(Called {
            answer: Err(Code::OperationTimedOut),
            disturbed,
        })
    }

    /// What may happen to a process at any place: it is killed, it stands still, its network is slow.
    pub(super) fn meanwhile(self: &Arc<Self>, who: &Name) -> Result<(), Ended> {
        let mut world = self.world();
        let chaos = world.chaos;
        if world.random.per_mille(chaos.crash) {
            world.tell(|| format!("{who:?} is killed"));
            world.session(who).crashed = true;
            return Err(Ended("killed".into()));
        }
        if !world.random.per_mille(chaos.stall) {
            return Ok(());
        }
        let ms = world.random.below(STALL_MS);
        let stopped = world.random.per_mille(500);
        world.counts.stalls += 1;
        world.session(who).stopped = stopped;
        world.tell(|| format!("{who:?} waits for {ms} ms, stopped: {stopped}"));
        drop(world);
        let waited = self.wait(ms);
        self.world().session(who).stopped = false;
        waited.map_err(Ended)
    }
}
