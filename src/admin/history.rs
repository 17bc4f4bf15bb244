//! History: the last ten minutes, a row per second, for the plots of the status page. Pure.

use std::collections::VecDeque;

use super::moment::Interval;

/// Capacity in rows: about 115 KB.
const ROWS: usize = 600;

/// Names of the columns. Values are integers: milliseconds since 1970 (`at`), microseconds (`p50`,
/// `p99`, `p999`), thousandths of a core (`cpu`), a gauge (`clients`), otherwise rates per second;
/// `null` if unknown.
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

/// The values of one second, by column.
pub type Row = [Option<u64>; COLUMNS.len()];

/// The rows of the last ten minutes. Rows are numbered from 1.
#[derive(Debug, Default)]
pub(super) struct History {
    rows: VecDeque<Row>,
    /// Number of the last row.
    last: u64,
}

impl History {
    /// Adds a row.
    pub fn add(&mut self, row: Row) {
        if self.rows.len() >= ROWS {
            self.rows.pop_front();
        }
        self.rows.push_back(row);
        self.last += 1;
    }

    /// Number of the last row.
    pub fn last(&self) -> u64 {
        self.last
    }

    /// The rows after row number `seen`; all rows if there is no such number yet, which is then one
    /// of another process.
    pub fn after(&self, seen: u64) -> impl Iterator<Item = &Row> {
        let new = if seen > self.last { self.last } else { self.last - seen };
        let new = usize::try_from(new).unwrap_or(usize::MAX);
        self.rows.iter().skip(self.rows.len().saturating_sub(new))
    }
}

/// The row for an interval.
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
