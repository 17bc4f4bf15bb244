//! The databases that clients select: those of their upstream, and those that the configuration
//! makes another upstream (`[databases]`).

use super::session::Session;
use crate::cluster::{UpstreamId, ViewId};

/// The databases that are another upstream.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Databases {
    routes: Box<[DatabaseTarget]>,
}

/// What a client has selected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DatabaseTarget {
    /// The number by which clients call it.
    pub number: u16,
    /// The upstream.
    pub upstream: UpstreamId,
    /// Its database there.
    pub database: u16,
}

impl Databases {
    /// These databases are other upstreams.
    pub fn new(routes: impl IntoIterator<Item = DatabaseTarget>) -> Self {
        Databases { routes: routes.into_iter().collect() }
    }

    /// Whether SELECT may lead to another upstream.
    pub fn is_empty(&self) -> bool {
        self.routes.is_empty()
    }

    /// What SELECT with this number means to the client. A client of a listener that has an
    /// upstream of its own has that one's databases.
    pub fn target(&self, session: &Session, number: u16) -> DatabaseTarget {
        let route = self.routes.iter().find(|route| route.number == number);
        match route.filter(|_| !session.is_bound()) {
            Some(route) => *route,
            None if session.is_bound() => {
                let upstream = session.view.upstream().unwrap_or_default();
                DatabaseTarget { number, upstream, database: number }
            }
            None => DatabaseTarget { number, upstream: UpstreamId::FIRST, database: number },
        }
    }

    /// The view of a client that has selected `target`.
    pub fn view(&self, session: &Session, target: DatabaseTarget) -> ViewId {
        match target {
            _ if session.is_bound() => session.view,
            DatabaseTarget { number: 0, upstream: UpstreamId::FIRST, .. } => ViewId::ROUTED,
            // The routes of keys are those of database 0.
            DatabaseTarget { upstream, .. } => ViewId::of(upstream),
        }
    }

    /// The number by which the client calls the database that it has selected.
    pub fn shown(&self, session: &Session) -> u16 {
        let upstream = session.view.upstream().filter(|_| !session.is_bound());
        let is_this = |route: &&DatabaseTarget| {
            Some(route.upstream) == upstream && route.database == session.database
        };
        self.routes.iter().find(is_this).map_or(session.database, |route| route.number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn databases() -> Databases {
        let route = |number, upstream, database| DatabaseTarget {
            number,
            upstream: UpstreamId(upstream),
            database,
        };
        Databases::new([route(1, 1, 0), route(2, 2, 5)])
    }

    fn select(databases: &Databases, session: &mut Session, number: u16) -> (u8, u16, u16) {
        let target = databases.target(session, number);
        session.view = databases.view(session, target);
        session.database = target.database;
        (target.upstream.0, target.database, databases.shown(session))
    }

    #[test]
    fn a_number_is_the_upstream_that_the_configuration_says() {
        let (databases, mut session) = (databases(), Session::new(1));
        assert_eq!(select(&databases, &mut session, 1), (1, 0, 1));
        assert_eq!(session.view, ViewId::of(UpstreamId(1)));
        assert_eq!(select(&databases, &mut session, 2), (2, 5, 2));
        assert_eq!(select(&databases, &mut session, 3), (0, 3, 3));
        assert_eq!(session.view, ViewId::of(UpstreamId(0)), "without the routes of database 0");
        assert_eq!(select(&databases, &mut session, 0), (0, 0, 0));
        assert_eq!(session.view, ViewId::ROUTED);
    }

    #[test]
    fn a_client_of_a_listener_with_an_upstream_has_its_databases() {
        let (databases, mut session) = (databases(), Session::new(1));
        session.bind(UpstreamId(2));
        assert_eq!(select(&databases, &mut session, 1), (2, 1, 1));
        assert_eq!(session.view, ViewId::of(UpstreamId(2)));
        assert_eq!(select(&databases, &mut session, 0), (2, 0, 0));
        assert_eq!(session.view, ViewId::of(UpstreamId(2)));
    }
}
