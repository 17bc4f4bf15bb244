"""The list of known failures: what it catches."""

import known

TOML = """
[[known]]
reason = "one"
tests = ["f.py::test_a", "f.py::C::*"]

[[known]]
reason = "only there"
protocols = [3]
tests = ["f.py::test_b[x]"]
"""


LONELY = """
[[known]]
reason = "gone"
protocols = [3]
tests = ["f.py::test_gone"]
"""


def judge(straight, through, toml=TOML, files=("f.py",)):
    return known.judge(known.read(toml), {3: (straight, through)}, set(files))


GOOD = {"f.py::test_a": True, "f.py::C::test_c[1]": True, "f.py::test_b[x]": True}
BAD = dict.fromkeys(GOOD, False)


def test_all_as_listed():
    assert judge(GOOD, BAD, TOML.replace('"one"', '"one"\nprotocols = [3]')) == []


def test_one_that_is_not_listed():
    [wrong] = judge({"f.py::test_b[y]": True}, {}, files=())
    assert "not listed" in wrong and "test_b[y]" in wrong


def test_one_that_fails_straight_as_well_is_nobodys_business():
    assert judge({"f.py::test_d": False}, {"f.py::test_d": False}, files=()) == []


def test_one_that_passes_though_listed():
    [wrong] = judge({**GOOD}, {**BAD, "f.py::C::test_c[1]": True}, files=())
    assert "is listed but passes" in wrong and "test_c[1]" in wrong


def test_one_that_does_not_exist():
    [wrong] = judge({}, {}, LONELY)
    assert "no such test" in wrong


def test_one_that_fails_straight_though_listed():
    [wrong] = judge({"f.py::test_gone": False}, {"f.py::test_gone": False}, LONELY)
    assert "passes nowhere straight" in wrong


def test_one_that_is_listed_twice():
    [wrong] = judge({"f.py::test_gone": True}, {}, LONELY + LONELY.replace("test_gone", "*"))
    assert "more than once" in wrong


def test_modes():
    text = TOML.replace('"one"', '"one"\nonly = "through"')
    both = {mode: [e.reason for e in known.read(text, mode)] for mode in ("through", "emulated")}
    assert both == {"through": ["one", "one", "only there"], "emulated": ["only there"]}
    several = TOML.replace('"one"', '"one"\nonly = ["single", "through"]')
    found = [[e.reason for e in known.read(several, m)] for m in ("through", "emulated", "single")]
    assert found == [["one", "one", "only there"], ["only there"], ["one", "one", "only there"]]


def test_servers():
    text = TOML.replace('"one"', '"one"\nservers = ["redis", "valkey"]')
    read = {server: known.read(text, server=server) for server in ("7.0", "redis", "valkey")}
    assert [e.reason for e in read["7.0"]] == ["only there"]
    assert [e.reason for e in read["redis"]] == ["one", "one", "only there"] == [
        e.reason for e in read["valkey"]
    ]


def test_names():
    entry = known.Entry("f.py::test_a", "why", (2, 3))
    assert entry.matches("f.py::test_a") and entry.matches("f.py::test_a[single-1]")
    assert not entry.matches("f.py::test_ab") and not entry.matches("f.py::C::test_a")
    exact = known.Entry("f.py::test_a[x]", "why", (2, 3))
    assert exact.matches("f.py::test_a[x]") and not exact.matches("f.py::test_a[y]")
    assert known.Entry("f.py::C::*", "why", (2,)).matches("f.py::C::test[a\nb]")
