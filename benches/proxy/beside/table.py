"""The figures as Markdown: medians, and medians of the ratios to nginx in the same round."""

import os
import platform
import statistics

BASE = "nginx"
# Below this, something else than the proxy was what held the load up.
BUSY = 0.9
# Above this many cores kept busy by others, a turn is disturbed.
DISTURBED = 0.1
NOTHING = "n/a"


def machine():
    with open("/proc/cpuinfo") as told:
        model = next((line.partition(":")[2].strip() for line in told if line.startswith("model name")), "")
    with open("/proc/sys/net/ipv4/tcp_congestion_control") as told:
        congestion = told.read().strip()
    return {"processor": model, "cores": os.cpu_count(), "kernel": platform.release(), "tcp": congestion}


def short(case, result):
    """One round of one proxy in one line."""
    middle = {name: statistics.median(one[name] for one in result["slices"]) for name in result["slices"][0]}
    parts = [
        f"{number(middle['rate'])} {case.unit}/s",
        f"{number(middle['cpu_us'])} µs of processor per {case.unit}",
        f"core {middle['busy']:.0%} busy",
    ]
    if "p50_ns" in middle:
        parts.append(f"p50 {microseconds(middle['p50_ns'])} µs, p99 {microseconds(middle['p99_ns'])} µs")
    if middle["others"] > DISTURBED:
        parts.append(f"DISTURBED: others took {middle['others']:.2f} cores")
    return ", ".join(parts)


class Table:
    """Rows are cases, columns are proxies."""

    def __init__(self, report, proxies):
        self.proxies = proxies
        self.slices, self.rounds, self.failed = {}, {}, set()
        for one in report["results"]:
            key = one["case"], one["proxy"]
            if "failed" in one:
                self.failed.add(key)
                continue
            self.rounds.setdefault(key, {})[one["round"]] = one
            turns = {(one["round"], turn): figures for turn, figures in enumerate(one["slices"])}
            self.slices.setdefault(key, {}).update(turns)

    def values(self, case, proxy, figure):
        """A figure of each turn, by round and turn."""
        return {at: figure(one) for at, one in self.slices.get((case, proxy), {}).items()}

    def memory(self, case, proxy, figure):
        """A figure of each round."""
        return {at: figure(one) for at, one in self.rounds.get((case, proxy), {}).items()}

    def cell(self, of, case, proxy, figure, more_is_better, text):
        """The median, and the median of the ratios to nginx in the same turn; more than 1 is better than nginx."""
        if (case, proxy) in self.failed:
            return "**failed**"
        mine, base = of(case, proxy, figure), of(case, BASE, figure)
        if not mine:
            return NOTHING
        shown = text(statistics.median(mine.values()))
        pairs = [(mine[at], base[at]) for at in mine if base.get(at) and mine[at]]
        if proxy == BASE or not pairs:
            return shown
        ratio = statistics.median(a / b if more_is_better else b / a for a, b in pairs)
        return f"{shown} (**{ratio:.2f}**)"

    def markdown(self, title, rows):
        """A table without the columns in which there would be nothing, or nothing at all without rows."""
        rows = [(label, {proxy: cell(proxy) for proxy in self.proxies}) for label, cell in rows]
        columns = [proxy for proxy in self.proxies if any(cells[proxy] != NOTHING for _, cells in rows)]
        lines = [f"| {title} | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
        lines += [f"| {label} | " + " | ".join(cells[proxy] for proxy in columns) + " |" for label, cells in rows]
        return "\n".join(lines) + "\n" if columns else ""


def number(value):
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def microseconds(nanoseconds):
    return number(nanoseconds / 1000)


def markdown(report, proxies, cases):
    table = Table(report, proxies)

    def throughput(case):
        def cell(proxy):
            text = table.cell(table.values, case.name, proxy, lambda one: one["rate"], True, number)
            busy = table.values(case.name, proxy, lambda one: one["busy"]).values()
            return text + " †" if busy and statistics.median(busy) < BUSY else text

        return f"{case.name}, {case.unit}/s", cell

    def processor(case):
        return (f"{case.name}, µs per {case.unit}",
                lambda proxy: table.cell(table.values, case.name, proxy, lambda one: one["cpu_us"], False, number))

    def latency(case, percentile):
        return (f"{case.name}, {percentile}, µs",
                lambda proxy: table.cell(table.values, case.name, proxy, lambda one: one[f"{percentile}_ns"], False, microseconds))

    def added(proxy):
        plain = table.values("latency", "plain", lambda one: one["p50_ns"])
        mine = table.values("latency", proxy, lambda one: one["p50_ns"])
        more = [mine[n] - plain[n] for n in mine if n in plain]
        return microseconds(statistics.median(more)) if more and proxy != "plain" else NOTHING

    def memory(case, figure, label):
        return label, lambda proxy: table.cell(table.memory, case, proxy, figure, False, number)

    names = {case.name for case in cases}
    rows = [latency(case, which) for case in cases if case.timed for which in ("p50", "p99")]
    if "latency" in names:
        rows.append(("latency, p50, more than plain, µs", added))
    memories = [
        (case, lambda one: one["rss_start"] / 1024, "after the start, MiB") for case in ("1k@64",)
    ] + [
        (case, lambda one: one["rss_peak"] / 1024, f"peak of {case}, MiB") for case in ("1k@64", "ws@64", "h2", "down", "up")
    ] + [
        ("idle", lambda one: (one["rss_end"] - one["rss_before"]) / one["slices"][0]["count"], "an idle connection, KiB")
    ]
    bound = [case for case in cases if case.bound]
    parts = [
        table.markdown("throughput", [throughput(case) for case in bound]),
        table.markdown("the proxy's processor time", [processor(case) for case in cases]),
        table.markdown("latency", rows),
        table.markdown("memory of the workers", [memory(*row) for row in memories if row[0] in names]),
        "In brackets: the median of the ratios to nginx in the same turn; more than 1 is better than nginx.",
        f"†: the proxy's core was less than {BUSY:.0%} busy, so something else bounds its throughput; its processor "
        "time counts.",
    ]
    turns = [one for result in report["results"] for one in result.get("slices", [])]
    disturbed = sum(one["others"] > DISTURBED for one in turns)
    parts.append(f"In {disturbed} of {len(turns)} turns, other processes took more than {DISTURBED:.0%} of a core.")
    return heading(report) + "\n" + "\n".join(part for part in parts if part)


def heading(report):
    told = report["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in report["versions"].items() if version)
    return f"{told['processor']}, {told['cores']} cores, Linux {told['kernel']}, TCP {told['tcp']}; {versions}\n"
