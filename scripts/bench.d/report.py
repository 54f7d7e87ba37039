"""The table for people and the lines of JSON for programs."""

import json
import statistics
import sys
from datetime import datetime, timezone


def say(text):
    print(f"bench: {text}", file=sys.stderr, flush=True)


def at_most(limit):
    """A goal for MSSM's own median."""
    return f"<= {limit}", lambda own, _: own <= limit


def at_least(least):
    """A goal for MSSM's own median."""
    return f">= {least:,}", lambda own, _: own >= least


def at_least_times(least, aim=None):
    """A goal for the ratio of the medians."""
    text = f">= {least} x" + (f", aim {aim} x" if aim else "")
    return text, lambda own, peer: own / peer >= least


def number(value):
    if value >= 1000:
        return f"{value:,.0f}"
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def spread(samples):
    """The median, and what lies around it where there is more than one sample."""
    if not samples:
        return "-"
    text = number(statistics.median(samples))
    if len(samples) > 1:
        text += f" ({number(min(samples))}..{number(max(samples))})"
    return text


class Report:
    """Collects figures as they are measured."""

    def __init__(self, file, quick):
        self.file, self.quick = file, quick
        self.rows, self.notes, self.facts = [], [], {}
        self.date = datetime.now(timezone.utc).isoformat(timespec="seconds")

    def describe(self, facts):
        self.facts = facts
        self.line({"machine": facts})

    def figure(self, name, samples, goal=None, peer="OpenBao", details=None):
        """One row: what MSSM does, what the peer does, and whether it is enough."""
        own, other = samples["MSSM"], samples.get(peer, [])
        ratio = statistics.median(own) / statistics.median(other) if other else None
        met = None
        if goal is not None:
            met = goal[1](statistics.median(own), statistics.median(other) if other else None)
        row = [
            name, spread(own), spread(other), peer if other else "-",
            f"{ratio:.3g}" if ratio is not None else "-", goal[0] if goal else "-",
            "-" if met is None else "yes" if met else "NO",
        ]
        self.rows.append(row)
        say("  ".join(row))
        self.line({
            "figure": name.strip(), "samples": samples, "peer": peer if other else None,
            "ratio": ratio, "goal": goal[0] if goal else None, "met": met, "details": details,
        })

    def note(self, text):
        self.notes.append(text)
        say(text)
        self.line({"note": text})

    def line(self, content):
        with open(self.file, "a", encoding="utf-8") as file:
            file.write(json.dumps({"date": self.date, "quick": self.quick, **content}) + "\n")

    def table(self):
        head = ["figure", "MSSM", "peer", "which", "MSSM/peer", "goal", "met"]
        rows = [head, *self.rows]
        widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
        print(f"\n{self.date}" + (", quick run: not to be quoted" if self.quick else ""))
        for name, value in self.facts.items():
            print(f"  {name:12} {value}")
        print("  Load generators (wrk, pgbench) and PostgreSQL share these cores with the servers.")
        print("  Medians, with (least..most) where there are several samples.\n")
        for row in rows:
            print("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip())
        for note in self.notes:
            print(f"\n{note}")
        print(f"\nEvery sample: {self.file}")
