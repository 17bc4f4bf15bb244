"""From the single measurements to the table, the CSV files and the verdicts."""

import csv
import json
import os
import platform
from pathlib import Path
from statistics import median

from proxies import ALL, LABEL

BASE = "nutcracker"
IDLE_WANTED = 1024
SCALING_WANTED = 1.8
#: With two workers, a load generator and three servers, fewer cores only share.
SCALING_CORES = 6


def summarize(runs: list, workloads: list) -> list:
    """One row per workload and proxy: the median over the rounds of each figure and of
    the figure's ratio to nutcracker's in the same round."""
    rows = []
    for work in workloads:
        here = [r for r in runs if r["workload"] == work.name]
        base = {r["round"]: r for r in here if r["proxy"] == BASE}
        for name in ALL:
            mine = [r for r in here if r["proxy"] == name]
            if not mine:
                continue
            row = {"workload": work.name, "proxy": name, "rounds": len(mine)}
            for key in ("cpu_us", "user_us", "system_us", "rps", "p50_ms", "p99_ms", "rss"):
                values = [r[key] for r in mine if key in r]
                row[key] = median(values) if values else None
            cpu = [r["cpu_us"] for r in mine if "cpu_us" in r]
            row["cpu_us_min"], row["cpu_us_max"] = (min(cpu), max(cpu)) if cpu else (None, None)
            for key, into in (("cpu_us", "cpu_ratio"), ("rps", "rps_ratio")):
                ratios = [r[key] / base[r["round"]][key] for r in mine if key in r and r["round"] in base]
                row[into] = median(ratios) if ratios else None
            rows.append(row)
    return rows


def verdicts(runs: list, rows: list, workloads: list) -> list:
    """What issue 2 wants of slotway, row by row. Rounded to two places before comparing:
    the third is noise."""
    found = []
    for work in workloads:
        mine = {r["round"]: r for r in runs if r["workload"] == work.name and r["proxy"] == "slotway"}
        if not mine:
            continue
        ratio = next((r["cpu_ratio"] for r in rows if r["workload"] == work.name and r["proxy"] == "slotway"), None)
        if ratio is not None:
            found.append({
                "workload": work.name, "what": "CPU per command / nutcracker's", "value": round(ratio, 2),
                "wanted": f"<= {work.wanted:.2f}", "pass": round(ratio, 2) <= work.wanted,
            })
        for peer in ALL[1:]:
            # Copying bytes without looking at them, and not being there at all, cannot be
            # caught up with when pipelined; no proxy is as fast as none.
            excused = peer == "none" or (peer == "haproxy" and work.pipeline > 1)
            theirs = {r["round"]: r for r in runs if r["workload"] == work.name and r["proxy"] == peer}
            ratios = [mine[n]["rps"] / theirs[n]["rps"] for n in mine if n in theirs]
            if ratios:
                value = round(median(ratios), 2)
                found.append({
                    "workload": work.name, "what": f"commands/s / {LABEL[peer]}'s" if peer != "none" else "commands/s / without a proxy",
                    "value": value, "wanted": "" if excused else ">= 1.00", "pass": None if excused else value >= 1.0,
                })
    return found


def mark(passed) -> str:
    return {True: "pass", False: "MISS", None: ""}[passed]


def _num(value, digits=None) -> str:
    if value is None:
        return "-"
    if digits is None:
        digits = 2 if value < 100 else 1
    return f"{value:,.{digits}f}"


def table(rows: list, found: list, workloads: list, failures: dict) -> str:
    lines = []
    head = f"  {'':<16}{'CPU us/cmd':>11}{'min..max':>16}{'/nutcracker':>12}{'commands/s':>13}{'p50 ms':>9}{'p99 ms':>9}{'RSS MiB':>9}"
    for work in workloads:
        lines += ["", f"{work.label}  (wanted of slotway: CPU <= {work.wanted:.2f} of nutcracker's)", head]
        for row in (r for r in rows if r["workload"] == work.name):
            spread = f"{_num(row['cpu_us_min'])}..{_num(row['cpu_us_max'])}" if row["cpu_us"] is not None else "-"
            lines.append(
                f"  {LABEL[row['proxy']]:<16}{_num(row['cpu_us']):>11}{spread:>16}{_num(row['cpu_ratio']):>12}"
                f"{_num(row['rps'], 0):>13}{_num(row['p50_ms'], 3):>9}{_num(row['p99_ms'], 3):>9}"
                f"{_num(row['rss'] / 2**20 if row['rss'] else None, 1):>9}"
            )
        for (workload, name), why in failures.items():
            if workload == work.name:
                lines.append(f"  {LABEL[name]:<16} failed: {why}")
        for f in (f for f in found if f["workload"] == work.name):
            lines.append(f"    {f['what']:<36}{f['value']:>6.2f}  {f['wanted']:<8} {mark(f['pass'])}".rstrip())
    return "\n".join(lines[1:])


def write_csv(path: Path, rows: list):
    names = list(dict.fromkeys(k for row in rows for k in row))
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, names)
        writer.writeheader()
        for row in rows:
            writer.writerow({k: round(v, 4) if isinstance(v, float) else v for k, v in row.items()})


def write(out: Path, runs: list, rows: list, extras: dict, found: list, env: dict, picture: str):
    out.mkdir(parents=True, exist_ok=True)
    write_csv(out / "results.csv", rows)
    write_csv(out / "runs.csv", runs)
    everything = {"environment": env, "results": rows, "wanted": found, "extras": extras}
    (out / "results.json").write_text(json.dumps(everything, indent=1) + "\n")
    (out / "environment.txt").write_text("".join(f"{k}: {v}\n" for k, v in env.items()))
    (out / "results.svg").write_text(picture)
    return everything


def disturbance(runs: list) -> dict:
    """How much of the machine others took while this measured; figures from a busy
    machine are to be thrown away."""
    found = {}
    for key, name in (("other", "taken by other processes"), ("stolen", "stolen by other guests")):
        values = [r[key] for r in runs if key in r]
        if values:
            found[name] = f"{median(values):.1%} of the CPU (worst measurement {max(values):.1%})"
    return found


def environment() -> dict:
    def first(path, start):
        for line in Path(path).read_text().splitlines():
            if line.startswith(start):
                return line.split(":", 1)[1].strip()
        return "unknown"

    system = "unknown"
    if Path("/etc/os-release").exists():
        system = next((ln.split("=", 1)[1].strip('"') for ln in Path("/etc/os-release").read_text().splitlines()
                       if ln.startswith("PRETTY_NAME=")), system)
    return {
        "CPU": first("/proc/cpuinfo", "model name"),
        "cores": len(os.sched_getaffinity(0)),
        "memory": f"{int(first('/proc/meminfo', 'MemTotal').split()[0]) / 2**20:.0f} GiB",
        "kernel": platform.release(),
        "system": system,
        "hypervisor": "yes" if " hypervisor" in Path("/proc/cpuinfo").read_text() else "no",
    }
