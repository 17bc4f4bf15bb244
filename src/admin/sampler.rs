//! Looks at everything once a second, on the control thread, and remembers it: the last minutes
//! for the plots, what has happened, and the last few moments for what is true now.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::events::{self, Events};
use super::history::{self, History};
use super::moment::{Interval, Moment};
use crate::control::{Pool, Status};

/// Between two looks.
const STEP: Duration = Duration::from_secs(1);
/// A worker that takes longer is shown as it last was.
const LIMIT: Duration = Duration::from_millis(500);
/// Looks that "now" spans, for rates and latencies of nodes that do not jump.
const NOW: usize = 3;

/// What has been seen.
#[derive(Debug, Default)]
pub(super) struct Sampler {
    timeline: Mutex<Timeline>,
}

/// The same, while nobody else looks.
#[derive(Debug, Default)]
pub struct Timeline {
    /// The last ten minutes.
    pub history: History,
    /// What has happened.
    pub events: Events,
    /// The last [`NOW`] moments and the one before them.
    moments: VecDeque<Arc<Moment>>,
}

impl Timeline {
    /// The last seconds; `None` before the first look.
    pub fn now(&self) -> Option<Interval> {
        let (was, is) = (self.moments.front()?, self.moments.back()?);
        Some(Interval { was: Arc::clone(was), is: Arc::clone(is) })
    }

    fn add(&mut self, moment: Moment) {
        let is = Arc::new(moment);
        if let Some(was) = self.moments.back().map(Arc::clone) {
            for occurrence in events::between(&was, &is) {
                self.events.add(is.millis, occurrence);
            }
            self.history.add(history::row(&Interval { was, is: Arc::clone(&is) }));
        }
        if self.moments.len() > NOW {
            self.moments.pop_front();
        }
        self.moments.push_back(is);
    }
}

impl Sampler {
    /// What has been seen so far.
    pub fn timeline(&self) -> MutexGuard<'_, Timeline> {
        self.timeline.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks once, now.
    pub async fn sample(&self, pool: &Pool, status: &Status) {
        let moment = Moment::now(pool, status, LIMIT).await;
        self.timeline().add(moment);
    }

    /// Looks every second, until it is dropped.
    pub async fn run(&self, pool: &Pool, status: &Status) {
        let mut ticks = tokio::time::interval(STEP);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            self.sample(pool, status).await;
        }
    }
}
