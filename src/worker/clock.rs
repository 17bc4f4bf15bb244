//! Timers, and periodic checks.

use crate::base::{Base, base};
use crate::common::clock::Job;
use crate::upstream::ConnectionState;
use crate::worker::Worker;

impl Worker {
    /// Runs all timers and periodic checks that are due.
    pub(super) fn run_timers(&mut self) {
        while self.engine.core.clock.timers.peek().is_some_and(|t| t.due <= self.engine.core.now) {
            match self.engine.core.clock.timers.pop().map(|t| t.job) {
                Some(Job::Connect(conn)) => {
                    let waits = self
                        .engine
                        .nodes
                        .upstreams
                        .get(conn)
                        .is_some_and(|up| up.state == ConnectionState::Backoff);
                    if waits
                        && !base!(self.engine).retire(conn)
                        && !self.engine.access.is_unwanted(
                            conn,
                            &mut self.engine.nodes,
                            &mut self.engine.core,
                        )
                    {
                        self.engine.nodes.connections().connect(conn, &mut self.engine.core);
                    }
                }
                Some(Job::Lane(slot, lane)) => self.engine.core.run_lane(slot, lane),
                Some(Job::Gate(slot, class)) => {
                    self.engine.nodes.placement.slots.holds.disarm(slot, class);
                    self.engine.core.run_gate(slot, class);
                }
                Some(Job::Retries) => {
                    self.engine.ops.resends().run_retries(&mut base!(self.engine))
                }
                Some(Job::Purge) => self.engine.core.memory.purge(),
                Some(Job::Errand(client, seq)) => {
                    self.engine.ops.errands().again(client, seq, &mut base!(self.engine));
                }
                Some(Job::Emulation(g, ticket)) => self.engine.wake_emulation(g, ticket),
                Some(Job::Subscribe(id)) => self.engine.subscribers.subscribe_ends(
                    id,
                    &mut self.engine.clients,
                    &mut self.engine.core,
                ),
                Some(Job::SlowSubscriber(client)) => {
                    self.engine.clients.subscribed().look_again(client, &mut self.engine.core);
                }
                Some(Job::Login(client)) => {
                    self.engine.clients.logins().again(client, &mut self.engine.core)
                }
                Some(Job::Close(client)) => {
                    self.engine.clients.departures().close_if_leaving(client, &mut self.engine.core)
                }
                Some(Job::Looks) => base!(self.engine).look_at_realms(),
                Some(Job::Realm(realm)) => base!(self.engine).realm_ends(realm),
                Some(Job::Listen(client)) => self.engine.clients.monitors().listen_again(
                    client,
                    &mut self.engine.nodes,
                    &mut self.engine.core,
                ),
                Some(Job::ErrandEnd(client, seq)) => {
                    self.delivery().errand_ends(client, seq);
                }
                None => {}
            }
            self.delivery().follow_up();
        }
        if self
            .engine
            .clients
            .stop
            .pause_end(&self.engine.core)
            .is_some_and(|due| due <= self.engine.core.now)
        {
            self.engine.clients.suspension().end(&mut self.engine.core);
        }
        if self.engine.core.clock.tick.is_some_and(|due| due <= self.engine.core.now) {
            self.engine.core.clock.tick = None;
            self.engine.look_at_deadlines();
        }
        self.engine.clients.departures().close_idle(&mut self.engine.core);
        self.engine.clients.departures().end_slow_handshakes(&mut self.engine.core);
        self.end_late_logins();
        self.let_leave();
        self.engine.nodes.silence().probe_idle(&mut self.engine.core);
    }
}
