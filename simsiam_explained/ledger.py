"""The ledger: every claim beside what the records say of it, as a table, as a page on one claim, and in the README."""
from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from statistics import mean

import pandas as pd

from .evidence import Claim, Verdict, claims, judge
from .memory import whole_file
from .recipe import SCALES
from .records import Shelf, read_shelf

__all__ = ["verdicts", "numbers", "page", "write_results"]

NUMBERS = ("loss", "std", "AUC", "rank", "kNN", "linear", "untrained kNN")
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


def page(claim: Claim, shelf: Shelf | None = None) -> str:
    """Return all that is known of one claim: its sentence and source, its rule, and for each scale recipes, figures, verdict."""
    shelf = read_shelf() if shelf is None else shelf
    lines = [f"{claim.id}: {claim.sentence}", f"  source: {claim.source}; paper: {claim.paper or '–'}"]
    lines += [f"  exact: {claim.test}"] if claim.test else [f"  rule {claim.rule_hash}:", *(f"    {c}" for c in claim.rule)]
    for scale in SCALES:
        if recipes := claim.recipes(scale):
            verdict = judge(claim, shelf, scale)
            seeds = {arm: sorted(shelf.of(recipe.key)) for arm, recipe in recipes.items()}
            lines += [f"  {scale}: {verdict}", *(f"    {arm}: recipe {recipes[arm].key}, seeds {of}" for arm, of in seeds.items())]
            lines += [f"    {word}: {condition}" for condition, word in (verdict.conditions or {}).items()]
            if verdict.seeds:
                lines += ["    " + line for line in numbers(verdict).round(3).to_string().splitlines()]
    return "\n".join(lines)


def _results(shelf: Shelf) -> str:
    """Return the README's block: the claims that something is known of, one row each."""
    table, lines = verdicts(shelf=shelf), ["| claim | paper | CPU, small net | GPU, ResNet-18 |", "|---|---|---|---|"]
    known = table[(table["small"].str.contains("n =")) | (table["full"].str.contains("n ="))]
    for name, row in known.iterrows():
        verdict = judge(claims([name])[name], shelf, "small")
        knn = "; ".join(f"{arm} {mean(r['kNN'] for r in rows):.3f}" for arm, rows in (verdict.rows or {}).items())
        lines.append(f"| {row['claim']} | {row['paper']}, {row['source']} | {row['small']}. kNN: {knn} | {row['full']} |")
    exact, silent = (table["small"] == "exact").sum(), len(table) - len(known) - (table["small"] == "exact").sum()
    return "\n".join([*lines, "", f"{exact} further claims are exact and held by tests; {silent} are not tested yet."])


def write_results(readme: str | Path, shelf: Shelf | None = None) -> bool:
    """Put the results between the marks of `readme`; return whether that changed the file. ValueError without marks."""
    readme, (start, end) = Path(readme), MARKS
    text = readme.read_text(encoding="utf-8")
    if not re.search(re.escape(start) + ".*" + re.escape(end), text, re.S):
        raise ValueError(f"{readme}: there is no place for the results; put {start.strip()!r} and {end!r} on lines of their own.")
    head, rest = text.split(start, 1)
    new = f"{head}{start}{_results(read_shelf() if shelf is None else shelf)}\n{end}{rest.split(end, 1)[1]}"
    if new != text:
        with whole_file(readme) as file:
            file.write(new.encode())
    return new != text
