"""Errors stand in one table, src/errors; docs/operations.md, *Troubleshooting*, has what slotway says
in other places as it is in the source."""

import re

import pytest

from servers import REPOSITORY

# in a table a bar is written with a backslash
PAGE = (REPOSITORY / "docs/operations.md").read_text().replace("\\|", "|")
WORDS = "CLUSTERDOWN|CROSSSLOT|DENIED|ERR|EXECABORT|NOAUTH|NOPERM|NOPROTO|NOSCRIPT|OOM|OUTCOMEUNKNOWN|TRYAGAIN|UNBLOCKED|WRONGPASS|WRONGTYPE"
# What is read in nodes' replies, or said in the words of a node's own command: no error of slotway's.
NODES = {
    "src/placement/refusal.rs", "src/upstream/handshake.rs", "src/node_scripts/scripts.rs", "src/delivery/dedicated.rs",
    "src/control/verify.rs", "src/users/reverify.rs", "src/emulate/talk.rs", "src/emulate/reply.rs",
    "src/emulate/streams.rs", "src/pubsub/book/replies.rs", "src/route/exec.rs", "src/engine/deadlines.rs",
}  # fmt: skip


def literals():
    """Every string of the source, continued lines joined, with its file."""
    for file in sorted((REPOSITORY / "src").rglob("*.rs")):
        if "tests" in file.stem or "tests" in file.parts or "sandbox" in file.parts:
            continue
        text = file.read_text().split("#[cfg(test)]\nmod tests {")[0]
        text = re.sub(r"^\s*//.*$", "", text, flags=re.M)
        for match in re.finditer(r'"((?:[^"\\]|\\.)*)"', text, flags=re.S):
            joined = re.sub(r"\\\n\s*", "", match[1]).replace("\\r\\n", "").replace('\\"', '"')
            yield str(file.relative_to(REPOSITORY)), joined.replace("{{", "\0").replace("}}", "\1")


def fragments(text):
    """What of it stays the same."""
    parts = re.split(r"\{[^}]*\}|…", text)
    return [p.replace("\0", "{").replace("\1", "}").strip() for p in parts]


SOURCE = list(literals())
EVERYTHING = "\n".join(" … ".join(fragments(text)) for _, text in SOURCE)


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


def test_errors_stand_in_the_table_only():
    elsewhere = [
        (file, text)
        for file, text in SOURCE
        if re.match(rf"-?(?:{WORDS}) ", text) and not file.startswith("src/errors/") and file not in NODES
    ]
    assert elsewhere == []
