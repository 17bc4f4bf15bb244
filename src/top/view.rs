//! What `slotway top` shows, from the admin listener's JSON: lines of styled text. Pure.

use ratatui::style::{Color, Style, Stylize};
use ratatui::text::{Line, Span};
use serde_json::Value;

const GOOD: Style = Style::new().fg(Color::Green);
const WARN: Style = Style::new().fg(Color::Yellow);
const BAD: Style = Style::new().fg(Color::Red);

/// The cells of a table's row.
type Row = Vec<Span<'static>>;

/// What was asked. Pages that are not there are null.
#[derive(Debug, Default)]
pub struct Seen {
    /// `/status.json`
    pub status: Value,
    /// The events, which are given only when there are new ones.
    pub events: Value,
    /// `/hotkeys`
    pub hot: Value,
    /// `/slowlog`
    pub slow: Value,
}

/// Hot keys and slow commands shown.
const ROWS: usize = 8;
/// Events shown.
const EVENTS: usize = 5;
/// Columns of text that others have chosen.
const WIDE: usize = 48;

/// All lines, from the top.
pub fn lines(seen: &Seen) -> Vec<Line<'static>> {
    let mut out = head(&seen.status);
    out.push(Line::default());
    out.extend(nodes(&seen.status));
    out.push(Line::default());
    out.extend(hot(&seen.hot));
    out.push(Line::default());
    out.extend(slow(&seen.slow));
    out.push(Line::default());
    out.extend(events(&seen.events));
    out
}

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
    let mut fails = Style::new();
    let failed = float(&t["errors"]) + float(&t["refused"]);
    if failed > 0.0 {
        fails = WARN;
    }
    let pairs = |pairs: &[(&str, String, Style)]| -> Line<'static> {
        let one = |(what, value, style): &(&str, String, Style)| {
            [format!("{what} ").dim(), Span::styled(format!("{value:<10}"), *style)]
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
            ("errors/s", count(failed), fails),
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
            let first = |words: String| if nth == 0 { words } else { String::new() };
            rows.push(vec![
                first(index.to_string()).bold(),
                Span::raw(first(slots(&shard["slots"]))),
                Span::raw(cut(&text(&node["addr"]), WIDE)),
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

fn hot(page: &Value) -> Vec<Line<'static>> {
    let rows = list(&page["keys"]).take(ROWS).map(|key| {
        vec![
            Span::raw(cut(&text(&key["key"]), WIDE)),
            Span::raw(text(&key["command"])),
            Span::raw(cut(&text(&key["node"]), WIDE)),
            count(float(&key["per_second"])).bold(),
            Span::raw(count(float(&key["writes_per_second"]))),
        ]
    });
    let none = if page["enabled"] == true { "no key stands out" } else { "switched off" };
    table(&["HOT KEY", "LAST", "NODE", "PER SECOND", "WRITES"], 3, rows.collect(), none)
}

fn slow(page: &Value) -> Vec<Line<'static>> {
    let rows = list(&page["entries"]).take(ROWS).map(|entry| {
        let words: Vec<String> = list(&entry["args"]).map(text).collect();
        vec![
            Span::raw(cut(&words.join(" "), WIDE)),
            Span::raw(cut(&text(&entry["node"]), WIDE)),
            micros(&entry["duration_micros"]).bold(),
            Span::raw(micros(&entry["queue_micros"])),
            Span::raw(micros(&entry["node_micros"])),
            Span::raw(micros(&entry["client_micros"])),
        ]
    });
    let on = page["slower_than_micros"].as_i64().is_some_and(|limit| limit >= 0);
    let none = if on { "no command was slow" } else { "switched off" };
    let heads = ["SLOW COMMAND", "AT NODE", "TOOK", "QUEUE", "NODE", "CLIENT"];
    table(&heads, 2, rows.collect(), none)
}

fn events(page: &Value) -> Vec<Line<'static>> {
    let now = list(page).filter_map(|e| e["last"].as_u64()).max().unwrap_or_default();
    let rows = list(page).take(EVENTS).map(|event| {
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
            Span::raw(cut(&text(&event["text"]), 2 * WIDE) + &times),
        ]
    });
    table(&["EVENT", "KIND", "WHAT"], 3, rows.collect(), "nothing has happened yet")
}

/// Columns as wide as they must be; those from `numbers` on are set to the right.
fn table(
    heads: &[&'static str],
    numbers: usize,
    rows: Vec<Row>,
    none: &'static str,
) -> Vec<Line<'static>> {
    let is_empty = rows.is_empty();
    let mut all: Vec<Row> = vec![heads.iter().map(|head| head.dim()).collect()];
    all.extend(rows);
    let width = |column: usize| {
        all.iter().filter_map(|row| row.get(column)).map(Span::width).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..heads.len()).map(width).collect();
    let set = |row: Row| -> Line<'static> {
        let one = |((cell, width), column): ((Span<'static>, &usize), usize)| {
            let gap = " ".repeat(width.saturating_sub(cell.width()));
            let text = if column >= numbers {
                format!("{gap}{}  ", cell.content)
            } else {
                format!("{}{gap}  ", cell.content)
            };
            Span::styled(text, cell.style)
        };
        row.into_iter().zip(&widths).zip(0..).map(one).collect()
    };
    let mut out: Vec<Line<'static>> = all.into_iter().map(set).collect();
    if is_empty {
        out.push(none.dim().into());
    }
    out
}

/// The first range, and how many there are besides.
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

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

/// Text as it may stand on a terminal, whoever has chosen it.
fn text(value: &Value) -> String {
    let text = value.as_str().unwrap_or("–");
    text.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

fn cut(text: &str, width: usize) -> String {
    match text.char_indices().nth(width) {
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

/// With the largest unit that leaves something before the point, three digits.
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

    fn shown(seen: &Seen) -> String {
        lines(seen).iter().map(Line::to_string).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn nothing_known_is_shown_as_that() {
        let text = shown(&Seen::default());
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
        let seen = Seen {
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
        let text = shown(&seen);
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
