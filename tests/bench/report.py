"""What a run has come to, as tables and as a plot.

Each figure is the median of the rounds, with the least and the greatest behind it. A ratio is the
median of each round's own ratio: what is divided was measured in the same round.
"""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from statistics import median

from tests.bench.contenders import DIRECT, PLAIN
from tests.bench.run import PARSING, Results, Sample

BEGIN = "<!-- what the bench has measured, as `python -m tests.bench report` writes it -->"
END = "<!-- end of what the bench has measured -->"

Key = tuple[str, int, int]
"""A contender, a size, and how many messages are under way."""


class Measured:
    """The samples of one workload."""

    def __init__(self, results: Results, workload: str) -> None:
        self._samples: dict[Key, dict[int, Sample]] = {}
        for sample in results.samples:
            if sample.workload == workload:
                key = (sample.contender, sample.size, sample.flight)
                self._samples.setdefault(key, {})[sample.round] = sample

    def measured(self) -> list[Key]:
        """What was measured, in a fixed order."""
        return sorted(self._samples, key=lambda key: (key[1:], self._figures(key, _cpu)[0]))

    def contenders(self) -> list[str]:
        """From the cheapest to the dearest."""
        costs: dict[str, float] = {}
        for key in self._samples:
            costs[key[0]] = max(costs.get(key[0], 0), median(self._figures(key, _cpu)))
        return sorted(costs, key=lambda name: costs[name])

    def sizes(self) -> list[int]:
        """In order."""
        return sorted({key[1] for key in self._samples if key[1]})

    def _figures(self, key: Key, of: Callable[[Sample], float]) -> list[float]:
        return [of(sample) for sample in self._samples.get(key, {}).values()]

    def spread(self, key: Key, of: Callable[[Sample], float], form: str = ".0f") -> str:
        """Median, least and greatest."""
        figures = self._figures(key, of)
        if not figures:
            return ""
        least, most = min(figures), max(figures)
        return f"{median(figures):{form}} ({least:{form}} to {most:{form}})"

    def ratio(self, key: Key, base: Key, of: Callable[[Sample], float]) -> str:
        """Of the rounds in which both were measured."""
        ratios = list(self._paired(key, base, lambda a, b: of(a) / of(b)))
        return f"{median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})" if ratios else ""

    def beyond(self, key: Key, base: Key, of: Callable[[Sample], float]) -> str:
        """How much more it is than the base's, in the rounds in which both were measured."""
        more = list(self._paired(key, base, lambda a, b: of(a) - of(b)))
        return f"{median(more):.0f}" if more else ""

    def median(self, key: Key, of: Callable[[Sample], float]) -> float | None:
        """None where there is none."""
        figures = self._figures(key, of)
        return median(figures) if figures else None

    def _paired(
        self, key: Key, base: Key, with_both: Callable[[Sample, Sample], float]
    ) -> Iterator[float]:
        bases = self._samples.get(base, {})
        for number, sample in self._samples.get(key, {}).items():
            if number in bases:
                yield with_both(sample, bases[number])


def _cpu(sample: Sample) -> float:
    return sample.cpu * 1e6


def _p50(sample: Sample) -> float:
    return sample.p50 * 1e6


def _p99(sample: Sample) -> float:
    return sample.p99 * 1e6


def _rate(sample: Sample) -> float:
    return 1 / sample.cpu


def _kib(sample: Sample) -> float:
    return sample.bytes / 1024


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> list[str]:
    titles = list(head)
    lines = [titles, ["---"] * len(titles), *map(list, rows)]
    return [f"| {' | '.join(line)} |" for line in lines] + [""]


def tables(results: Results) -> list[str]:
    """All of them, as lines of Markdown."""
    return [
        *_messages(Measured(results, "messages")),
        *_tls(Measured(results, "tls")),
        *_large(Measured(results, "large")),
        *_streams(Measured(results, "streams")),
        *_idle(Measured(results, "idle")),
        *_growth(Measured(results, "growth")),
        *_about(results),
    ]


def _messages(of: Measured) -> list[str]:
    lines = []
    for clients in of.sizes():
        at = f"{clients} client" if clients == 1 else f"{clients} clients"
        lines += [f"### 1 KiB there and back, {at}", ""]
        plain, direct = (PLAIN.name, clients, clients), (DIRECT.name, clients, clients)
        names = [name for name in of.contenders() if of.median((name, clients, clients), _cpu)]
        lines += _table(
            ("", "CPU, µs a message", "ratio", "messages/s a core", "p50 added, µs", "p99 added")
            + (("p50 ratio",) if clients == 1 else ()),
            (
                (
                    name,
                    of.spread(key, _cpu),
                    of.ratio(key, plain, _cpu),
                    f"{of.median(key, _rate):.0f}",
                    of.beyond(key, direct, _p50),
                    of.beyond(key, direct, _p99),
                )
                + ((of.ratio(key, plain, _p50),) if clients == 1 else ())
                for name in names
                for key in [(name, clients, clients)]
            ),
        )
    return lines


def _tls(of: Measured) -> list[str]:
    if not of.sizes():
        return []
    return [
        "### 1 KiB there and back, over TLS to the platform",
        "",
        *_table(
            ("", "clients", "CPU, µs a message", "ratio", "messages/s a core", "p50 ratio"),
            (
                (
                    key[0],
                    str(key[1]),
                    of.spread(key, _cpu),
                    of.ratio(key, (PLAIN.name, *key[1:]), _cpu),
                    f"{of.median(key, _rate):.0f}",
                    of.ratio(key, (PLAIN.name, *key[1:]), _p50),
                )
                for key in of.measured()
            ),
        ),
    ]


def _large(of: Measured) -> list[str]:
    if not of.sizes():
        return []
    return [
        "### Large bodies there and back, 4 clients",
        "",
        *_table(
            ("", "bytes", "CPU, µs a message", "ratio"),
            (
                (
                    key[0],
                    f"{key[1]:,}",
                    of.spread(key, _cpu),
                    of.ratio(key, (PLAIN.name, *key[1:]), _cpu),
                )
                for key in of.measured()
            ),
        ),
    ]


def _streams(of: Measured) -> list[str]:
    if not of.contenders():
        return []
    parsing = (PARSING.name, 0, 0)
    return [
        "### Streams: 200 parts of 40 bytes that come at once",
        "",
        *_table(
            ("", "clients", "CPU, µs a part", "ratio to its parsing alone", "parts/s a core"),
            (
                (
                    key[0],
                    str(key[1] or ""),
                    of.spread(key, _cpu, ".1f"),
                    of.ratio(key, parsing, _cpu),
                    f"{of.median(key, _rate):.0f}",
                )
                for key in of.measured()
            ),
        ),
    ]


def _idle(of: Measured) -> list[str]:
    if not of.sizes():
        return []
    return [
        "### Idle connections, each with its session",
        "",
        *_table(
            ("", "connections", "KiB of resident memory each"),
            ((key[0], f"{key[1]:,}", of.spread(key, _kib, ".1f")) for key in of.measured()),
        ),
    ]


def _growth(of: Measured) -> list[str]:
    if not of.sizes():
        return []
    keys = of.measured()
    least = {(name, flight): size for name, size, flight in reversed(keys)}
    return [
        "### Messages to one session after the other",
        "",
        *_table(
            ("", "sessions", "under way", "CPU, µs a message", "ratio to the fewest"),
            (
                (
                    key[0],
                    f"{key[1]:,}",
                    str(key[2]),
                    of.spread(key, _cpu),
                    of.ratio(key, (key[0], least[key[0], key[2]], key[2]), _cpu),
                )
                for key in sorted(keys, key=lambda key: (key[0], key[2], key[1]))
            ),
        ),
    ]


def _about(results: Results) -> list[str]:
    options = results.options
    versions = ", ".join(f"{name} {value}" for name, value in results.machine.items())
    left_out = f"Left out: {'; '.join(results.left_out)}." if results.left_out else ""
    return [
        f"Medians of {options.rounds} rounds, with the least and the greatest; "
        f"{options.seconds:g} s for each figure of a round, seed {options.seed}. {versions}.",
        "",
        left_out,
    ]


def write(results: Results, document: Path) -> None:
    """Put the tables into the document, in place of those that it has."""
    text = document.read_text()
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{document} does not say where the tables go")
    inside = "\n".join([BEGIN, "", *tables(results), "", END])
    document.write_text(before + inside + after)


def plot(results: Results, into: Path) -> None:
    """CPU time per message of every contender, by clients, as bars."""
    import matplotlib as mpl  # noqa: PLC0415 - slow to import

    mpl.use("Agg")
    from matplotlib import pyplot as plt  # noqa: PLC0415

    of = Measured(results, "messages")
    names, sizes = of.contenders(), of.sizes()
    if not names:
        return
    figure, axes = plt.subplots(figsize=(10, 1.5 + 0.5 * len(names)), layout="constrained")
    height = 0.8 / len(sizes)
    for place, size in enumerate(sizes):
        costs = [of.median((name, size, size), _cpu) or 0 for name in names]
        at = [index + (place - (len(sizes) - 1) / 2) * height for index in range(len(names))]
        bars = axes.barh(at, costs, height, label=f"{size} clients")
        axes.bar_label(bars, fmt="%.0f", padding=2, fontsize=7)
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.set_xlabel("CPU time per message of 1 KiB, in µs")
    axes.legend()
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(into, dpi=120)
    plt.close(figure)
