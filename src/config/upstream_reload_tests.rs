//! Tests of reloads that change `[upstreams]`, or what names them.

use super::upstream_tests::{file, from_file};
use super::*;

fn paths(differences: &[ChangedKey]) -> Vec<&str> {
    differences.iter().map(|difference| difference.path.as_str()).collect()
}

#[test]
fn a_reload_changes_logins_and_who_goes_where_and_the_rest_at_a_restart() {
    let running = from_file(&file("", "user = 'u'\n"));
    let wanted = from_file(
        "seeds = ['m:1']\nlisten = [{ at = '127.0.0.1:6379', upstream = 'queues' }]\n\
         [upstreams.queues]\nkind = 'standalone'\nseeds = ['q:1']\nread_from = 'any'\n\
         optional = true\nuser = 'v'\npassword = 'hunter2'\nsentinel_user = 's'\n\
         connections = 2\n\
         [databases]\n1 = 'queues'\n2 = 'main:1'\n\
         [[routes]]\nprefix = 'a'\nupstream = 'queues'\n",
    );
    let plan = ReloadPlan::new(&running, &wanted);
    assert_eq!(
        paths(&plan.changes),
        [
            "listen",
            "upstreams.queues.sentinel_user",
            "upstreams.queues.user",
            "upstreams.queues.password",
            "databases.1",
            "databases.2",
            "routes"
        ]
    );
    assert_eq!(
        paths(&plan.restart),
        ["upstreams.queues.read_from", "upstreams.queues.connections", "upstreams.queues.optional"]
    );
    let shown: Vec<_> = plan.changes.iter().map(|d| (d.old.as_str(), d.new.as_str())).collect();
    assert_eq!(shown[0].1, "[{ at = \"127.0.0.1:6379\", upstream = \"queues\" }]");
    assert_eq!(shown[3..6], [("\"\"", "\"***\""), ("none", "\"queues\""), ("none", "\"main:1\"")]);
    assert_eq!(shown[6], ("[]", "[\"a=queues\"]"));
    let [queues] = plan.config.upstreams.as_slice() else { panic!() };
    let mut expected = running.upstreams[0].clone();
    expected.upstream.user = "v".into();
    expected.upstream.sentinel_user = "s".into();
    expected.upstream.password = Secret::new("hunter2");
    assert_eq!(*queues, expected);
    assert_eq!(plan.config.routes, wanted.routes);
    assert!(!format!("{plan:?}").contains("hunter2"));
    // What is then in use differs from the file in what needs a restart.
    let again = ReloadPlan::new(&plan.config, &wanted);
    assert_eq!((paths(&again.changes), again.restart.len()), (vec![], 3));
    assert_eq!(again.config, plan.config);
}

#[test]
fn logins_wait_with_the_servers_that_they_are_for() {
    let running = from_file(&file("", "user = 'u'\nmaster = 'm'\n"));
    let login = "user = 'v'\npassword = 'hunter2'\nsentinel_user = 's'\n";
    let start = "seeds = ['m:1']\n[upstreams.queues]\n";
    for (servers, changed) in [
        ("kind = 'standalone'\nmaster = 'm'\nseeds = ['q:2']\n", "seeds"),
        ("kind = 'sentinel'\nmaster = 'm'\nseeds = ['q:1']\n", "kind"),
        ("kind = 'standalone'\nmaster = 'n'\nseeds = ['q:1']\n", "master"),
        (
            "kind = 'standalone'\nmaster = 'm'\nseeds = ['q:1']\ntls = { enabled = true }\n",
            "tls.enabled",
        ),
    ] {
        let wanted = from_file(&format!("{start}{servers}{login}"));
        let plan = ReloadPlan::new(&running, &wanted);
        assert_eq!(paths(&plan.changes), [""; 0], "{changed}");
        let mut later = paths(&plan.restart);
        later.sort_unstable();
        let mut expected = [changed, "password", "sentinel_user", "user"]
            .map(|own| format!("upstreams.queues.{own}"));
        expected.sort_unstable();
        assert_eq!(later, expected);
        assert_eq!(plan.config, running);
    }
}

#[test]
fn main_gets_the_servers_of_an_upstream_that_goes_at_the_restart() {
    let running = from_file("seeds = ['m:1']\n[upstreams.queues]\nseeds = ['q:1', 'q:2']\n");
    let wanted = from_file("seeds = ['q:2']\n[upstream]\nuser = 'v'\npassword = 'hunter2'\n");
    let plan = ReloadPlan::new(&running, &wanted);
    assert_eq!(paths(&plan.changes), [""; 0]);
    let later = ["upstreams.queues", "seeds", "upstream.user", "upstream.password"];
    assert_eq!(paths(&plan.restart), later);
    assert_eq!(plan.config, running);
    // Other servers it gets now, with their login.
    let wanted = from_file("seeds = ['m:2']\n[upstream]\nuser = 'v'\n");
    let plan = ReloadPlan::new(&running, &wanted);
    assert_eq!(paths(&plan.changes), ["seeds", "upstream.user"]);
    assert_eq!(paths(&plan.restart), ["upstreams.queues"]);
    // Sentinels are shared, but not what they watch.
    let sentinels = |main: &str| {
        from_file(&format!(
            "seeds = ['s:1']\n[upstream]\nkind = 'sentinel'\nmaster = '{main}'\n\
             [upstreams.queues]\nkind = 'sentinel'\nmaster = 'q'\nseeds = ['s:1']\n"
        ))
    };
    let alone = |master: &str| {
        let mut config = sentinels("m");
        config.upstreams.clear();
        config.upstream.master = master.into();
        config.upstream.user = "v".into();
        config
    };
    let plan = ReloadPlan::new(&sentinels("m"), &alone("n"));
    assert_eq!(paths(&plan.changes), ["upstream.master", "upstream.user"]);
    let plan = ReloadPlan::new(&sentinels("m"), &alone("q"));
    assert_eq!(paths(&plan.changes), [""; 0]);
    assert_eq!(paths(&plan.restart), ["upstreams.queues", "upstream.master", "upstream.user"]);
}

#[test]
fn an_upstream_comes_and_goes_at_a_restart_with_what_names_it() {
    let one = from_file("seeds = ['m:1']\n[upstream]\nuser = 'u'\n");
    let two = from_file(
        "seeds = ['m:1']\nlisten = [{ at = 'localhost:1', upstream = 'queues' }]\n\
         [upstream]\nuser = 'v'\n[upstreams.queues]\nseeds = ['q:1']\npassword = 'hunter2'\n\
         [databases]\n1 = 'queues'\n2 = 'main:1'\n[[routes]]\nprefix = 'a'\nupstream = 'queues'\n",
    );
    let plan = ReloadPlan::new(&one, &two);
    assert_eq!(paths(&plan.changes), ["upstream.user"]);
    let later = ["upstreams.queues", "listen", "databases.1", "databases.2", "routes"];
    assert_eq!(paths(&plan.restart), later);
    let queues = &plan.restart[0];
    assert_eq!(
        (queues.old.as_str(), queues.new.as_str()),
        ("none", "{ seeds = [\"q:1\"], password = \"***\" }")
    );
    let mut expected = one.clone();
    expected.upstream.user = "v".into();
    assert_eq!(plan.config, expected);
    // The other way.
    let plan = ReloadPlan::new(&two, &one);
    assert_eq!(
        paths(&plan.changes),
        ["listen", "upstream.user", "databases.1", "databases.2", "routes"]
    );
    assert_eq!(paths(&plan.restart), ["upstreams.queues"]);
    assert_eq!(plan.config.upstreams, two.upstreams);
    // `main` stays whole where the new file has none, and one mode of logins is for one upstream.
    let queues = from_file("auth = 'passthrough'\n[upstreams.queues]\nseeds = ['q:1']\n");
    let plan = ReloadPlan::new(&two, &queues);
    assert_eq!(paths(&plan.restart), ["seeds", "upstream.user", "auth"]);
    assert_eq!((plan.config.seeds, plan.config.upstream), (two.seeds, two.upstream));
    assert_eq!(plan.config.auth, Auth::Own);
}
