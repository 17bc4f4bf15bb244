"""The list of tests that are known not to pass through slotway, each for one reason: known.toml.

Pure: results go in, what is wrong with them or with the list comes out.
"""

import dataclasses
import functools
import re
import tomllib


@dataclasses.dataclass(frozen=True)
class Entry:
    """One line of the list."""

    name: str
    reason: str
    protocols: tuple

    def matches(self, test):
        """A name without [parameters] means the test with all of them; * means anything."""
        return pattern(self.name).fullmatch(test) is not None

    def file(self):
        return self.name.split("::")[0]


@functools.cache
def pattern(name):
    parts = (re.escape(part) for part in name.split("*"))
    parameters = "" if name.endswith("]") else r"(\[.*\])?"
    return re.compile(".*".join(parts) + parameters, re.DOTALL)


def read(text, mode="through", server="7.0"):
    """The entries of known.toml for this mode and server: those that name none, and those that
    name this one."""
    entries = []
    for group in tomllib.loads(text)["known"]:
        only = group.get("only", mode)
        modes = [only] if isinstance(only, str) else only
        if mode not in modes or server not in group.get("servers", [server]):
            continue
        protocols = tuple(group.get("protocols", (2, 3)))
        entries += [Entry(name, group["reason"], protocols) for name in group["tests"]]
    return entries


def find(entries, protocol, test):
    """The entries that this test is listed by."""
    return [e for e in entries if protocol in e.protocols and e.matches(test)]


def missing(straight, through):
    """The tests that pass straight and not through slotway. Both: test name → whether it passed.

    One that has not been run at all through slotway, or was skipped, has not passed.
    """
    return [test for test, passed in straight.items() if passed and not through.get(test)]


def judge(entries, results, files):
    """What is wrong, as sentences; empty if all is as listed.

    results: protocol → (straight, through); files: those that were run, whole.
    """
    wrong = []
    used = set()
    for protocol, (straight, through) in results.items():
        lacking = set(missing(straight, through))
        for test in sorted(set(straight) | set(through)):
            listed = find(entries, protocol, test)
            used.update(listed)
            here = f"RESP{protocol} {test}"
            if test in lacking and not listed:
                wrong.append(f"does not pass and is not listed: {here}")
            if len(listed) > 1:
                wrong.append(f"listed more than once: {here}")
            if listed and through.get(test):
                wrong.append(f"is listed but passes: {here}")
    for entry in entries:
        ran = entry.file() in files and set(entry.protocols) <= set(results)
        tests = [
            test
            for protocol in entry.protocols
            if protocol in results
            for test in missing(*results[protocol])
            if entry.matches(test)
        ]
        if ran and entry not in used:
            wrong.append(f"listed, but there is no such test: {entry.name}")
        elif ran and not tests:
            wrong.append(f"listed, but passes nowhere straight: {entry.name}")
    return wrong
