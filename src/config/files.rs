//! Reading of the files with users, passwords and tokens.

use std::io;

use super::upstream_keys::upstream_path;
use super::{Config, Secret};
use crate::command::CommandTable;
use crate::users::{Users, parse_file};

/// Largest file that is read.
const MAX_BYTES: u64 = 16 << 20;

/// A reason why a file cannot be used. Does not quote its content.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// It does not exist, is not readable, or is not UTF-8.
    #[error("{path}: cannot be read: {source}")]
    #[allow(missing_docs)]
    Unreadable { path: String, source: io::Error },
    /// It is larger than any file of users or secrets.
    #[error("{path}: has {bytes} bytes, which is too many")]
    #[allow(missing_docs)]
    TooLarge { path: String, bytes: u64 },
    /// It should contain a secret.
    #[error("{path}: is empty")]
    #[allow(missing_docs)]
    Empty { path: String },
}

/// A secret that may be read from a file.
#[derive(Debug, Clone, Copy)]
pub struct SecretFile<'a> {
    /// The `[upstreams.NAME]` that it belongs to.
    pub upstream: Option<&'a str>,
    /// The path of its key, for an upstream that of the short form.
    pub key: &'static str,
    /// The path of the file's key, as `key`.
    pub file_key: &'static str,
    /// The file; empty is none.
    pub file: &'a str,
    /// The secret.
    pub secret: &'a Secret,
}

impl SecretFile<'_> {
    /// The path of the file's key.
    pub fn path(&self) -> String {
        upstream_path(self.upstream, self.file_key)
    }
}

/// The secrets of `config` that may be read from files.
pub fn secrets(config: &Config) -> Vec<SecretFile<'_>> {
    let mut all = Vec::new();
    for (upstream, of) in config.all_upstreams() {
        all.push(SecretFile {
            upstream,
            key: "upstream.password",
            file_key: "upstream.password_file",
            file: &of.password_file,
            secret: &of.password,
        });
        all.push(SecretFile {
            upstream,
            key: "upstream.sentinel_password",
            file_key: "upstream.sentinel_password_file",
            file: &of.sentinel_password_file,
            secret: &of.sentinel_password,
        });
    }
    all.push(SecretFile {
        upstream: None,
        key: "admin_token",
        file_key: "admin_token_file",
        file: &config.admin_token_file,
        secret: &config.admin_token,
    });
    all
}

/// The files of `config` whose content is a value that is no secret: changes of them are found
/// with those of the configuration's own file.
pub fn user_files(config: &Config) -> impl Iterator<Item = &str> {
    config
        .all_upstreams()
        .map(|(_, upstream)| upstream.user_file.as_str())
        .filter(|f| !f.is_empty())
}

/// The users of `config`, with those of `users_file`.
///
/// # Errors
/// The key, and the reason.
pub fn users(config: &Config) -> Result<Users, (&'static str, String)> {
    let mut own = config.users.clone();
    if !config.users_file.is_empty() {
        let path = &config.users_file;
        let text = read(path).map_err(|error| ("users_file", error.to_string()))?;
        let parsed = parse_file(&text, &CommandTable::builtin());
        own.extend(parsed.map_err(|why| ("users_file", format!("{path}: {why}")))?);
    }
    let key = if config.users_file.is_empty() { "users" } else { "users_file" };
    let passthrough = config.auth == super::Auth::Passthrough;
    Users::new(own, passthrough, !config.users_file.is_empty()).map_err(|why| (key, why))
}

/// The secret in a file of its own, without the newline at its end.
///
/// # Errors
/// The file cannot be read, or is empty.
pub fn secret(path: &str) -> Result<String, FileError> {
    let mut text = read(path)?;
    if text.ends_with('\n') {
        text.pop();
        if text.ends_with('\r') {
            text.pop();
        }
    }
    match text.is_empty() {
        true => Err(FileError::Empty { path: path.into() }),
        false => Ok(text),
    }
}

fn read(path: &str) -> Result<String, FileError> {
    let unreadable = |source| FileError::Unreadable { path: path.into(), source };
    let bytes = std::fs::metadata(path).map_err(unreadable)?.len();
    if bytes > MAX_BYTES {
        return Err(FileError::TooLarge { path: path.into(), bytes });
    }
    std::fs::read_to_string(path).map_err(unreadable)
}
