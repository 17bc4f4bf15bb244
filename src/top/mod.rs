//! `slotway top`: the status page in a terminal.

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
use view::Pages;

/// Time limit for each page.
const TIMEOUT: Duration = Duration::from_secs(3);

/// The command line's options.
pub struct Options {
    /// The admin listener.
    pub admin: Address,
    /// The admin listener's token; empty if it requires none.
    pub token: String,
    /// The admin listener's certificate, if it speaks HTTPS.
    pub cert: Option<PathBuf>,
    /// Time between two refreshes.
    pub interval: Duration,
    /// Whether to write the figures once, as plain text.
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
/// What is wrong with the URL.
pub fn parse_admin_url(url: &str) -> Result<Address, String> {
    let bare = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://"));
    let place = bare.unwrap_or(url);
    let place = place.split('/').next().unwrap_or_default();
    let wrong = || format!("\"{url}\" is not http://host:port");
    let (host, port) = place.rsplit_once(':').ok_or_else(wrong)?;
    let host = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
    let port = port.parse().map_err(|_| wrong())?;
    if host.is_empty() { Err(wrong()) } else { Ok(Address { host: host.to_owned(), port }) }
}

/// The duration in `2s`, `500ms` or `2`, which is seconds.
///
/// # Errors
/// What is wrong with the text.
pub fn parse_interval(text: &str) -> Result<Duration, String> {
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

/// The admin listener's token: the first line of `file`, or the value of `SLOTWAY_ADMIN_TOKEN`.
///
/// # Errors
/// The file cannot be read.
pub fn read_token(file: Option<&Path>) -> Result<String, Error> {
    let Some(file) = file else {
        return Ok(std::env::var("SLOTWAY_ADMIN_TOKEN").unwrap_or_default());
    };
    let text = std::fs::read_to_string(file).map_err(Error::TokenFile)?;
    Ok(text.lines().next().unwrap_or_default().trim().to_owned())
}

/// Shows the figures until the user quits. Writes them once if `options.once` is set or the output
/// is not a terminal.
///
/// # Errors
/// The first request failed, or the terminal did. Later requests that fail are shown on the screen.
pub fn run(options: &Options) -> Result<(), Error> {
    let mut pages = Pages::default();
    refresh(options, &mut pages)?;
    if options.once || !io::stdout().is_terminal() {
        let mut out = io::stdout().lock();
        for line in view::lines(&pages) {
            // A reader that has gone away (`| head`) is not a failure.
            if writeln!(out, "{}", line.to_string().trim_end()).is_err() {
                break;
            }
        }
        return Ok(());
    }
    let shown = match ratatui::try_init() {
        Ok(terminal) => show(terminal, options, pages),
        Err(error) => Err(error),
    };
    // Also after a failed try_init, which may have changed the terminal before it failed.
    ratatui::restore();
    shown.map_err(Error::Terminal)
}

/// Requests all pages. An error leaves `pages` partly updated.
fn refresh(options: &Options, pages: &mut Pages) -> Result<(), Error> {
    let revision = pages.status["events"]["revision"].as_u64();
    let row = pages.status["history"]["last"].as_u64().unwrap_or_default();
    let known = revision.map_or_else(String::new, |revision| format!("&events={revision}"));
    let status = fetch(options, &format!("/status.json?since={row}{known}"))?;
    if status.is_null() {
        return Err(Error::NotSlotway(options.admin.clone()));
    }
    if let Some(list) = status["events"].get("list") {
        pages.events = list.clone();
    }
    pages.status = status;
    pages.hot = fetch(options, "/hotkeys?count=10")?;
    pages.slow = fetch(options, "/slowlog?count=10")?;
    Ok(())
}

/// The JSON of a page; null if the admin listener has no such page.
fn fetch(options: &Options, path: &str) -> Result<Value, Error> {
    let admin = &options.admin;
    let access = probe::Access { token: &options.token, cert: options.cert.as_deref() };
    let (status, body) = probe::get(admin, access, path, TIMEOUT)
        .map_err(|source| Error::Unreachable { admin: admin.clone(), source })?;
    let (admin, path) = (admin.clone(), path.to_owned());
    match status {
        200 => serde_json::from_str(&body).map_err(|source| Error::NotJson { admin, path, source }),
        401 => Err(Error::Unauthorized(admin)),
        404 => Ok(Value::Null),
        status => Err(Error::Status { admin, path, status }),
    }
}

/// What a key asks for.
enum Action {
    Quit,
    Refresh,
    /// Scroll by this number of lines, down if it is positive.
    Scroll(isize),
}

/// Refreshes the screen at every interval until the user quits. Dropping the terminal shows its
/// cursor again.
fn show(mut terminal: DefaultTerminal, options: &Options, mut pages: Pages) -> io::Result<()> {
    let mut screen = Screen::new(view::lines(&pages));
    let mut due = Instant::now() + options.interval;
    loop {
        queue!(terminal.backend_mut(), BeginSynchronizedUpdate)?;
        terminal.draw(|frame| screen.draw(frame))?;
        execute!(terminal.backend_mut(), EndSynchronizedUpdate)?;
        if event::poll(due.saturating_duration_since(Instant::now()))? {
            match action(&event::read()?) {
                Some(Action::Quit) => return Ok(()),
                Some(Action::Scroll(by)) => screen.scroll(by),
                Some(Action::Refresh) => due = Instant::now(),
                None => {}
            }
            if due > Instant::now() {
                continue;
            }
        }
        screen.error = refresh(options, &mut pages).err();
        screen.lines = view::lines(&pages);
        due = Instant::now() + options.interval;
    }
}

fn action(event: &Event) -> Option<Action> {
    let Event::Key(key) = event else { return None };
    if key.kind == KeyEventKind::Release {
        return None;
    }
    match key.code {
        KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => Some(Action::Quit),
        KeyCode::Char('q') | KeyCode::Esc => Some(Action::Quit),
        KeyCode::Char(' ' | 'r') => Some(Action::Refresh),
        KeyCode::Down | KeyCode::Char('j') => Some(Action::Scroll(1)),
        KeyCode::Up | KeyCode::Char('k') => Some(Action::Scroll(-1)),
        KeyCode::PageDown => Some(Action::Scroll(10)),
        KeyCode::PageUp => Some(Action::Scroll(-10)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_intervals() {
        let at = |host: &str, port| Ok(Address { host: host.to_owned(), port });
        assert_eq!(parse_admin_url("http://127.0.0.1:9121"), at("127.0.0.1", 9121));
        assert_eq!(parse_admin_url("http://[::1]:1/"), at("::1", 1));
        assert_eq!(parse_admin_url("https://box:9121"), at("box", 9121));
        assert_eq!(parse_admin_url("box:9121"), at("box", 9121));
        for wrong in ["ftp://a:1", "a", "http://:1", "a:b", ""] {
            assert!(parse_admin_url(wrong).is_err(), "{wrong}");
        }
        for (text, millis) in [("1s", 1000), ("250ms", 250), ("2", 2000)] {
            assert_eq!(parse_interval(text), Ok(Duration::from_millis(millis)));
        }
        for wrong in ["", "0", "1m", "99ms", "3601s", "18446744073709551615s"] {
            assert!(parse_interval(wrong).is_err(), "{wrong}");
        }
    }
}
