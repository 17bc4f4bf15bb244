"""The plots: CPU per command, one panel of bars per workload, each on its own scale."""

from dataclasses import dataclass
from xml.sax.saxutils import escape

from proxies import LABEL


@dataclass(frozen=True)
class Look:
    """What is drawn, if it is not the proxies."""

    title: str
    #: Name -> colour and name -> label, in the order of the bars.
    colour: dict
    label: dict
    #: Whose figures the others' are related to.
    base: str
    #: Lines below the picture.
    about: tuple


_PROXIES = Look(
    "CPU per command of Redis proxies, one worker each (µs, lower is better)",
    {"slotway": "#1b6ac9", "nutcracker": "#e08a2e", "envoy": "#9b6bc3", "haproxy": "#9aa4ae"},
    LABEL,
    "nutcracker",
    (
        "User and system time of the proxy, median over the rounds; ×: relative to nutcracker in the same round. "
        "Each panel has its own scale.",
        "slotway and Envoy stand before a Redis Cluster, nutcracker before three standalone servers; HAProxy copies "
        "bytes to one and looks at none.",
    ),
)
_INK, _SOFT, _GRID = "#24292f", "#667079", "#e3e7eb"
_COLUMNS, _PANEL_W, _PANEL_H = 4, 262, 236
_LEFT, _TOP, _GAP_X, _GAP_Y = 36, 96, 22, 26


def draw(rows: list, workloads: list, env: dict, when: str, look: Look = _PROXIES) -> str:
    shown = [w for w in workloads if any(r["workload"] == w.name and r["cpu_us"] for r in rows)]
    names = [n for n in look.colour if any(r["proxy"] == n and r["cpu_us"] for r in rows)]
    lines = -(-max(1, len(shown)) // _COLUMNS)
    width = 2 * _LEFT + _COLUMNS * _PANEL_W + (_COLUMNS - 1) * _GAP_X
    height = _TOP + lines * (_PANEL_H + _GAP_Y) + 28
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" '
        f'font-family="-apple-system, Segoe UI, Helvetica, Arial, sans-serif" font-size="12" fill="{_INK}">',
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
        f'<text x="{_LEFT}" y="34" font-size="19" font-weight="600">{escape(look.title)}</text>',
    ]
    x = _LEFT
    for name in names:
        out.append(f'<rect x="{x}" y="51" width="12" height="12" rx="2" fill="{look.colour[name]}"/>')
        out.append(f'<text x="{x + 18}" y="61">{escape(look.label[name])}</text>')
        x += 18 + 8 * len(look.label[name]) + 22
    if look.base in names:
        out.append(f'<line x1="{x}" y1="57" x2="{x + 22}" y2="57" stroke="#c62828" stroke-width="1.5" stroke-dasharray="4 3"/>')
        out.append(f'<text x="{x + 28}" y="61">at most this is wanted of slotway</text>')
    for i, work in enumerate(shown):
        left = _LEFT + (i % _COLUMNS) * (_PANEL_W + _GAP_X)
        top = _TOP + (i // _COLUMNS) * (_PANEL_H + _GAP_Y)
        out += _panel(left, top, work, {r["proxy"]: r for r in rows if r["workload"] == work.name}, names, look)
    machine = f"{env.get('CPU', '')}, {env.get('cores', '')} cores, Linux {str(env.get('kernel', '')).split('-')[0]}, {when}."
    for i, line in enumerate((*look.about[:-1], f"{look.about[-1]} {machine}")):
        out.append(f'<text x="{_LEFT}" y="{height - 32 + 16 * i}" font-size="11" fill="{_SOFT}">{escape(line)}</text>')
    return "\n".join(out + ["</svg>"]) + "\n"


def _nice(value: float) -> float:
    """The next round number for the top of an axis."""
    step = 10.0 ** len(str(int(value))) / 10 if value >= 1 else 0.1
    for factor in (1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10):
        if value <= step * factor:
            return step * factor
    return value


def _text(value: float) -> str:
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _panel(left, top, work, by_name, names, look) -> list:
    body_top, body = top + 26, _PANEL_H - 52
    bottom = body_top + body
    base = by_name.get(look.base)
    wanted = base["cpu_us"] * work.wanted if base else None
    highest = max([r["cpu_us"] for r in by_name.values() if r["cpu_us"]] + [wanted or 0])
    limit = _nice(highest * 1.08)
    out = [f'<text x="{left}" y="{top + 8}" font-size="13" font-weight="600">{escape(work.label)}</text>']
    for part in range(5):
        y = bottom - body * part / 4
        out.append(f'<line x1="{left + 30}" y1="{y:.1f}" x2="{left + _PANEL_W}" y2="{y:.1f}" stroke="{_INK if part == 0 else _GRID}"/>')
        tick = f"{limit * part / 4:.3g}"
        out.append(f'<text x="{left + 25}" y="{y + 4:.1f}" font-size="10" fill="{_SOFT}" text-anchor="end">{tick}</text>')
    pitch = (_PANEL_W - 40) / max(1, len(names))
    bar = min(44, pitch * 0.72)
    labels = []
    for i, name in enumerate(names):
        row = by_name.get(name)
        middle = left + 35 + pitch * (i + 0.5)
        value = row["cpu_us"] if row else None
        if value is None:
            out.append(f'<text x="{middle:.1f}" y="{bottom - 5}" font-size="10" fill="{_SOFT}" text-anchor="middle">failed</text>')
            continue
        high = body * value / limit
        out.append(f'<rect x="{middle - bar / 2:.1f}" y="{bottom - high:.1f}" width="{bar:.1f}" height="{high:.1f}" rx="2" fill="{look.colour[name]}"/>')
        weight = ' font-weight="600"' if name == "slotway" else ""
        # Twice, because not every viewer knows paint-order: a white edge, then the figure.
        for edge in (' stroke="#ffffff" stroke-width="4" stroke-linejoin="round"', ""):
            labels.append(f'<text x="{middle:.1f}" y="{bottom - high - 5:.1f}" font-size="11"{weight} '
                          f'text-anchor="middle"{edge}>{_text(value)}</text>')
        if row["cpu_ratio"] is not None and name != look.base:
            out.append(f'<text x="{middle:.1f}" y="{bottom + 15}" font-size="10" fill="{_SOFT}" text-anchor="middle">×{row["cpu_ratio"]:.2f}</text>')
    if wanted:
        y = bottom - body * wanted / limit
        out.append(f'<line x1="{left + 30}" y1="{y:.1f}" x2="{left + _PANEL_W}" y2="{y:.1f}" stroke="#c62828" '
                   'stroke-width="1.3" stroke-dasharray="4 3"/>')
    out += labels
    if base:
        at = left + 35 + pitch * (names.index(look.base) + 0.5)
        out.append(f'<text x="{at:.1f}" y="{bottom + 15}" font-size="10" fill="{_SOFT}" text-anchor="middle">×1</text>')
    return out
