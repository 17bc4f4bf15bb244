//! The last ten minutes, a row per second, for the plots of a page that has just been opened. Pure.

use std::collections::VecDeque;

use super::moment::Interval;

/// Rows kept: some 115 KB.
const ROWS: usize = 600;

/// What a row tells, all as whole numbers: per second, but for the latencies (microseconds) and
/// gauges; `cpu` in thousandths of a core. `null` is nothing to tell.
pub(super) const COLUMNS: [&str; 12] = [
    "at",
    "ops",
    "received",
    "sent",
    "p50",
    "p99",
    "p999",
    "errors",
    "refused",
    "redirections",
    "clients",
    "cpu",
];

/// One second.
pub type Row = [Option<u64>; COLUMNS.len()];

/// The rows, numbered from 1.
#[derive(Debug, Default)]
pub(super) struct History {
    rows: VecDeque<Row>,
    /// The number of the last one.
    last: u64,
}

impl History {
    /// Adds a second.
    pub fn add(&mut self, row: Row) {
        if self.rows.len() >= ROWS {
            self.rows.pop_front();
        }
        self.rows.push_back(row);
        self.last += 1;
    }

    /// The number of the last row.
    pub fn last(&self) -> u64 {
        self.last
    }

    /// The rows after number `seen`; all of them for a number that no row has, which is one of
    /// another process.
    pub fn after(&self, seen: u64) -> impl Iterator<Item = &Row> {
        let new = if seen > self.last { self.last } else { self.last - seen };
        let new = usize::try_from(new).unwrap_or(usize::MAX);
        self.rows.iter().skip(self.rows.len().saturating_sub(new))
    }
}

/// The row of what lies between two moments.
pub fn row(span: &Interval) -> Row {
    let (was, is) = (&span.was, &span.is);
    let whole = |rate: f64| Some(rate.round() as u64);
    let (commands_was, commands_is) = (was.commands(), is.commands());
    let all = |c: &crate::metrics::CommandStats| c.ok + c.error + c.refused;
    let latency = is.latency().since(&was.latency());
    [
        Some(is.millis),
        whole(span.rate(all(&commands_was), all(&commands_is))),
        whole(span.rate_of(|m| m.totals.rest.bytes_in)),
        whole(span.rate_of(|m| m.totals.rest.bytes_out)),
        latency.quantile(0.5),
        latency.quantile(0.99),
        latency.quantile(0.999),
        whole(span.rate(commands_was.error, commands_is.error)),
        whole(span.rate(commands_was.refused, commands_is.refused)),
        whole(span.rate_of(|m| m.totals.rest.redirections.iter().sum())),
        Some(is.totals.rest.clients),
        whole(span.cpu_percent() * 10.0),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_ten_minutes_are_kept_and_only_what_is_new_is_given() {
        let mut history = History::default();
        assert_eq!(history.after(0).count(), 0);
        for n in 1..=1000 {
            history.add([Some(n); COLUMNS.len()]);
        }
        assert_eq!(history.last(), 1000);
        let given = |seen| history.after(seen).filter_map(|row| row[0]).collect::<Vec<_>>();
        assert_eq!(given(997), [998, 999, 1000]);
        assert!(given(1000).is_empty());
        assert_eq!(given(0).len(), ROWS);
        assert_eq!(given(5_000).first(), Some(&401), "a number of another process");
    }
}
