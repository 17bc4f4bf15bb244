//! The lines that `slotway top` shows, made from the admin listener's JSON. No I/O.

use ratatui::style::{Color, Style, Stylize};
use ratatui::text::{Line, Span};
use serde_json::Value;

const GOOD: Style = Style::new().fg(Color::LightGreen);
const WARN: Style = Style::new().fg(Color::LightYellow);
const BAD: Style = Style::new().fg(Color::LightRed);

/// A table's row, one span per cell.
type Row = Vec<Span<'static>>;

/// The admin listener's pages. A page that it does not have is null.
#[derive(Debug, Default)]
pub struct Pages {
    /// `/status.json`
    pub status: Value,
    /// `events.list` of the last `/status.json` that had it: it is left out if nothing has
    /// happened.
    pub events: Value,
    /// `/hotkeys`
    pub hot: Value,
    /// `/slowlog`
    pub slow: Value,
}

/// Maximum number of hot keys, and of slow commands.
const MAX_ROWS: usize = 8;
/// Maximum number of events.
const MAX_EVENTS: usize = 5;
/// Maximum number of characters in a cell with text from outside, such as a key.
const MAX_TEXT: usize = 48;

/// All lines, from the top.
pub fn lines(pages: &Pages) -> Vec<Line<'static>> {
    let mut out = head(&pages.status);
    out.push(Line::default());
    out.extend(nodes(&pages.status));
    out.push(Line::default());
    out.extend(hot(&pages.hot));
    out.push(Line::default());
    out.extend(slow(&pages.slow));
    out.push(Line::default());
    out.extend(events(&pages.events));
    out
}

/// The state of the process and its totals.
fn head(status: &Value) -> Vec<Line<'static>> {
    let t = &status["totals"];
    let ready = if status["draining"] == true {
        Span::styled("draining", WARN)
    } else if status["ready"] == true {
        Span::styled("ready", GOOD)
    } else {
        let reasons: Vec<String> = list(&status["reasons"]).map(text).collect();
        Span::styled(format!("not ready: {}", reasons.join("; ")), BAD)
    };
    let uptime = status["uptime"].as_u64().unwrap_or_default();
    let workers = number(&status["workers"]["running"]);
    let errors = float(&t["errors"]) + float(&t["refused"]);
    let error_style = if errors > 0.0 { WARN } else { Style::new() };
    let pairs = |pairs: &[(&str, String, Style)]| -> Line<'static> {
        let one = |(name, value, style): &(&str, String, Style)| {
            [format!("{name} ").dim(), Span::styled(format!("{value:<10}"), *style)]
        };
        pairs.iter().flat_map(one).collect()
    };
    vec![
        Line::from(vec![
            format!("slotway {}", text(&status["version"])).bold(),
            format!("  up {}  {workers} workers  ", duration(uptime)).dim(),
            ready,
        ]),
        pairs(&[
            ("commands/s", count(float(&t["ops"])), Style::new().bold()),
            ("errors/s", count(errors), error_style),
            ("p50", micros(&t["p50"]), Style::new().bold()),
            ("p99", micros(&t["p99"]), Style::new()),
            ("p99.9", micros(&t["p999"]), Style::new()),
        ]),
        pairs(&[
            ("clients   ", number(&t["clients"]), Style::new().bold()),
            ("in/s    ", bytes(float(&t["received"])), Style::new()),
            ("out/s", bytes(float(&t["sent"])), Style::new()),
            ("cpu", format!("{:.0} %", float(&t["cpu"])), Style::new()),
            ("memory", bytes(float(&t["memory"])), Style::new()),
        ]),
    ]
}

/// The table of nodes.
fn nodes(status: &Value) -> Vec<Line<'static>> {
    let mut rows = Vec::new();
    for (shard, index) in list(&status["shards"]).zip(1..) {
        for (node, nth) in list(&shard["nodes"]).zip(0..) {
            let state = text(&node["state"]);
            let style = match state.as_str() {
                "ok" => GOOD,
                "failed" | "unreached" => BAD,
                _ => WARN,
            };
            let state = if state == "ok" { "online".to_owned() } else { state.replace('_', " ") };
            let in_first_row = |text: String| if nth == 0 { text } else { String::new() };
            rows.push(vec![
                in_first_row(index.to_string()).bold(),
                Span::raw(in_first_row(of_upstream(shard, slots(&shard["slots"])))),
                Span::raw(cut(&text(&node["addr"]), MAX_TEXT)),
                Span::raw(text(&node["role"])),
                Span::styled(state, style),
                count(float(&node["ops"])).bold(),
                Span::raw(micros(&node["p50"])),
                Span::raw(micros(&node["p99"])),
                Span::raw(number(&node["in_flight"])),
                Span::raw(number(&node["connections"])),
            ]);
        }
    }
    let heads =
        ["SHARD", "SLOTS", "NODE", "ROLE", "STATE", "CMD/S", "P50", "P99", "IN FLIGHT", "CONNS"];
    table(&heads, 5, rows, "the cluster is not known yet")
}

/// The slots, with the name of their upstream where there are several.
fn of_upstream(shard: &Value, slots: String) -> String {
    match shard["upstream"].as_str() {
        Some(name) => format!("{} {slots}", cut(name, MAX_TEXT)),
        None => slots,
    }
}

/// The table of hot keys.
fn hot(page: &Value) -> Vec<Line<'static>> {
    let rows = list(&page["keys"]).take(MAX_ROWS).map(|key| {
        vec![
            Span::raw(cut(&text(&key["key"]), MAX_TEXT)),
            Span::raw(text(&key["command"])),
            Span::raw(cut(&text(&key["node"]), MAX_TEXT)),
            count(float(&key["per_second"])).bold(),
            Span::raw(count(float(&key["writes_per_second"]))),
        ]
    });
    let placeholder = if page["enabled"] == true { "no key stands out" } else { "switched off" };
    table(&["HOT KEY", "LAST", "NODE", "PER SECOND", "WRITES"], 3, rows.collect(), placeholder)
}

/// The table of slow commands.
fn slow(page: &Value) -> Vec<Line<'static>> {
    let rows = list(&page["entries"]).take(MAX_ROWS).map(|entry| {
        let words: Vec<String> = list(&entry["args"]).map(text).collect();
        vec![
            Span::raw(cut(&words.join(" "), MAX_TEXT)),
            Span::raw(cut(&text(&entry["node"]), MAX_TEXT)),
            micros(&entry["duration_micros"]).bold(),
            Span::raw(micros(&entry["queue_micros"])),
            Span::raw(micros(&entry["node_micros"])),
            Span::raw(micros(&entry["client_micros"])),
        ]
    });
    let on = page["slower_than_micros"].as_i64().is_some_and(|limit| limit >= 0);
    let placeholder = if on { "no command was slow" } else { "switched off" };
    let heads = ["SLOW COMMAND", "AT NODE", "TOOK", "QUEUE", "NODE", "CLIENT"];
    table(&heads, 2, rows.collect(), placeholder)
}

/// The table of events.
fn events(page: &Value) -> Vec<Line<'static>> {
    let now = list(page).filter_map(|e| e["last"].as_u64()).max().unwrap_or_default();
    let rows = list(page).take(MAX_EVENTS).map(|event| {
        let style = match event["level"].as_str() {
            Some("good") => GOOD,
            Some("warn") => WARN,
            Some("bad") => BAD,
            _ => Style::new(),
        };
        let ago = now.saturating_sub(event["last"].as_u64().unwrap_or_default()) / 1000;
        let times = event["count"].as_u64().filter(|n| *n > 1);
        let times = times.map_or_else(String::new, |n| format!(" ×{n}"));
        let when = if ago == 0 { "last".to_owned() } else { format!("{} earlier", duration(ago)) };
        vec![
            when.dim(),
            Span::styled(text(&event["kind"]), style),
            Span::raw(cut(&text(&event["text"]), 2 * MAX_TEXT) + &times),
        ]
    });
    table(&["EVENT", "KIND", "WHAT"], 3, rows.collect(), "nothing has happened yet")
}

/// The lines of a table, its columns as wide as their widest cell. Columns from `first_number` on
/// are right-aligned. `placeholder` stands in for rows if there are none.
fn table(
    heads: &[&'static str],
    first_number: usize,
    rows: Vec<Row>,
    placeholder: &'static str,
) -> Vec<Line<'static>> {
    let is_empty = rows.is_empty();
    let mut all: Vec<Row> = vec![heads.iter().map(|head| head.dim()).collect()];
    all.extend(rows);
    let width = |column: usize| {
        all.iter().filter_map(|row| row.get(column)).map(Span::width).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..heads.len()).map(width).collect();
    let pad = |row: Row| -> Line<'static> {
        let one = |((cell, width), column): ((Span<'static>, &usize), usize)| {
            let gap = " ".repeat(width.saturating_sub(cell.width()));
            let text = if column >= first_number {
                format!("{gap}{}  ", cell.content)
            } else {
                format!("{}{gap}  ", cell.content)
            };
            Span::styled(text, cell.style)
        };
        row.into_iter().zip(&widths).zip(0..).map(one).collect()
    };
    let mut out: Vec<Line<'static>> = all.into_iter().map(pad).collect();
    if is_empty {
        out.push(placeholder.dim().into());
    }
    out
}

/// The first range, and the number of other ranges.
fn slots(ranges: &Value) -> String {
    let all: Vec<String> = list(ranges)
        .map(|range| match (number(&range[0]), number(&range[1])) {
            (from, to) if from == to => from,
            (from, to) => format!("{from}-{to}"),
        })
        .collect();
    match all.as_slice() {
        [] => "none".to_owned(),
        [one] => one.clone(),
        [first, rest @ ..] => format!("{first} and {} more", rest.len()),
    }
}

/// The elements of an array; none if it is not an array.
fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

/// The text with control characters replaced: it may come from a client, and goes to a terminal.
fn text(value: &Value) -> String {
    let text = value.as_str().unwrap_or("–");
    text.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

/// The text, shortened to `max` characters.
fn cut(text: &str, max: usize) -> String {
    match text.char_indices().nth(max) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}

fn float(value: &Value) -> f64 {
    value.as_f64().unwrap_or_default()
}

fn number(value: &Value) -> String {
    value.as_u64().map_or_else(|| "–".to_owned(), |n| n.to_string())
}

/// `n` with three digits, in the largest unit in which it is at least 1.
fn scaled(mut n: f64, base: f64, units: &[&str]) -> String {
    let mut unit = 0;
    while n >= base * 0.9995 && unit + 1 < units.len() {
        n /= base;
        unit += 1;
    }
    let digits = match n {
        _ if unit == 0 => usize::from(n > 0.0 && n < 10.0 && n.fract() != 0.0),
        n if n < 9.995 => 2,
        n if n < 99.95 => 1,
        _ => 0,
    };
    format!("{n:.digits$}{}", units.get(unit).unwrap_or(&""))
}

fn count(n: f64) -> String {
    scaled(n, 1000.0, &["", "k", "M", "G"])
}

fn bytes(n: f64) -> String {
    scaled(n, 1024.0, &[" B", " KiB", " MiB", " GiB", " TiB"])
}

fn micros(value: &Value) -> String {
    let scaled = |n| scaled(n, 1000.0, &[" µs", " ms", " s"]);
    value.as_f64().map_or_else(|| "–".to_owned(), scaled)
}

fn duration(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3_600 => format!("{} min {} s", seconds / 60, seconds % 60),
        3_600..86_400 => format!("{} h {} min", seconds / 3_600, seconds % 3_600 / 60),
        _ => format!("{} d {} h", seconds / 86_400, seconds % 86_400 / 3_600),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn shown(pages: &Pages) -> String {
        lines(pages).iter().map(Line::to_string).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn nothing_known_is_shown_as_that() {
        let text = shown(&Pages::default());
        for wanted in ["the cluster is not known yet", "switched off", "nothing has happened yet"] {
            assert!(text.contains(wanted), "no {wanted}:\n{text}");
        }
    }

    #[test]
    fn a_cluster_and_what_others_have_chosen() {
        let node = |addr, role, state| {
            json!({ "addr": addr, "role": role, "state": state, "ops": 12345.0, "p50": 190,
                "p99": null, "in_flight": 3, "connections": 2 })
        };
        let pages = Pages {
            status: json!({
                "version": "1.2.3", "ready": true, "uptime": 61,
                "totals": { "ops": 999.96, "p50": 1500, "sent": 2048.0, "clients": 8 },
                "shards": [{ "slots": [[0, 5], [7, 7]], "nodes": [
                    node("a:1", "primary", "ok"), node("b:2", "replica", "link_down")] }],
            }),
            hot: json!({ "enabled": true, "keys": [{ "key": "evil\u{1b}[2J", "per_second": 5.0 }] }),
            slow: json!({ "slower_than_micros": 10, "entries": [
                { "args": ["GET", "x".repeat(99)], "duration_micros": 25123 }] }),
            events: json!([{ "kind": "failover", "level": "warn", "text": "t", "count": 4, "last": 1 }]),
        };
        let text = shown(&pages);
        for wanted in [
            "slotway 1.2.3  up 1 min 1 s",
            "commands/s 1.00k",
            "p50 1.50 ms",
            "2.00 KiB",
            "1      0-5 and 1 more  a:1   primary  online     12.3k  190 µs    –          3      2",
            "                       b:2   replica  link down",
            "evil?[2J",
            "25.1 ms",
            "failover  t ×4",
        ] {
            assert!(text.contains(wanted), "no {wanted}:\n{text}");
        }
        assert!(!text.contains('\u{1b}') && text.contains("xxx…"));
    }
}
