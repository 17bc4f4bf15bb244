//! Looks at everything once a second, on the control thread, and remembers it: the last minutes
//! for the plots, what has happened, and the last few moments for what is true now.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::events::{self, Events};
use super::history::{self, History};
use super::moment::{Moment, Span};
use crate::control::{Pool, Status};

/// Between two looks.
const STEP: Duration = Duration::from_secs(1);
/// A worker that takes longer is shown as it last was.
const LIMIT: Duration = Duration::from_millis(500);
/// Looks that "now" spans, for rates and latencies of nodes that do not jump.
const NOW: usize = 3;

/// What has been seen.
#[derive(Debug, Default)]
pub(super) struct Watch {
    seen: Mutex<Seen>,
}

/// The same, while nobody else looks.
#[derive(Debug, Default)]
pub struct Seen {
    /// The last ten minutes.
    pub history: History,
    /// What has happened.
    pub events: Events,
    /// The last [`NOW`] moments and the one before them.
    moments: VecDeque<Arc<Moment>>,
}

impl Seen {
    /// The last seconds; `None` before the first look.
    pub fn now(&self) -> Option<Span> {
        let (was, is) = (self.moments.front()?, self.moments.back()?);
        Some(Span { was: Arc::clone(was), is: Arc::clone(is) })
    }

    fn add(&mut self, moment: Moment) {
        let is = Arc::new(moment);
        if let Some(was) = self.moments.back().map(Arc::clone) {
            for news in events::between(&was, &is) {
                self.events.add(is.millis, news);
            }
            self.history.add(history::row(&Span { was, is: Arc::clone(&is) }));
        }
        if self.moments.len() > NOW {
            self.moments.pop_front();
        }
        self.moments.push_back(is);
    }
}

impl Watch {
    /// What has been seen so far.
    pub fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks once, now.
    pub async fn look(&self, pool: &Pool, status: &Status) {
        let moment = Moment::now(pool, status, LIMIT).await;
        self.seen().add(moment);
    }

    /// Looks every second, until it is dropped.
    pub async fn run(&self, pool: &Pool, status: &Status) {
        let mut ticks = tokio::time::interval(STEP);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            self.look(pool, status).await;
        }
    }
}
