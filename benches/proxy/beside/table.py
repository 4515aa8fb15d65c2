"""The figures as Markdown: medians, and medians of the ratios to nginx in the same round."""

import os
import platform
import statistics

BASE = "nginx"
# Below this, something else than the proxy was what held the load up.
BUSY = 0.9


def machine():
    with open("/proc/cpuinfo") as told:
        model = next((line.partition(":")[2].strip() for line in told if line.startswith("model name")), "")
    return {"processor": model, "cores": os.cpu_count(), "kernel": platform.release()}


def short(case, figures):
    """One measurement in one line."""
    parts = [
        f"{number(figures['rate'])} {case.unit}/s",
        f"{number(figures['cpu_us'])} µs of processor per {case.unit}",
        f"core {figures['busy']:.0%} busy",
    ]
    if "p50_ns" in figures:
        parts.append(f"p50 {figures['p50_ns'] / 1000:.0f} µs, p99 {figures['p99_ns'] / 1000:.0f} µs")
    return ", ".join(parts)


class Table:
    """Rows are cases, columns are proxies."""

    def __init__(self, report, proxies, cases):
        self.proxies, self.cases = proxies, cases
        self.found = {}
        self.failed = set()
        for one in report["results"]:
            key = one["case"], one["proxy"]
            if "failed" in one:
                self.failed.add(key)
            else:
                self.found.setdefault(key, {})[one["round"]] = one

    def values(self, case, proxy, figure):
        rounds = self.found.get((case, proxy), {})
        return {number: figure(one) for number, one in rounds.items()}

    def cell(self, case, proxy, figure, more_is_better, text):
        """The median, and the median of the paired ratios to nginx; more than 1 is better than nginx."""
        if (case, proxy) in self.failed:
            return "**failed**"
        mine = self.values(case, proxy, figure)
        if not mine:
            return "n/a"
        shown = text(statistics.median(mine.values()))
        base = self.values(case, BASE, figure)
        pairs = [(mine[n], base[n]) for n in mine if base.get(n) and mine[n]]
        if proxy == BASE or not pairs:
            return shown
        ratio = statistics.median(a / b if more_is_better else b / a for a, b in pairs)
        return f"{shown} (**{ratio:.2f}**)"

    def markdown(self, title, rows):
        lines = [f"| {title} | " + " | ".join(self.proxies) + " |", "|---" * (len(self.proxies) + 1) + "|"]
        lines += [f"| {label} | " + " | ".join(cell(proxy) for proxy in self.proxies) + " |" for label, cell in rows]
        return "\n".join(lines) + "\n"


def number(value):
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def microseconds(nanoseconds):
    return number(nanoseconds / 1000)


def markdown(report, proxies, cases):
    table = Table(report, proxies, cases)

    def throughput(case):
        def cell(proxy):
            text = table.cell(case.name, proxy, lambda one: one["rate"], True, number)
            busy = table.values(case.name, proxy, lambda one: one["busy"]).values()
            return text + " †" if busy and statistics.median(busy) < BUSY else text

        return f"{case.name}, {case.unit}/s", cell

    def processor(case):
        return (f"{case.name}, µs per {case.unit}",
                lambda proxy: table.cell(case.name, proxy, lambda one: one["cpu_us"], False, number))

    def latency(case, percentile):
        return (f"{case.name}, {percentile}, µs",
                lambda proxy: table.cell(case.name, proxy, lambda one: one[f"{percentile}_ns"], False, microseconds))

    timed = [case for case in cases if case.timed]
    return "\n".join([
        table.markdown("throughput", map(throughput, cases)),
        table.markdown("the proxy's processor time", map(processor, cases)),
        table.markdown("latency", [latency(case, which) for case in timed for which in ("p50", "p99")]),
        "In brackets: the median of the ratios to nginx within each round, more than 1 being better than nginx.",
        f"†: the proxy's core was less than {BUSY:.0%} busy, so that its throughput is bounded by something else; "
        "its processor time counts.",
    ])
