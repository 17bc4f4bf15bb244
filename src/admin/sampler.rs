//! The sampler: takes a moment's figures once a second, on the control thread. It keeps the last
//! minutes for plots, the events, and the last few moments for current rates.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::events::{self, Events};
use super::history::{self, History};
use super::moment::{Interval, Moment};
use crate::control::{Pool, Status};

/// Time between two moments.
const STEP: Duration = Duration::from_secs(1);
/// Timeout for a worker's figures; its previous ones are used then.
const WORKER_TIMEOUT: Duration = Duration::from_millis(500);
/// Length of the current interval, in steps: long enough to smooth rates and latencies.
const CURRENT_STEPS: usize = 3;

/// The sampler.
#[derive(Debug, Default)]
pub(super) struct Sampler {
    timeline: Mutex<Timeline>,
}

/// Everything sampled so far.
#[derive(Debug, Default)]
pub struct Timeline {
    /// Figures of the last ten minutes.
    pub history: History,
    /// Events.
    pub events: Events,
    /// The moments of the last [`CURRENT_STEPS`] steps.
    moments: VecDeque<Arc<Moment>>,
}

impl Timeline {
    /// The current interval; `None` before the first moment.
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
        if self.moments.len() > CURRENT_STEPS {
            self.moments.pop_front();
        }
        self.moments.push_back(is);
    }
}

impl Sampler {
    /// Locks the timeline.
    pub fn timeline(&self) -> MutexGuard<'_, Timeline> {
        self.timeline.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds the current moment.
    pub async fn sample(&self, pool: &Pool, status: &Status) {
        let moment = Moment::now(pool, status, WORKER_TIMEOUT).await;
        self.timeline().add(moment);
    }

    /// Samples once per [`STEP`]; never returns.
    pub async fn run(&self, pool: &Pool, status: &Status) {
        let mut ticks = tokio::time::interval(STEP);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            self.sample(pool, status).await;
        }
    }
}
