"""The ledger: every claim beside what the records say of it, as a table, as a page on one claim, and in the README."""
from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from math import isfinite
from pathlib import Path
from statistics import mean, stdev

import pandas as pd

from .evidence import VERDICTS, Between, Claim, Collapses, Lower, Near, Number, Verdict, claims, judge, values
from .memory import whole_file
from .recipe import SCALES
from .records import Record, Shelf, read_shelf

__all__ = ["verdicts", "numbers", "conditions", "provenance", "page", "write_results"]

NUMBERS = ("loss", "std", "AUC", "rank", "kNN", "linear", "untrained kNN")
FAMILIES = {"simsiam": "SimSiam", "zhang": "Its centre and its residual", "byol": "BYOL", "moco_v3": "MoCo v3, and ViTs",
            "relatives": "DirectPred, SimCLR, MoCo, SwAV, DINO", "parts": "The map of parts",
            "collapse": "Partial collapse, and the order of the images"}       # {what a claim's name begins with: title}
MARKS = ("<!-- results: made by `simsiam-explained claims --readme README.md` -->\n", "<!-- end results -->")


def verdicts(ids: Iterable[str] = (), shelf: Shelf | None = None, scales: Iterable[str] = SCALES) -> pd.DataFrame:
    """Return a row for each claim: its sentence, the paper's number and where it stands, the verdict at each scale."""
    shelf, rows = read_shelf() if shelf is None else shelf, {}
    for claim in claims(ids).values():
        rows[claim.id] = {"claim": claim.sentence, "source": claim.source, "paper": claim.paper}
        for scale in scales:
            asked = claim.test or claim.recipes(scale)
            rows[claim.id][scale] = str(judge(claim, shelf, scale)) if asked or not claim.arms else "–"
    return pd.DataFrame.from_dict(rows, orient="index")


def numbers(verdict: Verdict, measures: Iterable[str] = NUMBERS) -> pd.DataFrame:
    """Return the figures behind a verdict: a row for each arm and seed, one column for each measure."""
    rows = {(arm, seed): {m: row.get(m) for m in measures} | {"status": row["status"]}
            for arm, of in (verdict.rows or {}).items() for seed, row in zip(verdict.seeds, of)}
    return pd.DataFrame.from_dict(rows, orient="index", columns=[*measures, "status"])


def _figure(value: float) -> str:
    return f"{value:.{3 if abs(value) < 2 else 1}f}".replace("-", "−")


def _bound(value: float) -> str:
    return f"{value:g}".replace("-", "−")


def _says(condition, rows: dict) -> tuple[str, str]:
    """Return what a condition asks, and the means over the seeds that answer it."""
    def ours(measure: str, *arms: str) -> str:
        return f"{measure} " + " against ".join(_figure(mean(values(rows, arm, measure))) for arm in arms)

    if hasattr(condition, "says"):      # a chapter's own condition
        return condition.says(rows)
    match condition:
        case Lower(measure, arm, than, other):
            return (f"{measure}: {arm} below {than}" + (f" in {other}" if other else ""),
                    ours(measure, arm) + f" against {ours(other, than)}" if other else ours(measure, arm, than))
        case Between(measure, arm, low, high):
            return f"{measure} of {arm} from {_bound(low)} to {_bound(high)}, every seed", ours(measure, arm)
        case Collapses(arm, healthy, by, holds):
            way = f"{'' if holds else 'not '}collapsed, by {'std or rank' if by == 'either' else by}"
            return (f"{arm} is {way}, every seed",
                    "; ".join(ours(measure, arm, healthy) for measure in ("std", "rank") if by in (measure, "either")))
        case Near(measure, arm, to, margin):
            return f"{measure}: {arm} within {margin:g} of {to}", ours(measure, arm, to)
        case Number(measure, arm, low, high):
            paper = _bound(low) + (f" to {_bound(high)}" if high != low else "")
            return f"{measure} of {arm} is the paper's {paper}", ours(measure, arm)
    return repr(condition), "–"


def _doubt(condition, rows: dict) -> str:
    """Return " (± x)" for a condition with a margin that holds by the means, as its rule asks, and not surely by the seeds.

    x: two standard errors of the difference, paired by seed; with it the margin would be passed."""
    other = next((name for name in ("to", "over", "than") if hasattr(condition, "margin") and hasattr(condition, name)), None)
    if other is None:
        return ""
    gaps = [a - b for a, b in zip(*(values(rows, arm, condition.measure) for arm in (condition.arm, getattr(condition, other))))]
    if not all(map(isfinite, gaps)):       # of a run that diverged
        return ""
    far = {"to": abs(mean(gaps)), "over": mean(gaps), "than": -mean(gaps)}[other]
    doubt = 2 * stdev(gaps) / len(gaps) ** 0.5 if len(gaps) > 1 else 0.0
    return f" (± {_figure(doubt)})" if far <= condition.margin < far + doubt else ""


def conditions(verdict: Verdict) -> pd.DataFrame:
    """Return a row for each condition of a claim's rule: what it asks, the means that answer, its own verdict.

    "(± x)" behind means: they keep within the margin, and the seeds leave open whether more of them would."""
    rows = [(asked, seen + _doubt(condition, verdict.rows), word) for condition, word in (verdict.conditions or {}).items()
            for asked, seen in [_says(condition, verdict.rows)]]
    return pd.DataFrame(rows, columns=["asked", "seen", "verdict"]).replace(r"\bstd\b", "std·√d", regex=True)


def _range(numbers: Iterable[float]) -> str:
    low, *_, high = [f"{number:,.0f}" for number in sorted(numbers)] * 2
    return low if low == high else f"{low} to {high}"


def provenance(runs: Mapping[str, Iterable[Record]]) -> str:
    """Return who, what and where of records {arm: records}: a line for each arm, then what they have in common."""
    runs = {arm: list(of) for arm, of in runs.items() if of}
    known, wide = [record for of in runs.values() for record in of], max(map(len, runs), default=0)
    lines = [f"{arm:{wide}}  recipe {of[0].key}  seeds {', '.join(str(r.seed) for r in of)}  "
             f"{_range(r.wall for r in of)} s a run, {_range(r.images_per_second for r in of)} images/s"
             for arm, of in runs.items()]
    for r in {(r.commit, r.code, r.data, repr(r.machine)): r for r in known}.values():     # one, if nothing changed
        m = r.machine
        lines += [f"commit {r.commit or 'not known'}, code {r.code}, images {r.data}",
                  f"{m['name']} ({m['device']}), {m['threads']} threads, {m['platform']}, Python {m['python']}",
                  ", ".join(f"{package} {version}" for package, version in m["packages"].items())]
    return "\n".join(lines)


def page(claim: Claim | str, shelf: Shelf | None = None) -> str:
    """Return all that is known of one claim: sentence, source, rule, and for each scale recipes, figures, verdict.

    A name is looked up by `claims`; that of a family gives the page of each."""
    shelf = read_shelf() if shelf is None else shelf
    if isinstance(claim, str):
        return "\n\n".join(page(found, shelf) for found in claims(claim).values())
    lines = [f"{claim.id}: {claim.sentence}", f"  source: {claim.source}; paper: {claim.paper or '–'}"]
    if not claim.arms:
        return "\n".join([*lines, f"  exact: {claim.test}" if claim.test else "  not tested: it has no runs yet"])
    lines += [f"  rule {claim.rule_hash}:", *(f"    {condition}" for condition in claim.rule)]
    for scale in SCALES:
        if recipes := claim.recipes(scale):
            verdict = judge(claim, shelf, scale)
            lines += [f"  {scale}: {verdict}"]
            lines += [f"    {arm}: recipe {r.key}, seeds {sorted(shelf.of(r.key))}" for arm, r in recipes.items()]
            lines += [f"    {row.verdict}: {row.asked} ({row.seen})" for row in conditions(verdict).itertuples()]
            if verdict.seeds:
                lines += ["    " + line for line in numbers(verdict).round(3).to_string().splitlines()]
    return "\n".join(lines)


def _runs_say(claim: Claim, verdict: Verdict, scale: str) -> str:
    """Return what one cell of the README says of a verdict at one scale, and the figures that it rests on."""
    first = next(iter(verdict.rows))           # the healthy arm; it need not be named, nor can the other of two
    arms = [getattr(condition, "arm", "") for condition in verdict.conditions]     # one on four arms names none
    seen = [(f"{arm}: " if arm and (len(verdict.rows) > 2 or arm == first) else "") + row.seen
            + (f" ({row.verdict})" if row.verdict != verdict.word else "")
            for arm, row in zip(arms, conditions(verdict).itertuples())]
    told = f"{scale}: **{verdict.word}**{str(verdict).removeprefix(verdict.word)}"
    return f"{told}. {'; '.join(seen)}" if seen else told


def _results(shelf: Shelf) -> str:
    """Return the README's block: for each family the claims that have a verdict, one row each, to unfold."""
    words, rows, exact, silent = defaultdict(Counter), defaultdict(list), 0, 0
    for claim in claims().values():
        found = {} if claim.test else {scale: judge(claim, shelf, scale) for scale in reversed(SCALES)}
        found = {scale: verdict for scale, verdict in found.items() if verdict.word != "not tested"}
        exact, silent = exact + bool(claim.test), silent + (not found and not claim.test)
        if found:
            family = claim.id.split("-")[0]
            words[family].update(verdict.word for verdict in found.values())
            said = "<br>".join(_runs_say(claim, verdict, scale) for scale, verdict in found.items())
            rows[family].append(f"| {claim.sentence} `{claim.id}` | {claim.paper or '–'} ({claim.source}) | {said} |")
    lines = []
    for family, title in FAMILIES.items():
        if family in rows:
            counts = ", ".join(f"{words[family][word]} {word}" for word in VERDICTS if words[family][word])
            lines += [f"<details><summary><b>{title}</b>: {counts}</summary>", "", "| claim | the paper | our runs |",
                      "|---|---|---|", *rows[family], "", "</details>", ""]
    return "\n".join([*lines, f"{exact} further claims are exact and held by tests; {silent} are not tested yet."])


def write_results(readme: str | Path, shelf: Shelf | None = None) -> bool:
    """Put the results between the marks of `readme`; return whether that changed the file. ValueError without marks."""
    readme, (start, end) = Path(readme), MARKS
    text = readme.read_text(encoding="utf-8")
    if not re.search(re.escape(start) + ".*" + re.escape(end), text, re.S):
        raise ValueError(f"{readme}: there is no place for the results; put {start.strip()!r} and {end!r} on lines of "
                         "their own.")
    head, rest = text.split(start, 1)
    new = f"{head}{start}{_results(read_shelf() if shelf is None else shelf)}\n{end}{rest.split(end, 1)[1]}"
    if new != text:
        with whole_file(readme) as file:
            file.write(new.encode())
    return new != text
