"""The report in a headless Chromium: charts draw, filters filter, nothing leaves the page, hostile text stays text."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from stored import Told, stored

from harness.figures import Run
from harness.store.selection import metric_rows

CHARTS = ("latency", "speedup", "peak_memory", "map", "roofline", "pareto", "crossover")
READY = "html[data-ready=true], html[data-ready=failed]"
PATIENCE_MS = 120_000


@dataclass
class Opened:
    """A page with what it asked for and complained about."""

    page: Any
    requests: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)

    def settle(self) -> None:
        """Wait until every chart is drawn."""
        for _ in range(PATIENCE_MS // 50):
            if self.page.locator(READY).count() or self.complaints:
                break
            self.page.wait_for_timeout(50)
        assert not self.complaints
        assert self.page.locator("html").get_attribute("data-ready") == "true", self.page.locator(
            "#trouble"
        ).text_content()

    def until(self, expression: str) -> None:
        """Wait until an expression holds; the page's policy lets no waiting script of Playwright's in."""
        for _ in range(PATIENCE_MS // 50):
            if self.page.evaluate(expression):
                return
            self.page.wait_for_timeout(50)
        raise AssertionError(f"never: {expression}")

    def choose(self, name: str, value: str) -> None:
        """Take a value of a selector, and wait for the charts."""
        self.page.locator(f"#choice select[name={name}]").select_option(value)
        self.settle()

    def rows(self) -> int:
        """How many rows the table counts."""
        return int(self.page.locator(".count").inner_text().split(" of ")[0].replace(",", ""))

    def column(self, name: str) -> list[str]:
        """The texts of a column that are on the page, from the top."""
        at = self.page.locator(".grid .head > span").evaluate_all(
            f"all => all.findIndex(one => one.dataset.column === '{name}')"
        )
        return self.page.locator(f".grid .line > span:nth-child({at + 1})").all_inner_texts()


@pytest.fixture(scope="module")
def open_page(browser: Any) -> Iterator[Callable[..., Opened]]:
    """`open_page(file, width=…, scheme=…)`: a page whose charts are drawn."""
    contexts = []

    def opened(file: Path, *, width: int = 1280, scheme: str = "light") -> Opened:
        context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme, offline=True)
        contexts.append(context)
        context.set_default_timeout(PATIENCE_MS)
        found = Opened(context.new_page())
        found.page.on("request", lambda request: found.requests.append(request.url))
        found.page.on("console", lambda message: found.complaints.append(f"{message.type}: {message.text}"))
        found.page.on("pageerror", lambda error: found.complaints.append(error.stack or str(error)))
        found.page.goto(file.resolve().as_uri())
        found.settle()
        return found

    yield opened
    for context in contexts:
        context.close()


@pytest.fixture(scope="module")
def report(open_page: Callable[..., Opened], page_file: Path) -> Opened:
    """The usual page; tests leave it as they found it."""
    return open_page(page_file)


def test_every_chart_has_drawn_traces(report: Opened) -> None:
    drawn = report.page.locator(".plot").evaluate_all(
        "all => all.map(one => [one.id, (one.data || []).length,"
        " one.querySelectorAll('.scatterlayer .trace, .heatmaplayer .hm').length])"
    )
    assert [name for name, _, _ in drawn] == [f"plot-{name}" for name in CHARTS]
    assert all(traces >= 3 and shapes >= 3 for _, traces, shapes in drawn), drawn
    captions = report.page.locator(".chart .caption").all_inner_texts()
    assert all(
        text.startswith("AMD EPYC 7B13 64-Core Processor, 2 cores (cpu) · scope core · forward · float32")
        for text in captions
    )


def test_axes_have_units_and_intervals_are_drawn(report: Opened) -> None:
    titles = report.page.locator(
        "#plot-latency .ytitle, #plot-peak_memory .ytitle, #plot-speedup .ytitle, #plot-roofline .ytitle"
    )
    assert titles.all_text_contents() == ["latency (ms)", "speed-up over flash (×)", "peak memory (MiB)", "TFLOP/s"]
    for name in ("latency", "speedup"):
        assert report.page.locator(f"#plot-{name} .errorbar").count() > 3


def test_failures_are_marked(report: Opened) -> None:
    texts = report.page.locator("#plot-latency").evaluate(
        "one => one.data.flatMap(trace => trace.yaxis === 'y2' ? trace.hovertext : [])"
    )
    assert any("full, n = 65536: oom: needs" in text for text in texts)


def test_nothing_was_asked_for_and_nothing_complained(report: Opened, page_file: Path) -> None:
    assert [url.partition(":")[0] for url in report.requests if url != page_file.resolve().as_uri()] == []
    assert report.complaints == []


def test_filters_filter(report: Opened, run: Run) -> None:
    total = len(run.frame)
    assert report.rows() == total
    search = report.page.get_by_label("Filter the rows")
    for words, expected in (
        ("anchor", (run.frame["attention"] == "anchor").sum()),
        ("metric=latency n>=4k", ((run.frame["metric"] == "latency") & (run.frame["n"] >= 4096)).sum()),
        ("status!=ok", (run.frame["status"] != "ok").sum()),
        ("note:gb status=oom", ((run.frame["status"] == "oom") & run.frame["note"].str.contains("GB")).sum()),
        ("no-such-word", 0),
        ("", total),
    ):
        search.fill(words)
        report.page.wait_for_selector(f".count:text-is('{expected:,} of {total:,} rows')")
    report.page.get_by_label("metric", exact=True).select_option("flops")
    assert report.rows() == (run.frame["metric"] == "flops").sum()
    assert set(report.column("metric")) == {"flops"}
    report.page.get_by_label("metric", exact=True).select_option("")
    assert report.rows() == total


def test_sorting_sorts_and_the_page_holds_few_rows(report: Opened, run: Run) -> None:
    report.page.get_by_label("metric", exact=True).select_option("latency")
    head = report.page.locator(".grid .head [data-column=value] button")
    values = sorted(run.frame.loc[run.frame["metric"] == "latency", "value"].dropna())
    for order, expected in (("ascending", values), ("descending", values[::-1])):
        head.click()
        assert report.page.locator(".grid .head [data-column=value]").get_attribute("aria-sort") == order
        shown = [float(text) for text in report.column("value")]
        assert shown == pytest.approx(expected[: len(shown)], rel=1e-5)
    head.click()
    assert report.page.locator(".grid .head [data-column=value]").get_attribute("aria-sort") == "none"
    report.page.get_by_label("metric", exact=True).select_option("")
    assert report.rows() > report.page.locator(".grid .line").count() > 10
    report.page.locator(".grid").evaluate("one => { one.scrollTop = one.scrollHeight }")
    report.page.wait_for_selector(f".grid .line[aria-rowindex='{len(run.frame)}']")
    report.page.locator(".grid").evaluate("one => { one.scrollTop = 0 }")


def test_the_answer_follows_the_choice(report: Opened, run: Run) -> None:
    def fastest(n: int, phase: str, *, exact: bool) -> tuple[str, float]:
        rows = metric_rows(run.frame, "latency")
        rows = rows[
            (rows["n"] == n) & (rows["phase"] == phase) & (rows["dtype"] == "float32") & (rows["status"] == "ok")
        ]
        rows = rows[rows["m"].isna()] if exact else rows[(rows["m"].isna()) | (rows["m"] == 64)]
        best = rows.loc[rows["value"].idxmin()]
        return best["series"], best["value"]

    for n, phase, among in ((4096, "forward", "all"), (1024, "train", "exact"), (65536, "train", "all")):
        report.choose("n", str(n))
        report.choose("phase", phase)
        report.choose("among", among)
        name, ms = fastest(n, phase, exact=among == "exact")
        headline = report.page.locator(".headline").inner_text()
        assert name in report.page.locator(".headline .name").all_inner_texts()[-1]
        assert f"at n = {n}: " in headline
        assert ("Not exact: " in headline) == (among == "all")
        shown = report.page.locator(".ranking tbody tr:first-child td").all_inner_texts()
        assert float(shown[2].removesuffix(" ms")) == pytest.approx(ms, rel=5e-3)
        assert f"· {phase} ·" in report.page.locator("#chart-latency .caption").inner_text()
    for name, value in (("n", "4096"), ("phase", "forward"), ("among", "all")):
        report.choose(name, value)


def test_m_and_the_chips_choose_the_lines(report: Opened) -> None:
    names = "one => one.data.filter(trace => trace.name).map(trace => trace.name)"
    plot = report.page.locator("#plot-latency")
    assert set(plot.evaluate(names)) == {"full", "flash", "linformer m=64", "nystrom m=64", "anchor m=64"}
    report.choose("m", "all")
    assert {"anchor m=16", "anchor m=64"} <= set(plot.evaluate(names))
    report.page.locator("#chips button", has_text="anchor").click()
    report.settle()
    assert not any(name.startswith("anchor") for name in plot.evaluate(names))
    report.page.locator("#chips button", has_text="anchor").click()
    report.choose("m", "64")
    assert "anchor m=64" in plot.evaluate(names)


def test_the_metric_of_the_error_chart_can_be_chosen(report: Opened) -> None:
    select = report.page.get_by_label("Metric against latency")
    select.select_option("numeric_error")
    report.page.wait_for_selector("#plot-pareto .ytitle:text-is('numeric error (against float64)')", state="attached")
    report.page.get_by_label("Metric against latency").select_option("approximation_error")
    report.page.wait_for_selector(
        "#plot-pareto .ytitle:text-is('approximation error (against full)')", state="attached"
    )


def test_dark_by_the_system_and_by_the_button(open_page: Callable[..., Opened], page_file: Path) -> None:
    dark = open_page(page_file, scheme="dark")
    ground = "one => getComputedStyle(one).backgroundColor"

    def light(color: str) -> float:
        return sum(map(int, re.findall(r"\d+", color)[:3])) / 3

    assert light(dark.page.locator("body").evaluate(ground)) < 40
    assert dark.page.locator("#plot-latency").evaluate("one => one.layout.paper_bgcolor") == "#161b22"
    dark.page.locator("#theme").click()
    dark.settle()
    assert light(dark.page.locator("body").evaluate(ground)) > 230
    assert dark.page.locator("#plot-latency").evaluate("one => one.layout.paper_bgcolor") == "#ffffff"
    assert dark.complaints == []


def test_a_phone_needs_no_sideways_scrolling(open_page: Callable[..., Opened], page_file: Path) -> None:
    phone = open_page(page_file, width=390)
    assert phone.page.evaluate("document.documentElement.scrollWidth") == 390
    widest = phone.page.locator(".plot svg.main-svg").evaluate_all(
        "all => Math.max(...all.map(one => one.getBoundingClientRect().right))"
    )
    assert widest <= 390
    assert phone.complaints == []


def test_hostile_text_stays_text(open_page: Callable[..., Opened], write: Callable[..., Path], hostile: Run) -> None:
    opened = open_page(write(hostile))
    page = opened.page
    opened.choose("m", "all")
    assert opened.complaints == []
    assert page.locator("img").count() == 0
    assert page.locator("[onload], [onerror]").count() == 0
    assert page.locator("main b, main i, svg b").count() == 0
    names = sorted(set(hostile.frame["attention"]) - {"flash"})
    chips = page.locator("#chips").inner_text()
    ticks = page.locator("#plot-crossover .ytick").all_text_contents()
    titles = page.locator("#plot-map .annotation").all_text_contents()
    for name in names:
        assert name in chips
        assert any(name in text or text.startswith(name[:24]) for text in ticks), (name, ticks)
        assert any(name in text for text in titles), (name, titles)
    page.get_by_label("Filter the rows").fill("svg/onload")
    page.wait_for_selector(".grid .line")
    assert any("<svg/onload=boom()>" in text for text in opened.column("note"))
    assert page.evaluate("typeof boom") == "undefined"
    hover = page.locator("#plot-latency").evaluate("one => one.data.flatMap(trace => trace.hovertext || [])")
    assert not any("<" in text for text in hover)


def test_runs_are_chosen_one_at_a_time(
    open_page: Callable[..., Opened], write: Callable[..., Path], hostile: Run, run: Run
) -> None:
    opened = open_page(write(run, hostile))
    select = opened.page.locator("#choice select[name=run]")
    assert select.locator("option").all_inner_texts() == ["mine", "hostile"]
    before = opened.page.locator("#chips").inner_text()
    opened.choose("run", "hostile")
    assert opened.page.locator("#chips").inner_text() != before
    assert "linformer" not in opened.page.locator("#answer").inner_text()
    assert opened.rows() == len(run.frame) + len(hostile.frame)


def test_accuracy_is_drawn_a_problem_at_a_time_over_its_seeds(
    open_page: Callable[..., Opened], write: Callable[..., Path], trained: Run, run: Run
) -> None:
    opened = open_page(write(trained, run))
    assert opened.page.locator("#choice select[name=run]").input_value() == "mine"  # the most candidates
    select = opened.page.get_by_label("Metric against latency")
    assert select.locator("option").all_inner_texts()[2:] == [
        "top1 · classification digits", "top1 · recall items=12", "top1 · recall items=56"
    ]  # fmt: skip
    opened.choose("run", "trained")
    assert "seed=" not in "".join(opened.page.locator("#answer, #chips").all_inner_texts())
    assert select.locator("option").all_inner_texts() == ["top1 · classification digits"]  # the latency is that model's
    marks = "one => one.data.filter(trace => trace.name).map(trace => [trace.name, trace.x[0], trace.y[0]])"
    drawn = {name: (x, y) for name, x, y in opened.page.locator("#plot-pareto").evaluate(marks)}
    assert drawn == {
        "flash": (3.0, pytest.approx(0.91)), "anchor init=paper m=16": (2.5, pytest.approx(0.61)),
        "anchor init=orthogonal logits=cosine m=16": (2.6, pytest.approx(0.95)),
    }  # fmt: skip
    best = "one => { const line = one.data.find(trace => trace.mode === 'lines'); return [line.x, line.y]; }"
    assert opened.page.locator("#plot-pareto").evaluate(best) == [
        [2.5, 2.6],
        [pytest.approx(0.61), pytest.approx(0.95)],
    ]
    assert opened.rows() == len(trained.frame) + len(run.frame)
    assert "Only n = 65 was measured" in opened.page.locator("#plot-crossover").inner_text()
    assert opened.complaints == []


def test_of_an_error_less_is_better(open_page: Callable[..., Opened], write: Callable[..., Path], solved: Run) -> None:
    """The slower one is worth its time where it is less wrong, and the caption says which corner is best."""
    opened = open_page(write(solved))
    chart = opened.page.locator("#plot-pareto")
    assert opened.page.get_by_label("Metric against latency").locator("option").all_inner_texts() == [
        "relative_l2 · operator"
    ]
    best = "one => { const line = one.data.find(trace => trace.mode === 'lines'); return [line.x, line.y]; }"
    assert chart.evaluate(best) == [[1.0, 3.0], [pytest.approx(0.09), pytest.approx(0.07)]]
    assert "relative L2 error" in chart.inner_text()
    assert "Lower left is better" in opened.page.locator("body").inner_text()
    assert opened.complaints == []


def test_long_names_keep_their_m_and_fit_a_phone(
    open_page: Callable[..., Opened], write: Callable[..., Path], tmp_path: Path
) -> None:
    long = "init=orthogonal;logits=cosine"
    told = [
        *(Told("flash", n=n, ms=n / 100) for n in (256, 1024)),
        *(Told("anchor", n=n, m=m, ms=n / 1000, options=o) for n in (256, 1024) for m in (16, 64) for o in (long, "")),
    ]  # fmt: skip
    phone = open_page(write(stored(tmp_path / "long", told)), width=390)
    assert phone.page.locator(".headline .name").all_inner_texts()[1].startswith("anchor")
    phone.choose("m", "all")
    assert phone.page.evaluate("document.documentElement.scrollWidth") == 390
    ticks = phone.page.locator("#plot-crossover .ytick").all_text_contents()
    assert sum(text.endswith("… m=16") for text in ticks) == sum(text.endswith("… m=64") for text in ticks) == 1


def test_failures_lie_where_the_worst_values_do(report: Opened) -> None:
    places = "one => one.data.filter(trace => trace.yaxis === 'y2').flatMap(trace => trace.y)"
    assert min(report.page.locator("#plot-latency").evaluate(places)) > 0.5
    assert max(report.page.locator("#plot-speedup").evaluate(places)) < 0.5


def test_another_backend_is_marked_in_charts_and_tables(
    open_page: Callable[..., Opened], write: Callable[..., Path], tmp_path: Path
) -> None:
    """Hollow with the figures' caption, told on hover, and `*` in the map and the rows."""
    backends = {256: "reference", 1024: "reference", 16384: "chunked"}
    told = [Told("anchor", n=n, m=64, ms=n / 1e3, backend=backend) for n, backend in backends.items()]
    opened = open_page(
        write(stored(tmp_path / "switched", [*told, *(Told("flash", n=n, ms=n / 1e2) for n in backends)]))
    )
    plot = opened.page.locator("#plot-latency")
    traces = dict(plot.evaluate("one => one.data.map(trace => [trace.name, trace])"))
    assert traces["anchor m=64"]["marker"]["symbol"] == ["diamond", "diamond", "diamond-open"]
    assert "-open" not in traces["flash"]["marker"]["symbol"]
    hover = traces["anchor m=64"]["hovertext"]
    assert [text.partition("; ")[2] for text in hover] == ["", "", "by another backend: chunked, else by reference"]
    note = "Hollow marks: another backend (anchor m=64: chunked at n=16k)."
    for name in ("latency", "speedup", "peak_memory"):
        assert note in opened.page.locator(f"#chart-{name} .caption").inner_text()
    words = [text for row in opened.page.locator("#plot-map").evaluate("one => one.data[0].text") for text in row]
    assert [text.endswith(" *") for text in words] == [False, False, True]
    opened.page.get_by_label("Filter the rows").fill("note:chunked metric=latency")
    opened.page.wait_for_selector(".count:text-is('1 of 12 rows')")
    assert opened.column("value") == ["16.384 *"]
    assert opened.column("note") == ["by another backend: chunked, else by reference"]
    assert opened.complaints == []


def test_a_narrow_span_has_ticks(open_page: Callable[..., Opened], write: Callable[..., Path], tmp_path: Path) -> None:
    told = [Told("flash", n=64, memory=0.24), Told("anchor", n=64, m=16, ms=0.9, memory=0.19)]
    opened = open_page(write(stored(tmp_path / "narrow", told)))
    assert len(opened.page.locator("#plot-peak_memory .ytick").all()) >= 2


# The address, files and a single n


def test_a_link_shows_what_its_sender_sees(open_page: Callable[..., Opened], page_file: Path) -> None:
    mine = open_page(page_file)
    assert mine.page.evaluate("location.hash") == ""  # as it opens: nothing to say
    mine.choose("phase", "train")
    mine.choose("n", "1024")
    mine.choose("m", "16")
    mine.choose("among", "exact")
    mine.page.locator("#chips button", has_text="linformer").click()
    mine.settle()
    mine.page.get_by_label("Filter the rows").fill("n>=4k status=ok")
    mine.until("location.hash.includes('rows=')")
    mine.page.get_by_label("metric", exact=True).select_option("flops")
    for _ in range(2):
        mine.page.locator(".grid .head [data-column=value] button").click()
    address, rows, first = mine.page.evaluate("location.href"), mine.rows(), mine.column("value")[0]
    theirs = open_page(page_file)
    theirs.page.evaluate(f"location.href = {address!r}")
    theirs.until("document.querySelector('#choice select[name=phase]').value === 'train'")
    theirs.settle()
    told = {name: theirs.page.locator(f"#choice select[name={name}]").input_value() for name in ("n", "m", "among")}
    assert told == {"n": "1024", "m": "16", "among": "exact"}
    hidden = theirs.page.locator("#chips button[aria-pressed=false]").all_inner_texts()
    assert [text.strip() for text in hidden] == ["linformer"]
    assert theirs.page.get_by_label("Filter the rows").input_value() == "n>=4k status=ok"
    assert (theirs.rows(), theirs.column("value")[0]) == (rows, first)
    assert theirs.page.locator(".headline").inner_text() == mine.page.locator(".headline").inner_text()
    assert mine.complaints == theirs.complaints == []
    theirs.page.evaluate("location.hash = ''")
    theirs.until("document.querySelector('#choice select[name=phase]').value === 'forward'")
    theirs.settle()
    assert theirs.page.locator("#chips button[aria-pressed=false]").count() == 0


@pytest.mark.parametrize(
    "strange",
    ["phase=sideways&n=many&m=7&hide=nobody&sort=-nothing&rows-metric=x", "%E0%A4%A", "n=1e999&n=0", "=&&=&;"],
)
def test_an_address_of_another_page_is_passed_over(
    open_page: Callable[..., Opened], page_file: Path, strange: str
) -> None:
    opened = open_page(page_file)
    before = opened.page.locator(".headline").inner_text()
    opened.page.evaluate(f"location.hash = {strange!r}")
    opened.page.wait_for_timeout(50)
    opened.settle()
    assert opened.page.locator(".headline").inner_text() == before
    assert opened.complaints == []


def saved(opened: Opened, button: Any) -> str:
    """What a button hands over as a file."""
    with opened.page.expect_download() as waiting:
        button.click()
    return Path(waiting.value.path()).read_text(encoding="utf-8")


def test_tables_are_saved_as_markdown(report: Opened, run: Run) -> None:
    report.page.get_by_label("Filter the rows").fill("metric=latency status=ok phase=forward")
    report.until("location.hash.includes('rows=')")
    text = saved(report, report.page.locator("#table button", has_text="Save as Markdown"))
    head, rule, *lines = text.splitlines()
    assert head.startswith("| variant | m | n | metric | value | unit |")
    assert rule.count("---") == head.count("|") - 1
    assert len(lines) == report.rows()
    assert all(line.count(" | ") == head.count(" | ") for line in lines)
    answer = saved(report, report.page.locator("#answer button", has_text="Save as Markdown"))
    lines = report.page.locator(".headline .line").all_inner_texts()
    assert [line.strip("*") for line in answer.splitlines() if line.startswith("**")] == lines
    assert "scope core · forward · float32 · b=1 h=6 d=64" in answer
    assert answer.count("\n| ") == 2 + report.page.locator(".ranking tbody tr").count()
    report.page.get_by_label("Filter the rows").fill("")
    report.until("!location.hash.includes('rows=')")


def test_hostile_text_stays_text_in_markdown(
    open_page: Callable[..., Opened], write: Callable[..., Path], hostile: Run
) -> None:
    opened = open_page(write(hostile))
    text = saved(opened, opened.page.locator("#table button", has_text="Save as Markdown"))
    assert "\\<img src=x onerror=boom()>" in text
    assert len(text.splitlines()) == opened.rows() + 2


def test_one_n_is_rows_of_dots_as_in_the_picture(
    open_page: Callable[..., Opened], write: Callable[..., Path], tmp_path: Path
) -> None:
    told = [
        Told("full", n=64, status="oom", note="needs 9 GB"), Told("flash", n=64, ms=1.0),
        Told("anchor", n=64, m=16, ms=0.5), Told("anchor", n=64, m=32, ms=0.75),
    ]  # fmt: skip
    opened = open_page(write(stored(tmp_path / "one", told)))
    opened.choose("m", "all")
    plot = opened.page.locator("#plot-latency")
    names = [text for text in plot.locator(".ytick").all_text_contents() if text]
    assert names == ["full", "flash", "anchor m=16", "anchor m=32"]
    words = plot.locator(".annotation").all_text_contents()
    assert words == ["oom", "1.00 ms", "0.500 ms", "0.750 ms"]
    drawn = plot.evaluate("one => one.data.map(trace => [trace.mode, trace.x[0], trace.y[0]])")
    assert drawn == [["markers", 1.0, 1], ["markers", 0.5, 2], ["markers", 0.75, 3]]
    assert plot.locator(".xtitle").text_content() == "latency (ms)"
    assert "n = 64" in opened.page.locator("#chart-latency .caption").inner_text()
    assert opened.complaints == []


def test_failed_cases_are_read_on_a_phone(open_page: Callable[..., Opened], page_file: Path) -> None:
    """No reason hangs over the edge of the screen."""
    phone = open_page(page_file, width=390)
    cells = phone.page.locator("#gaps .plain td")
    assert cells.count() > 10
    right = cells.evaluate_all("all => Math.max(...all.map(one => one.getBoundingClientRect().right))")
    narrow = phone.page.locator("#gaps .wide").evaluate_all(
        "all => Math.min(...all.map(one => one.getBoundingClientRect().width))"
    )
    assert right <= 390
    assert narrow > 300
    wide = open_page(page_file).page.locator("#gaps thead").first
    assert wide.is_visible()
