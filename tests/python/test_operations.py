"""docs/operations.md, *Troubleshooting by error text*: it has slotway's errors as they are in the
source, and no others."""

import re

import pytest

from servers import REPOSITORY

# in a table a bar is written with a backslash
PAGE = (REPOSITORY / "docs/operations.md").read_text().replace("\\|", "|")
WORDS = "CLUSTERDOWN|CROSSSLOT|ERR|EXECABORT|NOAUTH|NOPERM|NOPROTO|NOSCRIPT|OOM|OUTCOMEUNKNOWN|TRYAGAIN|UNBLOCKED|WRONGPASS"
# What Redis says in the same words in the same situation: the page has no line for each.
REDIS = [
    "Client names cannot contain", "CLIENT CACHING", "CLIENT PAUSE", "CLIENT UNBLOCK",
    "DB index is out of range", "DISCARD without MULTI", "EXEC without MULTI", "Error compiling",
    "Invalid client ID", "MULTI calls can not be nested", "NOPROTO", "NOSCRIPT", "No such client",
    "No such user", "Protocol version", "Syntax error in HELLO", "TRYAGAIN", "UNBLOCKED",
    "Unknown client type", "Unknown node", "Unrecognized option", "CLUSTERDOWN Hash slot not served",
    "CLUSTERDOWN The cluster is down", "cannot contain spaces", "client-id should be",
    "Command '{name}' not found", "User '", "insufficient ACL", "no permissions to", "HELLO must be called",
    "syntax error", "timeout is", "unknown command", "unknown subcommand", "value is not an integer", "value is out of range",
    "wrong number of arguments", "no such key", "weight value is not a float", "must contain string values",
    "scores can't be converted", "count should be greater", "found in the", "should be greater than 0",
    "DB number should be", "DB is not an integer", "not allowed inside a transaction",
]  # fmt: skip


def literals():
    """Every string of the source, continued lines joined."""
    for file in sorted((REPOSITORY / "src").rglob("*.rs")):
        if "tests" in file.stem or "tests" in file.parts or "sandbox" in file.parts:
            continue
        text = file.read_text().split("#[cfg(test)]\nmod tests")[0]
        text = re.sub(r"^\s*//.*$", "", text, flags=re.M)
        for match in re.finditer(r'"((?:[^"\\]|\\.)*)"', text, flags=re.S):
            joined = re.sub(r"\\\n\s*", "", match[1]).replace("\\r\\n", "").replace('\\"', '"')
            yield joined.replace("{{", "\0").replace("}}", "\1")


def fragments(text):
    """What of it stays the same."""
    parts = re.split(r"\{[^}]*\}|…", text)
    return [p.replace("\0", "{").replace("\1", "}").strip() for p in parts]


SOURCE = list(literals())
EVERYTHING = "\n".join(" … ".join(fragments(text)) for text in SOURCE)


def documented():
    section = PAGE.split("## Troubleshooting by error text")[1]
    for line in section.splitlines():
        if line.startswith("| `") or line.startswith('| `"'):
            yield from re.findall(r"`((?:[^`])+)`", line.split(" | ")[0])


@pytest.mark.parametrize("text", list(documented()))
def test_what_the_page_has_is_said(text):
    # a braced hash tag is text, not a place
    for part in re.split("…", text):
        part = part.strip(" ;,:")
        if len(part) > 3 and not re.fullmatch(WORDS, part):
            assert part in EVERYTHING, f"nowhere in src: {part}"


def test_what_is_said_is_on_the_page():
    missing = []
    for text in SOURCE:
        if not re.match(rf"-?(?:{WORDS}) ", text) or any(known in text for known in REDIS):
            continue
        longest = max(fragments(text), key=len).lstrip("-").strip(" ;,:")
        longest = re.sub(rf"^(?:{WORDS}) ", "", longest)
        if len(longest) > 4 and longest not in PAGE:
            missing.append(text)
    assert missing == []
