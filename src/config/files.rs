//! Reading of the files with users, passwords and tokens.

use std::path::Path;

use super::Config;
use crate::command::CommandTable;
use crate::users::{Users, parse_file};

/// Largest file that is read.
const MAX_BYTES: u64 = 16 << 20;

/// The users of `config`, with those of `users_file`.
///
/// # Errors
/// The key, and the reason.
pub fn users(config: &Config) -> Result<Users, (&'static str, String)> {
    let mut own = config.users.clone();
    if !config.users_file.is_empty() {
        let at = |why: String| ("users_file", format!("{}: {why}", config.users_file));
        let text = read(Path::new(&config.users_file)).map_err(at)?;
        own.extend(parse_file(&text, &CommandTable::builtin()).map_err(at)?);
    }
    let key = if config.users_file.is_empty() { "users" } else { "users_file" };
    let passthrough = config.auth == super::Auth::Passthrough;
    Users::new(own, passthrough, !config.users_file.is_empty()).map_err(|why| (key, why))
}

/// The secret in a file of its own, without the newline at its end.
///
/// # Errors
/// The path, and the reason.
pub fn secret(path: &str) -> Result<String, String> {
    let mut text = read(Path::new(path)).map_err(|why| format!("{path}: {why}"))?;
    if text.ends_with('\n') {
        text.pop();
        if text.ends_with('\r') {
            text.pop();
        }
    }
    match text.is_empty() {
        true => Err(format!("{path}: is empty")),
        false => Ok(text),
    }
}

fn read(path: &Path) -> Result<String, String> {
    let unreadable = |error: std::io::Error| format!("cannot be read: {error}");
    let length = std::fs::metadata(path).map_err(unreadable)?.len();
    if length > MAX_BYTES {
        return Err(format!("has {length} bytes, which is too many"));
    }
    // Its error for a file that is not UTF-8 does not quote the content.
    std::fs::read_to_string(path).map_err(unreadable)
}
