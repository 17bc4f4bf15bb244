//! `commands.deny` and `commands.allow`: the commands that clients may send, by command, subcommand
//! and ACL category.
//!
//! The most specific entry decides: a subcommand (`config|set`) before its command (`config`), a
//! command before a category (`@dangerous`), a category before `@all`; among equals, the one that
//! denies. Commands that neither list covers are not decided here.

use super::spec::CommandSpec;
use super::table::CommandTable;

/// An entry of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// The entry in lower case.
    text: Box<str>,
}

/// How specific a rule is, in ascending order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Level {
    All,
    Category,
    Command,
    Subcommand,
}

/// Commands added after Redis 7.0: a cluster may have them although the built-in table does not.
const NEWER_COMMANDS: &[&str] = &[
    "client|no-touch",
    "client|setinfo",
    "cluster|myshardid",
    "cluster|slot-stats",
    "delex",
    "hexpire",
    "hexpireat",
    "hexpiretime",
    "hgetdel",
    "hgetex",
    "hpersist",
    "hpexpire",
    "hpexpireat",
    "hpexpiretime",
    "hpttl",
    "hsetex",
    "httl",
    "msetex",
    "waitaof",
    "xackdel",
    "xdelex",
];

impl Rule {
    /// Parses an entry. A name that `table` does not have is an error, except for commands of
    /// modules, whose names contain a dot: only the cluster knows them.
    ///
    /// # Errors
    /// What is wrong, and the most similar name if `nearest` finds one.
    pub fn parse(
        text: &str,
        table: &CommandTable,
        nearest: impl Fn(&str, &mut dyn Iterator<Item = &str>) -> Option<String>,
    ) -> Result<Rule, String> {
        let text = text.trim().to_ascii_lowercase();
        let names = || table.iter().map(|(_, spec)| &*spec.name);
        let categories = || {
            let all = table.iter().flat_map(|(_, spec)| spec.categories.iter().map(|c| &**c));
            let mut all: Vec<&str> = all.chain(["all"]).collect();
            all.sort_unstable();
            all.dedup();
            all
        };
        let reason = match text.strip_prefix('@') {
            Some(category) if categories().contains(&category) => None,
            Some(category) => {
                let near = nearest(category, &mut categories().into_iter());
                let near =
                    near.map_or(String::new(), |near| format!("; the nearest is \"@{near}\""));
                Some(format!("\"{text}\" is no ACL category{near}"))
            }
            None if table.by_name(&text).is_some() || NEWER_COMMANDS.contains(&&*text) => None,
            // A module's command, such as `json.get`, or its subcommand.
            None if text.split('|').next().is_some_and(|name| name.contains('.')) => None,
            None => {
                let spelt = text.replace(' ', "|");
                let near = match table.by_name(&spelt) {
                    Some(_) => Some(spelt),
                    None => nearest(&text, &mut names().chain(NEWER_COMMANDS.iter().copied())),
                };
                let near =
                    near.map_or(String::new(), |near| format!("; the nearest is \"{near}\""));
                Some(format!("\"{text}\" is no command{near}"))
            }
        };
        match reason {
            None => Ok(Rule { text: text.into() }),
            Some(reason) => Err(format!(
                "{reason} (write commands as \"keys\", subcommands as \"config|set\", ACL \
                 categories as \"@dangerous\")"
            )),
        }
    }

    /// The entry as written in the configuration, in lower case.
    pub fn text(&self) -> &str {
        &self.text
    }

    fn fits(&self, spec: &CommandSpec) -> Option<Level> {
        if let Some(category) = self.text.strip_prefix('@') {
            return match category {
                "all" => Some(Level::All),
                _ => spec.categories.iter().any(|c| **c == *category).then_some(Level::Category),
            };
        }
        let container = spec.name.split('|').next();
        match self.text.contains('|') {
            true => (self.text == spec.name).then_some(Level::Subcommand),
            false => (Some(&*self.text) == container).then_some(Level::Command),
        }
    }
}

/// The lists of the configuration.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Rules {
    /// `commands.deny`
    pub deny: Vec<Rule>,
    /// `commands.allow`.
    pub allow: Vec<Rule>,
    /// `commands.blocking`, which has no categories.
    pub blocking: Vec<Rule>,
}

/// The decision of the lists about a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RuleVerdict<'a> {
    /// Neither list covers the command.
    Open,
    /// Allowed, if nothing else forbids it.
    Allowed,
    /// Allowed although slotway refuses it by default: an entry names it, or `@dangerous`.
    Opened,
    /// Denied by this entry.
    Denied(&'a Rule),
}

impl Rules {
    /// Decides about a command.
    pub fn verdict(&self, spec: &CommandSpec) -> RuleVerdict<'_> {
        let best = |rules: &'_ [Rule]| -> Option<(Level, usize)> {
            let fitting = rules.iter().enumerate().filter_map(|(i, r)| Some((r.fits(spec)?, i)));
            fitting.max_by_key(|(level, _)| *level)
        };
        match (best(&self.deny), best(&self.allow)) {
            (None, None) => RuleVerdict::Open,
            (Some((deny, i)), allow) if allow.is_none_or(|(allow, _)| deny >= allow) => {
                self.deny.get(i).map_or(RuleVerdict::Open, RuleVerdict::Denied)
            }
            // Allowing "@write" is meant for SET and does not open MIGRATE.
            (_, Some((level, _))) if level >= Level::Command || self.opens_dangerous(spec) => {
                RuleVerdict::Opened
            }
            _ => RuleVerdict::Allowed,
        }
    }

    /// Whether `commands.blocking` names the command.
    pub fn is_blocking(&self, spec: &CommandSpec) -> bool {
        self.blocking.iter().any(|rule| rule.fits(spec).is_some())
    }

    fn opens_dangerous(&self, spec: &CommandSpec) -> bool {
        self.allow.iter().any(|rule| &*rule.text == "@dangerous" && rule.fits(spec).is_some())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(text: &str) -> Rule {
        Rule::parse(text, &CommandTable::builtin(), |_, _| None).expect(text)
    }

    fn denied(deny: &[&str], allow: &[&str], command: &str) -> Option<bool> {
        let rules = |list: &[&str]| list.iter().map(|text| rule(text)).collect();
        let rules = Rules { deny: rules(deny), allow: rules(allow), ..Rules::default() };
        let table = CommandTable::builtin();
        match rules.verdict(table.get(table.by_name(command).expect(command))) {
            RuleVerdict::Open => None,
            RuleVerdict::Allowed | RuleVerdict::Opened => Some(false),
            RuleVerdict::Denied(_) => Some(true),
        }
    }

    #[test]
    fn the_more_specific_counts() {
        assert_eq!(denied(&[], &[], "get"), None);
        assert_eq!(denied(&["get"], &[], "get"), Some(true));
        assert_eq!(denied(&["GET"], &[], "getdel"), None);
        assert_eq!(denied(&["@dangerous"], &[], "keys"), Some(true));
        assert_eq!(denied(&["@dangerous"], &["keys"], "keys"), Some(false));
        assert_eq!(denied(&["@dangerous"], &["@keyspace"], "keys"), Some(true));
        assert_eq!(denied(&["config"], &["config|get"], "config|get"), Some(false));
        assert_eq!(denied(&["config"], &["config|get"], "config|set"), Some(true));
        assert_eq!(denied(&["config|set"], &["config", "@all"], "config|set"), Some(true));
        assert_eq!(denied(&["config|set"], &[], "config"), None);
    }

    #[test]
    fn all_is_the_least_specific() {
        assert_eq!(denied(&["@all"], &["@read"], "get"), Some(false));
        assert_eq!(denied(&["@all"], &["@read"], "set"), Some(true));
        let table = CommandTable::builtin();
        let rules = Rules { deny: vec![rule("@all")], ..Rules::default() };
        let unknown = table.get(super::super::CommandId::UNKNOWN);
        assert!(matches!(rules.verdict(unknown), RuleVerdict::Denied(_)));
    }

    #[test]
    fn entries_that_name_nothing() {
        let table = CommandTable::builtin();
        let near = |_: &str, names: &mut dyn Iterator<Item = &str>| names.next().map(str::to_owned);
        let error = |text: &str| Rule::parse(text, &table, near).expect_err(text);
        assert!(error("kesy").contains("\"kesy\" is no command; the nearest is"));
        assert!(error("@dangerus").contains("\"@dangerus\" is no ACL category"));
        assert!(error("config set").contains("the nearest is \"config|set\""));
        assert!(error("config|sett").contains("is no command"));
        assert!(error("").contains("\"\" is no command"));
        for known in ["json.get", "ft.search", "client|setinfo", "waitaof", "@all", " Config|Set "]
        {
            rule(known);
        }
    }

    #[test]
    fn newer_is_newer() {
        let table = CommandTable::builtin();
        for name in NEWER_COMMANDS {
            assert_eq!(table.by_name(name), None, "{name}");
        }
    }
}
