//! Subscriptions that their users may not have any more.

use crate::channel::TopicKind;
use crate::clients::Clients;
use crate::subscribers::Subscribers;
use crate::users::User;

impl Subscribers {
    /// What the client has begun while nobody had to log in, and hears without sending anything.
    pub(crate) fn may_go_on(&self, index: usize, clients: &Clients) -> bool {
        let Some(client) = clients.slab.get(index) else { return true };
        let Some(account) = &client.session.account else { return true };
        let hears = client.subscriptions.is_some() || client.lent.is_some();
        match &account.user {
            None => !hears,
            Some(user) if user.is_unrestricted() => true,
            Some(user) => client.lent.is_none() && self.may_hear_all(index, user, clients),
        }
    }

    /// Its subscriptions are all within the user's rules.
    pub(crate) fn may_hear_all(&self, index: usize, user: &User, clients: &Clients) -> bool {
        let subscriptions = clients.slab.get(index).and_then(|c| c.subscriptions.as_ref());
        let mut topics = subscriptions.into_iter().flat_map(|s| s.topics.keys());
        topics.all(|&topic| {
            let local = self.topics.local.get(topic as usize);
            local.is_none_or(|local| {
                user.may_subscribe(&local.name, local.kind == TopicKind::Pattern)
            })
        })
    }
}
