//! `slotway top`: what the status page shows, in a terminal.

mod screen;
mod view;

use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};
use ratatui::crossterm::terminal::{BeginSynchronizedUpdate, EndSynchronizedUpdate};
use ratatui::crossterm::{execute, queue};
use serde_json::Value;
use slotway::config::Address;

use crate::probe;
use screen::Screen;
use view::Seen;

/// For each page.
const LIMIT: Duration = Duration::from_secs(3);

/// Whom to ask, and how often.
pub struct Options {
    /// The admin listener.
    pub admin: Address,
    /// What it wants to see.
    pub token: String,
    /// Its certificate, where it speaks HTTPS.
    pub cert: Option<PathBuf>,
    /// Between two looks.
    pub interval: Duration,
    /// One look, as plain text.
    pub once: bool,
}

/// Why `slotway top` ended.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file with the token cannot be read.
    #[error("--token-file: {0}")]
    TokenFile(io::Error),
    /// The admin listener cannot be reached, or does not speak HTTP.
    #[error("no answer from the admin listener {admin}: {source}")]
    Unreachable {
        /// The admin listener.
        admin: Address,
        /// What failed.
        source: io::Error,
    },
    /// The admin listener requires a token other than the one that was sent.
    #[error("{0} wants its admin_token: --token-file FILE")]
    Unauthorized(Address),
    /// Something else than a slotway listens at the address.
    #[error("{0} has no /status.json: is it a slotway?")]
    NotSlotway(Address),
    /// The page has an unexpected status.
    #[error("{admin}{path} answers {status}")]
    Status {
        /// The admin listener.
        admin: Address,
        /// The page.
        path: String,
        /// Its HTTP status.
        status: u16,
    },
    /// The page is not JSON.
    #[error("{admin}{path} is no JSON: {source}")]
    NotJson {
        /// The admin listener.
        admin: Address,
        /// The page.
        path: String,
        /// Where it stops being JSON.
        source: serde_json::Error,
    },
    /// The terminal cannot be read from, written to or configured.
    #[error("the terminal: {0}")]
    Terminal(io::Error),
}

/// The address in `http://host:port`, or in `host:port`.
///
/// # Errors
/// What is wrong with it.
pub fn admin_of(url: &str) -> Result<Address, String> {
    let bare = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://"));
    let place = bare.unwrap_or(url);
    let place = place.split('/').next().unwrap_or_default();
    let wrong = || format!("\"{url}\" is not http://host:port");
    let (host, port) = place.rsplit_once(':').ok_or_else(wrong)?;
    let host = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
    let port = port.parse().map_err(|_| wrong())?;
    if host.is_empty() { Err(wrong()) } else { Ok(Address { host: host.to_owned(), port }) }
}

/// `2s`, `500ms` or `2`, which is seconds.
///
/// # Errors
/// What is wrong with it.
pub fn interval_of(text: &str) -> Result<Duration, String> {
    let (number, unit) = match text.strip_suffix("ms") {
        Some(number) => (number, 1),
        None => (text.strip_suffix('s').unwrap_or(text), 1000),
    };
    let millis = number.trim().parse::<u64>().ok().and_then(|n| n.checked_mul(unit));
    match millis.map(Duration::from_millis) {
        Some(i) if (Duration::from_millis(100)..=Duration::from_secs(3600)).contains(&i) => Ok(i),
        _ => Err("write a time from 100ms to 3600s, such as 500ms or 2s".to_owned()),
    }
}

/// The token: the file's first line, or what `SLOTWAY_ADMIN_TOKEN` says.
///
/// # Errors
/// The file cannot be read.
pub fn token_of(file: Option<&Path>) -> Result<String, Error> {
    let Some(file) = file else {
        return Ok(std::env::var("SLOTWAY_ADMIN_TOKEN").unwrap_or_default());
    };
    let text = std::fs::read_to_string(file).map_err(Error::TokenFile)?;
    Ok(text.lines().next().unwrap_or_default().trim().to_owned())
}

/// Shows it until `q`, or once if that is wanted or nobody looks at a terminal.
///
/// # Errors
/// Nobody answers at the first try, or the terminal does not do what it should.
pub fn run(options: &Options) -> Result<(), Error> {
    let mut seen = Seen::default();
    look(options, &mut seen)?;
    if options.once || !io::stdout().is_terminal() {
        let mut out = io::stdout().lock();
        for line in view::lines(&seen) {
            // A reader that went away (`| head`) is no failure.
            if writeln!(out, "{}", line.to_string().trim_end()).is_err() {
                break;
            }
        }
        return Ok(());
    }
    let shown = match ratatui::try_init() {
        Ok(terminal) => watch(terminal, options, seen),
        Err(error) => Err(error),
    };
    // Also after a failed try_init, which may have changed the terminal before it failed.
    ratatui::restore();
    shown.map_err(Error::Terminal)
}

/// Asks for everything. An error leaves `seen` as it was.
fn look(options: &Options, seen: &mut Seen) -> Result<(), Error> {
    let revision = seen.status["events"]["revision"].as_u64();
    let row = seen.status["history"]["last"].as_u64().unwrap_or_default();
    let known = revision.map_or_else(String::new, |revision| format!("&events={revision}"));
    let status = ask(options, &format!("/status.json?since={row}{known}"))?;
    if status.is_null() {
        return Err(Error::NotSlotway(options.admin.clone()));
    }
    if let Some(list) = status["events"].get("list") {
        seen.events = list.clone();
    }
    seen.status = status;
    seen.hot = ask(options, "/hotkeys?count=10")?;
    seen.slow = ask(options, "/slowlog?count=10")?;
    Ok(())
}

/// A page; null if there is no such page.
fn ask(options: &Options, path: &str) -> Result<Value, Error> {
    let admin = &options.admin;
    let access = probe::Access { token: &options.token, cert: options.cert.as_deref() };
    let (status, body) = probe::get(admin, access, path, LIMIT)
        .map_err(|source| Error::Unreachable { admin: admin.clone(), source })?;
    let (admin, path) = (admin.clone(), path.to_owned());
    match status {
        200 => serde_json::from_str(&body).map_err(|source| Error::NotJson { admin, path, source }),
        401 => Err(Error::Unauthorized(admin)),
        404 => Ok(Value::Null),
        status => Err(Error::Status { admin, path, status }),
    }
}

/// What the user has said.
enum Said {
    Quit,
    Look,
    Scroll(isize),
    Nothing,
}

/// Shows it until the user quits. Dropping the terminal shows its cursor again.
fn watch(mut terminal: DefaultTerminal, options: &Options, mut seen: Seen) -> io::Result<()> {
    let mut screen = Screen::new(view::lines(&seen));
    let mut due = Instant::now() + options.interval;
    loop {
        queue!(terminal.backend_mut(), BeginSynchronizedUpdate)?;
        terminal.draw(|frame| screen.draw(frame))?;
        execute!(terminal.backend_mut(), EndSynchronizedUpdate)?;
        if event::poll(due.saturating_duration_since(Instant::now()))? {
            match said(&event::read()?) {
                Said::Quit => return Ok(()),
                Said::Scroll(by) => screen.scroll(by),
                Said::Look => due = Instant::now(),
                Said::Nothing => {}
            }
            if due > Instant::now() {
                continue;
            }
        }
        screen.trouble = look(options, &mut seen).err();
        screen.lines = view::lines(&seen);
        due = Instant::now() + options.interval;
    }
}

fn said(event: &Event) -> Said {
    let Event::Key(key) = event else { return Said::Nothing };
    if key.kind == KeyEventKind::Release {
        return Said::Nothing;
    }
    match key.code {
        KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => Said::Quit,
        KeyCode::Char('q') | KeyCode::Esc => Said::Quit,
        KeyCode::Char(' ') | KeyCode::Char('r') => Said::Look,
        KeyCode::Down | KeyCode::Char('j') => Said::Scroll(1),
        KeyCode::Up | KeyCode::Char('k') => Said::Scroll(-1),
        KeyCode::PageDown => Said::Scroll(10),
        KeyCode::PageUp => Said::Scroll(-10),
        _ => Said::Nothing,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_intervals() {
        let at = |host: &str, port| Ok(Address { host: host.to_owned(), port });
        assert_eq!(admin_of("http://127.0.0.1:9121"), at("127.0.0.1", 9121));
        assert_eq!(admin_of("http://[::1]:1/"), at("::1", 1));
        assert_eq!(admin_of("https://box:9121"), at("box", 9121));
        assert_eq!(admin_of("box:9121"), at("box", 9121));
        for wrong in ["ftp://a:1", "a", "http://:1", "a:b", ""] {
            assert!(admin_of(wrong).is_err(), "{wrong}");
        }
        for (text, millis) in [("1s", 1000), ("250ms", 250), ("2", 2000)] {
            assert_eq!(interval_of(text), Ok(Duration::from_millis(millis)));
        }
        for wrong in ["", "0", "1m", "99ms", "3601s", "18446744073709551615s"] {
            assert!(interval_of(wrong).is_err(), "{wrong}");
        }
    }
}
