//! Checks on access as a whole: reads the files with users and secrets, and enforces
//! `protected_mode`, which refuses a listener that other machines reach and that needs no login.

use std::net::IpAddr;

use super::files::{self, SecretFile};
use super::{ClientAuth, Config, Listen, Loaded, Problem};
use crate::users::Users;

impl Config {
    /// Whether clients have to log in before anything else.
    pub fn requires_login(&self) -> bool {
        files::users(self).is_ok_and(|users| !users.allows_without_login())
    }

    /// Returns `users` if `protected_mode` allows them at the configured addresses. For a file of
    /// users that changes at run time: at the start and at a reload the bound addresses are
    /// checked.
    ///
    /// # Errors
    /// The key of the users, and the reason.
    pub fn check_protected_mode(&self, users: Users) -> Result<Users, (&'static str, String)> {
        if !self.protected_mode || !users.allows_without_login() {
            return Ok(users);
        }
        let plain = self.listen.iter().filter_map(|listen| match listen {
            Listen::Tcp(address) => Some(address),
            Listen::Unix(_) => None,
        });
        let shows = self.tls.downstream.client_auth == ClientAuth::Required;
        let tls = self.tls.downstream.listen.iter().filter(|_| !shows);
        // Of DNS names only localhost is known to resolve to this machine.
        let is_local = |host: &str| match host.parse() {
            Ok(ip) => !is_public(ip),
            Err(_) => host.eq_ignore_ascii_case("localhost"),
        };
        match plain.chain(tls).find(|address| !is_local(&address.host)) {
            Some(address) => Err(("users_file", unprotected_reason(&address.to_string()))),
            None => Ok(users),
        }
    }
}

/// Reads the files that hold secrets into the configuration, and returns the problems of access.
pub(super) fn problems(loaded: &mut Loaded) -> Vec<Problem> {
    let mut users = Vec::new();
    for (name, upstream) in loaded.config.all_upstreams_mut() {
        if upstream.user_file.is_empty() {
            continue;
        }
        let name = name.map(str::to_owned);
        if !upstream.user.is_empty() {
            users.push((name, None));
            continue;
        }
        match files::secret(&upstream.user_file) {
            Ok(user) => upstream.user = user,
            Err(error) => users.push((name, Some(error.to_string()))),
        }
    }
    let loaded = &*loaded;
    let config = &loaded.config;
    let mut problems = Vec::new();
    let mut problem = |key: &str, reason: String| {
        let origin = loaded.origin(key).clone();
        problems.push(Problem { origin, key: key.into(), reason });
    };
    let given_as_well =
        |key: &str| format!("{key} is given as well ({}); keep one", loaded.origin(key));
    for (name, why) in users {
        let path = |key| loaded.upstream_key_name(name.as_deref(), key);
        let reason = why.unwrap_or_else(|| given_as_well(&path("upstream.user")));
        problem(&path("upstream.user_file"), reason);
    }
    for SecretFile { upstream, key, file_key, file, secret } in files::secrets(config) {
        if file.is_empty() {
            continue;
        }
        let path = |key| loaded.upstream_key_name(upstream, key);
        if !secret.is_empty() {
            problem(&path(file_key), given_as_well(&path(key)));
            continue;
        }
        match files::secret(file) {
            Ok(text) => secret.replace(text),
            Err(error) => problem(&path(file_key), error.to_string()),
        }
    }
    let users = match files::users(config) {
        Ok(users) => users,
        Err((key, why)) => {
            problem(key, why);
            return problems;
        }
    };
    if config.protected_mode && users.allows_without_login() {
        for listen in &config.listen {
            // A DNS name is checked when its listener is bound.
            let Listen::Tcp(address) = listen else { continue };
            if address.host.parse().is_ok_and(is_public) {
                problem("listen", unprotected_reason(&listen.to_string()));
            }
        }
        let secured = &config.tls.downstream;
        // A required client certificate counts as a login.
        if secured.client_auth != ClientAuth::Required {
            for address in &secured.listen {
                if address.host.parse().is_ok_and(is_public) {
                    problem("tls.downstream.listen", unprotected_reason(&address.to_string()));
                }
            }
        }
    }
    problems
}

/// Whether other machines may reach the address: it is not a loopback address.
pub fn is_public(ip: IpAddr) -> bool {
    !ip.to_canonical().is_loopback()
}

/// The error for an address that `protected_mode` refuses, with the remedies.
pub fn unprotected_reason(address: &str) -> String {
    format!(
        "\"{address}\" can be reached from other machines, and clients need no password, so \
         whoever reaches it has all the rights of upstream.user. Set users or users_file (a \
         \"default\" without nopass); or auth = \"passthrough\", where only those who log in as users of \
         the cluster are served; or listen on 127.0.0.1 or a Unix socket; or, where the network keeps others away, protected_mode = false"
    )
}
