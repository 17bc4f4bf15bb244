//! Answers to workers' questions about users of the cluster: are these credentials valid, may this
//! user send that command?
//!
//! Credentials are tried on a connection of their own, which is then closed. Permissions are asked
//! for by slotway's own user, with ACL DRYRUN, on connections that are kept.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Semaphore;

use super::node::{AskError, NodeConn};
use super::pool::Pool;
use super::status::Status;
use crate::cluster::UpstreamId;
use crate::errors::Failure;
use crate::mailbox::ToWorker;
use crate::mailbox::UserQuestion;
use crate::resp::reply::{error_text, text};
use crate::users::{Granted, UserCheck};

/// Limit on simultaneous questions; further ones wait.
const MAX_QUESTIONS: usize = 64;
/// Limit on simultaneous rechecks; further ones wait.
const MAX_RECHECKS: usize = 4;
/// Limit on idle connections that are kept.
const MAX_IDLE: usize = 4;
/// Limit on nodes that are tried for one question.
const MAX_NODES: usize = 3;

/// Puts workers' questions about users to nodes.
#[derive(Debug)]
pub struct Verifier {
    pub(super) pool: Arc<Pool>,
    status: Arc<Status>,
    /// Permits of [`Verifier::answer`].
    places: Semaphore,
    /// Permits of [`Verifier::recheck`].
    pub(super) rechecks: Semaphore,
    idle: Mutex<Vec<NodeConn>>,
}

impl Verifier {
    /// The upstream whose users clients log in as. No other is shown their passwords.
    pub(super) const UPSTREAM: UpstreamId = UpstreamId::FIRST;

    /// A verifier that asks the nodes of the topology in `status`.
    pub fn new(pool: Arc<Pool>, status: Arc<Status>) -> Arc<Self> {
        let places = Semaphore::new(MAX_QUESTIONS);
        Arc::new(Verifier {
            pool,
            status,
            places,
            rechecks: Semaphore::new(MAX_RECHECKS),
            idle: Mutex::default(),
        })
    }

    /// Closes idle connections: slotway's own user may have changed.
    pub fn renew(&self) {
        self.idle().clear();
    }

    /// Answers a worker's question.
    pub async fn answer(self: Arc<Self>, question: UserQuestion) {
        let UserQuestion { asking, client, wanted, to } = question;
        let answer = match self.places.acquire().await {
            // The client has gone: nobody waits for the answer.
            _ if wanted.strong_count() == 0 => return,
            Ok(_place) => self.ask(&asking).await,
            Err(_) => Err(Failure::Stopping),
        };
        // If the worker has ended, so has the client.
        to.send(ToWorker::Verified { client, answer });
    }

    pub(super) async fn ask(&self, asking: &UserCheck) -> Result<Granted, Failure> {
        if let UserCheck::Command { .. } = asking {
            let kept = self.idle().pop();
            if let Some(mut kept) = kept
                && let Ok(answer) = self.say(&mut kept, asking).await
            {
                self.keep(kept);
                return answer;
            }
        }
        let access = self.pool.access(Self::UPSTREAM);
        let mut why = "no node of the cluster is known yet".to_owned();
        for node in self.nodes().into_iter().take(MAX_NODES) {
            let addr = &node.addr;
            let found = tokio::net::lookup_host((&*addr.host, addr.port)).await;
            let Some(socket) = found.ok().and_then(|mut all| all.next()) else {
                why = format!("the host name {} is not resolved", addr.host);
                continue;
            };
            let said = match asking {
                UserCheck::Command { .. } => {
                    match NodeConn::connect(socket, &addr.host, &node.id, &access).await {
                        Ok(mut conn) => {
                            let said = self.say(&mut conn, asking).await;
                            if said.is_ok() {
                                self.keep(conn);
                            }
                            said
                        }
                        Err(error) => Err(error),
                    }
                }
                _ => match NodeConn::connect_without_handshake(socket, &addr.host, &access).await {
                    Ok(mut conn) => self.log_in(&mut conn, asking).await,
                    Err(error) => Err(error),
                },
            };
            match said {
                Ok(answer) => return answer,
                Err(error) => why = format!("{addr}: {error}"),
            }
        }
        Err(Failure::UsersNotAsked { why })
    }

    /// Tries credentials, and finds out whether the user needs a password at all.
    async fn log_in(
        &self,
        conn: &mut NodeConn,
        asking: &UserCheck,
    ) -> Result<Result<Granted, Failure>, AskError> {
        let UserCheck::Login { who, another } = asking else { return self.say(conn, asking).await };
        let is_default = who.user.is_empty() || *who.user == *b"default";
        let mut open = false;
        if is_default {
            // If the default user needs no password, a new connection is that user's. Errors other
            // than NOAUTH come after authentication.
            let reply = conn.ask(&["PING"]).await?;
            open = !error_text(&reply).is_some_and(|text| text.starts_with(b"NOAUTH"));
        }
        let said = self.say(conn, asking).await?;
        if said.is_ok() && *another && !is_default {
            let random = format!("{:032x}", fastrand::u128(..));
            let login: [&[u8]; 3] = [b"AUTH", &who.user, random.as_bytes()];
            let reply = conn.ask(&login).await?;
            open = error_text(&reply).is_none();
        }
        Ok(said.map(|granted| if open { Granted::Open } else { granted }))
    }

    async fn say(
        &self,
        conn: &mut NodeConn,
        asking: &UserCheck,
    ) -> Result<Result<Granted, Failure>, AskError> {
        let command: Vec<&[u8]> = match asking {
            UserCheck::Login { who, .. } if who.user.is_empty() => vec![b"AUTH", &who.password],
            UserCheck::Login { who, .. } => vec![b"AUTH", &who.user, &who.password],
            UserCheck::NoLogin => vec![b"PING"],
            UserCheck::Command { user, args } => {
                let words = [b"ACL".as_slice(), b"DRYRUN", user];
                words.into_iter().chain(args.iter().map(Vec::as_slice)).collect()
            }
        };
        let reply = conn.ask(&command).await?;
        let error = error_text(&reply).map(|text| String::from_utf8_lossy(text).into_owned());
        Ok(match (asking, error) {
            (UserCheck::Command { .. }, Some(error)) if error.starts_with("NOPERM") => {
                Err(Failure::DryRunDenied)
            }
            // The user no longer exists.
            (UserCheck::Command { user, .. }, Some(error)) if error.starts_with("ERR User '") => {
                Err(Failure::UserGone { user: user.escape_ascii().to_string().into() })
            }
            // The default user is authenticated and may not send PING.
            (UserCheck::NoLogin, Some(error)) if error.starts_with("NOPERM") => Ok(Granted::Open),
            (UserCheck::NoLogin, Some(error)) if error.starts_with("NOAUTH") => {
                Err(Failure::LogInFirst)
            }
            (_, Some(error)) => Err(Failure::Verbatim(error.into_bytes().into())),
            (UserCheck::Command { .. }, None) => match text(&reply) {
                Some(b"OK") => Ok(Granted::Yes),
                Some(said) => Err(denied(&String::from_utf8_lossy(said))),
                None => Err(Failure::DryRunNotUnderstood),
            },
            (UserCheck::NoLogin, None) => Ok(Granted::Open),
            (_, None) => Ok(Granted::Yes),
        })
    }

    /// The primaries of the upstream whose users they are, in an order that begins at a random one.
    pub(super) fn nodes(&self) -> Vec<crate::cluster::Node> {
        let snapshot = Arc::clone(&self.status.upstream(Self::UPSTREAM).snapshot);
        let primaries = snapshot.shards.iter().filter_map(|shard| shard.primary);
        let known = primaries.filter_map(|n| snapshot.nodes.get(usize::from(n)));
        let mut nodes: Vec<_> = known.cloned().collect();
        if !nodes.is_empty() {
            let first = fastrand::usize(..nodes.len());
            nodes.rotate_left(first);
        }
        nodes
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<NodeConn>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn keep(&self, conn: NodeConn) {
        let mut idle = self.idle();
        if conn.is_usable() && idle.len() < MAX_IDLE {
            idle.push(conn);
        }
    }
}

/// The error that the command itself would get, from the text of ACL DRYRUN.
fn denied(said: &str) -> Failure {
    let which = |word: &str| said.ends_with(word) && said.contains("access the '");
    if which("' key") {
        Failure::KeyDenied
    } else if which("' channel") {
        Failure::ChannelDenied
    } else {
        let text = said.strip_prefix("This user").unwrap_or(said);
        Failure::Verbatim(format!("NOPERM this user{text}").into_bytes().into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dry_run_is_told_as_the_command_would_be() {
        let said = "This user has no permissions to run the 'flushall' command";
        let told = "NOPERM this user has no permissions to run the 'flushall' command";
        assert_eq!(denied(said).to_string(), told);
        let channel = "This user has no permissions to access the 'a' key' channel";
        assert_eq!(denied(channel), Failure::ChannelDenied);
        let key = "This user has no permissions to access the 'x' key";
        assert_eq!(denied(key), Failure::KeyDenied);
    }
}
