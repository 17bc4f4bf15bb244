//! Logins that fail: counted and logged.

use crate::access::Access;
use crate::clients::login::throttle;
use crate::clients::{Clients, Flow};
use crate::command::CommandId;
use crate::common::Core;
use crate::errors::Failure;
use crate::metrics::LoginOutcome;
use crate::users::{CheckResult, CommandTag, Source};

/// Failed logins are logged no more often, microseconds.
pub(crate) const LOG_INTERVAL: u64 = 10_000_000;

impl Access {
    /// Told at once, or after a while that grows with the failures from the same address.
    pub(crate) fn login_failed(
        &mut self,
        index: usize,
        command: CommandId,
        tag: CommandTag,
        failure: Failure,
        clients: &mut Clients,
        core: &mut Core,
    ) -> Flow {
        core.stats.logins[LoginOutcome::Wrong as usize] += 1;
        let address = clients.logins().address(index);
        let wait = throttle(&core.shared.throttle).failed(Source::of(address), core.now);
        self.failures.count += 1;
        if core.now >= self.failures.next_line {
            self.failures.next_line = core.now + LOG_INTERVAL;
            let failed = std::mem::take(&mut self.failures.count);
            let from = address.map_or_else(|| "a Unix socket".to_owned(), |ip| ip.to_string());
            // Not the name: it may be a password in the wrong place.
            tracing::warn!(from, failed, "logins failed; this address is the last one");
        }
        if wait == 0 {
            clients.answer_own_error(index, command, &failure, core);
            return Flow::Next;
        }
        clients.logins().put_off(index, tag, CheckResult::Told(failure), wait, core)
    }
}

/// What is kept about failed logins, for the log.
#[derive(Debug, Default)]
pub(crate) struct Failures {
    /// Since the last line.
    pub count: u64,
    pub(crate) next_line: u64,
}
