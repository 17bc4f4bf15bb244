"""Regular expressions for errors of slotway's own, by their names in the table in src/errors, so that
a test does not repeat their texts."""

import re

from servers import REPOSITORY

STRINGS = r'(?:\+?\s*"(?:[^"\\]|\\.)*"\s*)+'
ENTRY = re.compile(rf"^\s+(\w+)(?: {{[^}}\n]*}})?\s*=> (\(?)(\w+)\)? ({STRINGS});$", re.M)


def entries():
    """Each error's name, with its code (None: it depends on the command) and its template."""
    table = (REPOSITORY / "src/errors/table/mod.rs").read_text()
    for name, varies, code, strings in ENTRY.findall(table):
        template = "".join(re.findall(r'"((?:[^"\\]|\\.)*)"', strings)).replace('\\"', '"')
        yield name, (None if varies else code.upper(), template)


TABLE = dict(entries())


def statement(name, **fields):
    """The text behind the code; fields that are not given may be anything."""
    parts = re.split(r"\{(\w+)[^}]*\}", TABLE[name][1])
    texts = [re.escape(text) for text in parts[::2]]
    values = [fields.get(field, ".*?") for field in parts[1::2]]
    return texts[0] + "".join(value + text for value, text in zip(values, texts[1:]))


def pattern(name, code=None, **fields):
    """The whole text."""
    code = code or TABLE[name][0] or "[A-Z]+"
    return f"{code} {statement(name, **fields)}"


def frame(name, code=None, **fields):
    """The error as a reply."""
    return f"-{pattern(name, code, **fields)}\r\n".encode()
