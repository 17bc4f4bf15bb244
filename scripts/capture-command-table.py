#!/usr/bin/env python3
"""Captures the COMMAND reply of a real redis-server for src/command (RESP2, as it is on the wire).

    scripts/capture-command-table.py [--server PATH] [--besides FILE] [--out DIR]

Starts the server on a free port with nothing but its defaults, asks HELLO and COMMAND, and
writes DIR/<redis or valkey>-<version>.resp; with --besides only the commands and subcommands that
FILE, an earlier capture, does not have. A server lists its commands in the order of a randomly seeded
hash table, so the commands (and their subcommands) are sorted by name: the same server always
gives the same file.
"""
import argparse
import pathlib
import socket
import subprocess
import tempfile
import time

SUBCOMMANDS = 9  # index in a command's entry


class Reader:
    """Reads one RESP2 reply, keeping each value as (raw bytes, children)."""

    def __init__(self, stream):
        self.stream = stream

    def value(self):
        line = self.stream.readline()
        kind, rest = line[:1], line[1:-2]
        if kind == b"*":
            return line, [self.value() for _ in range(max(int(rest), 0))]
        if kind == b"$" and int(rest) >= 0:
            return line + self.stream.read(int(rest) + 2), []
        if kind == b"-":
            raise SystemExit(f"the server says {rest.decode()}")
        return line, []


def text(value):
    return value[0].split(b"\r\n")[1].decode()


def dump(value):
    return value[0] + b"".join(dump(child) for child in value[1])


def sort(commands):
    commands.sort(key=lambda entry: text(entry[1][0]))
    for entry in commands:
        if len(entry[1]) > SUBCOMMANDS:
            sort(entry[1][SUBCOMMANDS][1])


def without(commands, others):
    """The entries of commands that others lacks; of one that both have its further subcommands."""
    known = {text(entry[1][0]): entry for entry in others}
    rest = []
    for entry in commands:
        other = known.get(text(entry[1][0]))
        if other is None:
            rest.append(entry)
        elif len(entry[1]) > SUBCOMMANDS:
            fields = entry[1]
            more = without(fields[SUBCOMMANDS][1], other[1][SUBCOMMANDS][1])
            if more:
                fields[SUBCOMMANDS] = (b"*%d\r\n" % len(more), more)
                rest.append(entry)
    return rest


def connect(port, deadline):
    while True:
        try:
            return socket.create_connection(("127.0.0.1", port))
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


def main():
    here = pathlib.Path(__file__).resolve().parent
    args = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    args.add_argument("--server", default="redis-server")
    args.add_argument("--besides", type=pathlib.Path)
    args.add_argument("--out", type=pathlib.Path, default=here.parent / "src" / "command")
    args = args.parse_args()

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        server = subprocess.Popen(
            [args.server, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", folder],
            stdout=subprocess.DEVNULL,
        )
        try:
            with connect(port, time.monotonic() + 10) as sock:
                stream = sock.makefile("rb")
                sock.sendall(b"HELLO 2\r\n")
                hello = [text(v) for v in Reader(stream).value()[1] if v[0][:1] == b"$"]
                name, version = (hello[hello.index(key) + 1] for key in ("server", "version"))
                sock.sendall(b"COMMAND\r\n")
                reply = Reader(stream).value()
        finally:
            server.terminate()
            server.wait()
    sort(reply[1])
    if args.besides:
        with open(args.besides, "rb") as file:
            rest = without(reply[1], Reader(file).value()[1])
        reply = (b"*%d\r\n" % len(rest), rest)
    path = args.out / f"{name}-{version}.resp"
    path.write_bytes(dump(reply))
    print(f"{path}: {len(reply[1])} commands")


if __name__ == "__main__":
    main()
