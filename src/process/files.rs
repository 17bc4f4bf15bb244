//! Reloading of the files with users, passwords and tokens when they change.
//!
//! Changes are found by content: Kubernetes replaces the folder of a Secret rather than its files,
//! and a file that is changed twice within a second may keep its modification time.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tracing::{error, info, warn};

use crate::config::files::{FileError, secret, secrets, users};
use crate::config::{Config, Secret};
use crate::users::Users;

/// How often the files are read.
const POLL_INTERVAL: Duration = Duration::from_secs(1);

/// The watched files of the configuration in use.
#[derive(Debug)]
pub(super) struct Files(Mutex<Inner>);

#[derive(Debug)]
struct Inner {
    config: Arc<Config>,
    /// The users in use; `None` if none could be read yet.
    users: Option<Users>,
    /// The problems of the last check, which are not logged again.
    reported: Vec<String>,
}

impl Files {
    /// The files of `config`, whose users the caller has read already.
    pub fn new(config: Arc<Config>) -> Files {
        let users = users(&config).ok();
        users.iter().for_each(warn_of);
        Files(Mutex::new(Inner { config, users, reported: Vec::new() }))
    }

    /// Changes to the files of another configuration and checks them.
    pub fn change(&self, config: Arc<Config>, on_users: impl Fn(Users)) {
        self.inner().config = config;
        self.check(on_users);
    }

    /// Checks the files again and again; calls `on_users` with changed users. Never returns.
    pub async fn run(&self, on_users: impl Fn(Users)) {
        loop {
            tokio::time::sleep(POLL_INTERVAL).await;
            self.check(&on_users);
        }
    }

    /// Checks the files now.
    pub fn check(&self, on_users: impl Fn(Users)) {
        let mut inner = self.inner();
        let Inner { config, users: current, reported } = &mut *inner;
        let mut problems = Vec::new();
        match users(config).and_then(|users| config.check_protected_mode(users)) {
            Ok(users) if Some(&users) != current.as_ref() => {
                info!(users = users.iter().count(), file = config.users_file, "users changed");
                warn_of(&users);
                *current = Some(users.clone());
                on_users(users);
            }
            Ok(_) => {}
            Err((key, why)) => problems.push(format!("{key}: {why}")),
        }
        for secret in secrets(config) {
            let key = secret.path();
            if let Err(why) = renew(&key, secret.file, secret.secret) {
                problems.push(format!("{key}: {why}"));
            }
        }
        for why in problems.iter().filter(|why| !reported.contains(why)) {
            error!(why, "a changed file cannot be used; its previous content stays in use");
        }
        *reported = problems;
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Logs warnings about the users' rules.
fn warn_of(users: &Users) {
    users.warnings().iter().for_each(|warning| warn!("{warning}"));
}

/// Replaces the secret in `place` if `file` has another one.
fn renew(key: &str, file: &str, place: &Secret) -> Result<(), FileError> {
    if file.is_empty() {
        return Ok(());
    }
    let read = secret(file)?;
    if *place.reveal() != *read {
        place.replace(read);
        info!(key, file, "a secret changed");
    }
    Ok(())
}
