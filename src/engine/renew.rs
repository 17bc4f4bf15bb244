//! A changed configuration. It applies from the next command on; commands in progress keep the
//! previous one.

use crate::common::settings::Settings;
use crate::config::Config;
use crate::engine::Engine;
use crate::resp::RequestLimits;
use crate::route::Router;
use std::sync::Arc;

impl Engine {
    /// Applies a changed configuration. `workers` is the number of workers.
    pub(crate) fn set_config(&mut self, config: &Config, workers: usize) {
        let mut settings = Settings::new(config, workers);
        settings.accepted = larger(self.core.settings.accepted, settings.request);
        self.core.settings = settings;
        let (percent, min_per_second) = self.core.settings.retries;
        self.nodes.placement.retries.budget.configure(percent, min_per_second);
        self.seeing.configure(config, self.core.now);
        let views = config.views();
        let changed = **self.core.router.views() != views;
        if changed || *self.core.router.rules() != config.commands {
            let table = self.core.router.shared_table();
            self.core.router =
                Arc::new(Router::with_rules(table, config.commands.clone(), Arc::new(views)));
        }
        let elsewhere = self.core.settings.reads_elsewhere();
        for (_, client) in &mut self.clients.slab {
            client.session.set_reads_by_configuration(elsewhere);
        }
        self.nodes.set_readable(&mut self.core);
        // With new timeouts, checks that were planned for later may be due.
        self.core.clock.next_idle_check = self.core.now;
        self.core.clock.next_idle_probe = self.core.now;
        self.clients.arrivals.leaving.look_at_ages(self.core.now);
        self.core.arm_tick();
    }
}

/// The larger of each limit: a command that was accepted is parsed again later, and must not be
/// refused then.
fn larger(a: RequestLimits, b: RequestLimits) -> RequestLimits {
    RequestLimits {
        bulk: a.bulk.max(b.bulk),
        inline: a.inline.max(b.inline),
        multibulk: a.multibulk.max(b.multibulk),
        unauthenticated: false,
    }
}
