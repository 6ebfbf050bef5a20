"""The demo's report: one HTML file that holds its pictures and asks nothing of the network.

Charts are drawn here as SVG; pictures become PNG and GIF (Pillow) in base64.
"""

from __future__ import annotations

import base64
import math
from dataclasses import dataclass, field
from html import escape
from typing import Any

import numpy as np

from probegym.agents.images import png
from probegym.agents.stories import Portrait, Story


@dataclass
class Row:
    """One line of the comparison. summary: of evaluate.Results; None with the reason in ``note``."""

    agent: str
    kind: str  # live, shipped, script, bound
    scenario: str
    summary: dict[str, Any] | None
    seconds: float = 0.0  # that the evaluation took
    note: str = ""


@dataclass
class Curve:
    """Learning curve: (update, loss) and (update, success rate) pairs."""

    loss: list[tuple[int, float]] = field(default_factory=list)
    success: list[tuple[int, float]] = field(default_factory=list)


@dataclass
class Report:
    """Everything that the page shows. timings: stage -> s. facts: label -> text."""

    title: str
    rows: list[Row]
    curve: Curve
    stories: list[Story]
    timings: dict[str, float]
    facts: dict[str, str]
    animation: bytes = b""


# ---- pictures ----


def embedded(content: bytes, kind: str) -> str:
    """A data URI."""
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


# ---- charts ----


def ticks(values: list[float]) -> np.ndarray:
    """Three to seven round numbers (n,) that enclose the values, in their unit."""
    span = max(max(values) - min(values), 1e-9)
    step = next(s for s in 10.0 ** math.floor(math.log10(span)) * np.array([0.5, 1, 2]) if span / s <= 5)
    first = math.floor(min(values) / step)
    return np.arange(first, max(math.ceil(max(values) / step), first + 1) + 1) * step


def chart(points: list[tuple[int, float]], title: str, marks: np.ndarray, percent: bool = False) -> str:
    """A line of points as SVG; ``marks``: (n,) ticks of the y axis. percent: whether y is a share. Few points are drawn as dots too."""
    width, height, left, bottom, top, right = 440, 240, 48, 44, 30, 14
    last, low, high = max(x for x, _ in points), marks[0], marks[-1]

    def at(x: float, y: float) -> tuple[float, float]:
        return left + (width - left - right) * x / last, top + (height - top - bottom) * (1 - (y - low) / (high - low))

    parts = [f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{escape(title)}">']
    parts.append(f'<text class="t" x="{left}" y="16">{escape(title)}</text>')
    for tick in marks:
        y = at(0, tick)[1]
        label = f"{tick:.0%}" if percent else f"{tick:.3g}"
        parts.append(f'<line class="g" x1="{left}" x2="{width - right}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text class="k" x="{left - 7}" y="{y + 4:.1f}" text-anchor="end">{label}</text>')
    for tick in np.linspace(0, last, 4):
        x = at(tick, low)[0]
        parts.append(f'<text class="k" x="{x:.1f}" y="{height - 25}" text-anchor="middle">{tick:.0f}</text>')
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in (at(*point) for point in points))
    parts.append(f'<polyline class="l" points="{line}"/>')
    if len(points) <= 20:
        parts += [f'<circle class="d" cx="{x:.1f}" cy="{y:.1f}" r="4"/>' for x, y in (at(*point) for point in points)]
    parts.append(f'<text class="k" x="{width - right}" y="{height - 6}" text-anchor="end">gradient steps</text></svg>')
    return "".join(parts)


def interval_bar(rate: float, low: float, high: float) -> str:
    """A success rate with its interval as a small SVG."""
    return (
        f'<svg class="bar" viewBox="0 0 120 14" role="img" aria-label="{rate:.0%}, interval {low:.0%} to {high:.0%}">'
        '<rect class="trough" x="0" y="3" width="120" height="8" rx="4"/>'
        f'<rect class="fill" x="0" y="3" width="{120 * rate:.1f}" height="8" rx="4"/>'
        f'<line class="w" x1="{120 * low:.1f}" x2="{120 * high:.1f}" y1="7" y2="7"/></svg>'
    )


# ---- the page ----

_STYLE = """
:root{color-scheme:light dark;--bg:#f6f7f9;--card:#fff;--ink:#16191f;--soft:#5b6472;--line:#e1e5eb;--accent:#0b7a75;--fill:#2aa198}
@media(prefers-color-scheme:dark){:root{--bg:#101318;--card:#181c23;--ink:#e8ebf0;--soft:#98a2b3;--line:#2a303a;--accent:#54c7bd;--fill:#2f9c93}}
*{box-sizing:border-box}
body{margin:0;background:var(--bg);color:var(--ink);font:16px/1.55 system-ui,-apple-system,"Segoe UI",Roboto,Ubuntu,sans-serif}
main{max-width:1080px;margin:0 auto;padding:40px 20px 72px}
h1{font-size:2rem;line-height:1.2;margin:0 0 6px;letter-spacing:-.02em}
h2{font-size:1.25rem;margin:44px 0 10px}h3{font-size:1rem;margin:0}
p{margin:8px 0;max-width:84ch}.lead{color:var(--soft);font-size:1.08rem}
.cards{display:grid;grid-template-columns:repeat(auto-fit,minmax(190px,1fr));gap:14px;margin:24px 0}
.card,.box{background:var(--card);border:1px solid var(--line);border-radius:12px;padding:16px 18px}
.card b{display:block;font-size:1.7rem;line-height:1.2;color:var(--accent);font-variant-numeric:tabular-nums}
.card span{color:var(--soft);font-size:.9rem}
.wide{width:100%;height:auto;border-radius:10px;display:block}
.scroll{overflow-x:auto}table{border-collapse:collapse;width:100%;min-width:680px;font-size:.92rem}
th{text-align:left;color:var(--soft);font-weight:600;border-bottom:1px solid var(--line);padding:8px 10px;vertical-align:bottom}
td{padding:8px 10px;border-bottom:1px solid var(--line);vertical-align:top;font-variant-numeric:tabular-nums}
th.group{padding-top:22px;color:var(--ink);font-weight:500}
td.n,th.n{text-align:right;white-space:nowrap}tr:last-child td{border-bottom:0}
tr.live td:first-child,tr.shipped td:first-child{border-left:3px solid var(--accent)}
td small,.soft{color:var(--soft);font-size:.84rem}td small{display:block}
.rate{display:flex;gap:10px;align-items:center}.rate b{font-weight:600}
.bar{width:120px;height:14px;flex:none}.trough{fill:var(--line)}.fill{fill:var(--fill)}.w{stroke:var(--ink);stroke-width:1.6}
.two{display:grid;grid-template-columns:repeat(auto-fit,minmax(300px,1fr));gap:14px}
svg{max-width:100%;height:auto}.t{fill:var(--ink);font:600 13px system-ui,sans-serif}
.k{fill:var(--soft);font:11px system-ui,sans-serif}.g{stroke:var(--line)}
.l{fill:none;stroke:var(--accent);stroke-width:2;stroke-linejoin:round}.d{fill:var(--accent)}
.strip{display:grid;grid-template-columns:64px repeat(3,1fr);gap:10px;align-items:center;margin-top:12px}
.strip img{width:100%;border-radius:8px;display:block;background:#121418}
.cap{font-size:.8rem;color:var(--soft);text-align:center;align-self:start}.tag{font-size:.86rem}.tag b{display:block;font-size:1.15rem}
.seen{display:flex;gap:16px;flex-wrap:wrap;margin-top:14px}.seen figure{margin:0}
.seen img{height:116px;max-width:100%;border-radius:8px;display:block}figcaption{font-size:.8rem;color:var(--soft);margin-top:4px}
.story{margin-bottom:18px}
code{font:.88em ui-monospace,SFMono-Regular,Menlo,Consolas,monospace}
pre{background:var(--card);border:1px solid var(--line);border-radius:10px;padding:14px 16px;overflow-x:auto;margin:10px 0}
dl{display:grid;grid-template-columns:max-content 1fr;gap:4px 18px;margin:0;font-size:.92rem}dt{color:var(--soft)}dd{margin:0}
@media(max-width:560px){.strip{grid-template-columns:repeat(3,1fr)}.strip .tag{grid-column:1/-1}.strip>span{display:none}}
"""

_COMMANDS = """probegym list
probegym show StemTuning
probegym train StemTuning --scenario train --out runs/mine
probegym evaluate --agent runs/mine/policy --scenario far-specimen
probegym play StemTuning"""


def page(report: Report) -> str:
    """The whole document."""
    sections = [
        f"<h1>{escape(report.title)}</h1>",
        '<p class="lead">An agent learned to correct the aberrations of a simulated scanning transmission electron microscope '
        "while you waited. Below: what it does to the image, how it learned, and how it compares with the shipped policies and with "
        "what practitioners use.</p>",
        _cards(report),
        _animation(report),
        _stories(report.stories),
        _curves(report.curve),
        _comparison(report.rows),
        f"<h2>Go on from here</h2><pre><code>{escape(_COMMANDS)}</code></pre>",
        _facts(report),
    ]
    body = "\n".join(section for section in sections if section)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{escape(report.title)}</title><style>{_STYLE}</style></head><body><main>\n{body}\n</main></body></html>\n"
    )


def _number(value: float, digits: int = 3) -> str:
    if value is None or not math.isfinite(value):
        return "\u2013"
    if abs(value) >= 1e5:
        mantissa, exponent = f"{value:.1e}".split("e")
        return f"{mantissa}\u00b710<sup>{int(exponent)}</sup>"
    return f"{value:,.0f}" if abs(value) >= 100 or value == round(value) else f"{value:.{digits}g}"


def _rate(share: float) -> str:
    return f"{share:.1%}".replace(".0%", "%")


def _cards(report: Report) -> str:
    live = next((row for row in report.rows if row.kind == "live"), None)
    cards = [(f"{report.timings.get('training', 0):.0f} s", "of training on this machine")]
    if live and live.summary:
        s = live.summary
        cards.append((_rate(s["success"]), f"of {s['episodes']} unseen columns tuned by the agent trained just now"))
        cards.append((_number(s["measurements_to_goal"]), "images to the goal (median)"))
    scripts = [(row.agent, row.summary) for row in report.rows if row.kind == "script" and row.summary]
    if scripts:
        name, s = max(scripts, key=lambda script: script[1]["success"])
        cards.append((_number(s["measurements_mean"]), f"images in an episode of the best script, {escape(name)}, for {_rate(s['success'])}"))
    body = "".join(f'<div class="card"><b>{value}</b><span>{label}</span></div>' for value, label in cards)
    return f'<div class="cards">{body}</div>'


def _animation(report: Report) -> str:
    if not report.animation or not report.stories:
        return ""
    story = report.stories[0]
    return (
        f'<h2>One episode of {escape(story.agent)}</h2><div class="box"><img class="wide" alt="animation of an episode" '
        f'src="{embedded(report.animation, "gif")}"></div><p class="soft">Scenario <code>{escape(story.scenario)}</code>, seed {story.seed}: '
        "frames the agent sees, the wavefront and the aberrations it does not see, and what the episode has cost. "
        "Goal: a Strehl ratio of at least 0.8, declared by the agent itself.</p>"
    )


def _curves(curve: Curve) -> str:
    if not curve.loss:
        return ""
    marks = ticks([value for _, value in curve.loss])
    charts = f'<div class="box">{chart(curve.loss, "negative log likelihood", marks)}</div>'
    if curve.success:
        charts += f'<div class="box">{chart(curve.success, "success on unseen columns", np.linspace(0, 1, 5), percent=True)}</div>'
    return (
        f'<h2>Learning curve</h2><div class="two">{charts}</div><p class="soft">The student learns to read mean and uncertainty of every '
        "aberration from what a privileged teacher knows; a Kalman filter around it decides what to correct and when to stop.</p>"
    )


_SCENARIOS = {
    "id": "Ronchigrams of films that training never showed",
    "haadf-id": "HAADF images of Au particles that training never showed",
    "beacon": "256\u00d7256 HAADF images in focus, for procedures that maximise sharpness",
}


def _comparison(rows: list[Row]) -> str:
    head = (
        "<tr><th>agent</th><th>success, 95 % interval</th><th class=n>images<br>to goal</th><th class=n>seconds<br>to goal</th>"
        "<th class=n>dose to goal<br>e/\u00c5\u00b2</th><th class=n>Strehl<br>at end</th></tr>"
    )
    parts = [f'<h2>Comparison on unseen seeds</h2><div class="box scroll"><table>{head}']
    for scenario in dict.fromkeys(row.scenario for row in rows):
        told = _SCENARIOS.get(scenario, "")
        parts.append(f'<tr><th colspan=6 class="group"><code>{escape(scenario)}</code> \u00b7 {told}</th></tr>')
        parts += [_line(row) for row in rows if row.scenario == scenario]
    parts.append("</table></div>")
    parts.append(
        '<p class="soft">Success: Wilson interval. Images, seconds and dose: median of the episodes that reached the goal with its '
        "bootstrap interval (\u2013 where none did). Strehl: median of all episodes. The oracle sees the hidden state; no policy does.</p>"
    )
    return "".join(parts)


def _line(row: Row) -> str:
    note = f"<small>{escape(row.note)}</small>" if row.note else ""
    name = f"<b>{escape(row.agent)}</b>{note}"
    if row.summary is None:
        return f'<tr class="{row.kind}"><td>{name}</td><td colspan=5>not measured</td></tr>'
    s = row.summary
    low, high = s["success_interval"]
    rate = f"<div class=rate>{interval_bar(s['success'], low, high)}<b>{_rate(s['success'])}</b></div>"
    cells = [f"{rate}<small>{low:.0%} to {high:.0%}, n = {s['episodes']}</small>"]
    for cost in ("measurements", "time", "dose"):
        first, last = s[f"{cost}_to_goal_interval"]
        spread = f"<small>{_number(first)} to {_number(last)}</small>" if math.isfinite(first) and first != last else ""
        cells.append(f"{_number(s[f'{cost}_to_goal'], 2)}{spread}")
    cells.append(f"{s['strehl_median']:.2f}" if "strehl_median" in s else "\u2013")
    numbers = "".join(f"<td class=n>{cell}</td>" for cell in cells[1:])
    return f'<tr class="{row.kind}"><td>{name}</td><td>{cells[0]}</td>{numbers}</tr>'


def _stories(stories: list[Story]) -> str:
    return "<h2>Before and after</h2>" + "".join(map(_story, stories)) if stories else ""


def _story(story: Story) -> str:
    outcome = "reached the goal" if story.success else "did not reach the goal"
    before, after = story.portraits
    seen = "".join(_figure(list(p.pictures)[-1], list(p.pictures.values())[-1]) for p in story.portraits)
    captions = "".join(f'<div class="cap">{escape(title)}</div>' for title in list(before.pictures)[:3])
    return (
        f'<div class="box story"><h3>{escape(story.agent)} {outcome} with {story.images} images in {story.seconds:.1f} s and '
        f"{_number(story.dose)} e/\u00c5\u00b2</h3>"
        f"<div class=strip>{_strip('before', before)}{_strip('after', after)}<span></span>{captions}</div>"
        f'<div class="seen">{seen}</div></div>'
    )


def _strip(word: str, portrait: Portrait) -> str:
    shown = list(portrait.pictures.items())[:3]
    images = "".join(f'<img alt="{escape(title)}, {word}" src="{embedded(png(rgb, 256), "png")}">' for title, rgb in shown)
    return f'<div class="tag">{word}<b>{portrait.strehl:.2f}</b><span class="soft">Strehl</span></div>{images}'


def _figure(title: str, rgb: np.ndarray) -> str:
    return f'<figure><img alt="{escape(title)}" src="{embedded(png(rgb, 192), "png")}"><figcaption>{escape(title)}</figcaption></figure>'


def _facts(report: Report) -> str:
    facts = dict(report.facts) | {"time": ", ".join(f"{stage} {seconds:.0f} s" for stage, seconds in report.timings.items())}
    items = "".join(f"<dt>{escape(label)}</dt><dd>{escape(text)}</dd>" for label, text in facts.items())
    return f'<h2>How this was made</h2><div class="box"><dl>{items}</dl></div>'
