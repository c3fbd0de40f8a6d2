// What time buys (error and accuracy against latency), and from which n a variant overtakes the base.

const ACCURACIES = { top1: "top-1 accuracy", top5: "top-5 accuracy", map: "box AP", map50: "box AP50", map75: "box AP75", miou: "mean IoU", relative_l2: "relative L2 error" };
const ERRORS = {
  approximation_error: "approximation error (against full)",
  numeric_error: "numeric error (against float64)",
};
const MOST_NAMED = 4;

/** What the chart can draw: [value, text] of this setting's errors, then of the accuracies of each problem; beside a trained model's latency its own alone. */
function spreadMetrics(view) {
  const errors = Object.keys(ERRORS).filter((name) => (view.byMetric.get(name) || []).some((row) => isGood(view, row)));
  const judged = new Map();
  for (const point of view.about.accuracies) {
    if (latencyOf(view, point) !== null) judged.set(`${point.metric}|${point.problem}`, `${point.metric} · ${point.problem}`);
  }
  const own = [...judged].filter(([value]) => `model ${value.slice(value.indexOf("|") + 1)} `.startsWith(`${view.setting.values.scope} `));
  return [...errors.map((name) => [name, name.replace("_", " ")]), ...(own.length ? own : judged)];
}

CHARTS.push({
  id: "pareto", title: "Error and accuracy",
  build(view) {
    const metrics = spreadMetrics(view);
    if (!metrics.length) {
      const why = view.setting.values.phase === "forward" && view.setting.values.scope === "core" ? "was not measured" : "is defined for phase forward of scope core";
      this.controls.replaceChildren();
      const accuracy = view.about.accuracies.length ? `no trained model of this page has a latency at n = ${view.state.n} here` : "no row of this page is an accuracy";
      return { none: `The approximation error ${why}, and ${accuracy}.` };
    }
    if (!metrics.some(([value]) => value === this.metric)) this.metric = metrics[0][0];
    const options = metrics.map(([value, text]) => make("option", { value, selected: value === this.metric }, text));
    const choose = make("select", { "aria-label": "Metric against latency", onchange: (event) => { this.metric = event.target.value; this.redraw(); } }, ...options);
    this.controls.replaceChildren(choose);
    return this.metric in ERRORS ? errorSpread(view, this.metric) : accuracySpread(view, this.metric);
  },
});

/** One line a variant through its m at the chosen n; for the approximation error, exact variants at their latency. */
function errorSpread(view, metric) {
  const { cell, about } = view.data;
  const n = view.state.n;
  const at = (name) => (view.byMetric.get(name) || []).filter((row) => cell("n", row) === n && view.shown(row) && cell("status", row) === "ok");
  const latency = new Map(at("latency").filter((row) => cell("value", row) > 0).map((row) => [cell("case_id", row), row]));
  const exact = new Set(about.exact);
  const isLine = (row) => metric === "approximation_error" && exact.has(cell("attention", row));
  const rows = at(metric).filter((row) => latency.has(cell("case_id", row)));
  const points = rows.filter((row) => !isLine(row) && cell("value", row) > 0);
  const lines = [...latency.values()].filter((row) => isLine(row));
  if (!points.length && !lines.length) return { none: `No ${metric.replace("_", " ")} with a latency beside it at n = ${n}.` };
  const time = (row) => cell("value", latency.get(cell("case_id", row)));
  const ys = points.map((row) => cell("value", row));
  if (!ys.length) ys.push(1e-3, 1);
  const xs = [...points.map(time), ...lines.map((row) => cell("value", row))];
  const y = logAxis(view, ERRORS[metric], ys, { most: 6 });
  const data = frontier(view, points.map((row) => [time(row), cell("value", row)]), lines.map((row) => cell("value", row)), y.range);
  for (const line of linesOf(view, lines)) {
    const row = line.rows[0];
    const value = cell("value", row);
    const text = `${named(line.series, null)} is exact: ${told(value, cell("ci_low", row), cell("ci_high", row), "ms")}; its error is rounding`;
    data.push(lineTrace(view, line, [value, value], y.range.map((end) => 10 ** end), [text, text]));
  }
  const chains = new Map();
  for (const line of linesOf(view, points)) {
    if (!chains.has(line.series)) chains.set(line.series, { series: line.series, m: null, rows: [] });
    chains.get(line.series).rows.push(...line.rows);
  }
  const ms = [...new Set(points.map((row) => cell("m", row)))].sort((a, b) => a - b);
  for (const chain of chains.values()) {
    const x = chain.rows.map(time);
    const values = chain.rows.map((row) => cell("value", row));
    const spread = ["ci_low", "ci_high"].map((end) => chain.rows.map((row) => cell(end, latency.get(cell("case_id", row)))));
    const words = chain.rows.map((row, i) => `${named(chain.series, cell("m", row))}, n = ${n}: ${metric.replace("_", " ")} ${figure(values[i])} at ${told(x[i], spread[0][i], spread[1][i], "ms")}`);
    const trace = lineTrace(view, chain, x, values, words, { error_x: intervals(x, ...spread, view.look(chain.series).color) });
    trace.marker.size = chain.rows.map((row) => (ms.length > 1 ? 7 + 9 * (ms.indexOf(cell("m", row)) / (ms.length - 1)) : 9));
    data.push(trace);
  }
  const frontierTold = metric === "approximation_error" ? "Dotted: nothing measured is both faster and closer to softmax attention" : "Dotted: nothing measured is both faster and more precise";
  return {
    data, layout: { xaxis: logAxis(view, "latency (ms)", xs), yaxis: y },
    caption: [`n = ${n}, every m; larger mark: larger m. Lower left is better`, lines.length ? "Vertical lines: exact variants" : "", frontierTold, switchNote(view, linesOf(view, [...points, ...lines])),
      metric === "approximation_error" ? "Random inputs: what an error costs on a task it does not say" : ""],
  };
}

/** The staircase of points that no other beats in both; a latency in `exact` beats every slower point, its error being 0. */
function frontier(view, points, exact, range) {
  const limit = Math.min(Infinity, ...exact);
  const best = [];
  for (const [x, y] of points.sort((a, b) => a[0] - b[0] || a[1] - b[1])) {
    if (x < limit && (!best.length || y < best[best.length - 1][1])) best.push([x, y]);
  }
  if (!best.length) return [];
  const x = [], y = [];
  best.forEach(([at, value], i) => {
    if (i) { x.push(at); y.push(best[i - 1][1]); }
    x.push(at);
    y.push(value);
  });
  if (Number.isFinite(limit)) { x.push(limit, limit); y.push(y[y.length - 1], 10 ** range[0]); }
  return [{ type: "scatter", mode: "lines", x, y, hoverinfo: "skip", line: { color: view.inks.faint, width: 1.5, dash: "2px,3px" } }];
}

/** The latency row at the chosen n that a trained model's attention, options and m have; a run without options stands for all. */
function latencyOf(view, { attention, own, m }) {
  const { cell } = view.data;
  const fits = (row, options) => isGood(view, row) && cell("n", row) === view.state.n && cell("attention", row) === attention && cell("m", row) === m && cell("own", row) === options;
  const rows = view.byMetric.get("latency") || [];
  const found = [own, ""].map((options) => rows.filter((row) => fits(row, options))).find((list) => list.length) || [];
  return found.reduce((best, row) => (best === null || cell("value", row) < cell("value", best) ? row : best), null);
}

/** Accuracies of one problem against latency: the mean over seeds with its interval, the seeds as dots, the best as a staircase. */
function accuracySpread(view, chosen) {
  const { cell } = view.data;
  const n = view.state.n;
  const [metric, problem] = [chosen.slice(0, chosen.indexOf("|")), chosen.slice(chosen.indexOf("|") + 1)];
  const all = view.about.accuracies.filter((point) => point.metric === metric && point.problem === problem).map((point) => ({ ...point, time: latencyOf(view, point), name: named(point.attention + point.own, point.m) }));
  const lost = all.filter((point) => point.time === null).map((point) => point.name);
  const more = lost.length > MOST_NAMED ? ` and ${lost.length - MOST_NAMED} more` : "";
  const lacking = lost.length ? `No latency at n = ${n} here for ${lost.slice(0, MOST_NAMED).join(", ")}${more}` : "";
  const points = all.filter((point) => point.time !== null && view.shown(point.time));
  if (!points.length) return { none: lacking || `No ${metric} of a variant that is shown.` };
  const ms = (point) => cell("value", point.time);
  const merit = (point) => (point.less ? -point.mean : point.mean);
  const { less } = points[0];
  const steps = [];
  for (const point of [...points].sort((a, b) => ms(a) - ms(b) || merit(b) - merit(a))) {
    if (!steps.length || merit(point) > merit(steps[steps.length - 1])) steps.push(point);
  }
  const traces = [{ type: "scatter", mode: "lines", x: steps.map(ms), y: steps.map((point) => point.mean), hoverinfo: "skip", line: { color: view.inks.faint, width: 1.5, dash: "2px,3px", shape: "hv" } }];
  for (const point of points) {
    const line = { series: cell("series", point.time), m: point.m, rows: [point.time] };
    const { color } = view.look(line.series);
    const seeds = point.values.length > 1 ? ` (mean of ${point.values.length} seeds, ${figure(Math.min(...point.values))} to ${figure(Math.max(...point.values))})` : " (one seed)";
    const text = `${point.name}: ${metric} ${figure(point.mean)}${seeds} at ${told(ms(point), cell("ci_low", point.time), cell("ci_high", point.time), "ms")}; run ${point.runs.join(", ")}`;
    if (point.values.length > 1) {
      traces.push({ type: "scatter", mode: "markers", x: point.values.map(() => ms(point)), y: point.values, hoverinfo: "skip", marker: { color, size: 5, opacity: 0.6 } });
    }
    const half = point.half === null ? [null, null] : [Math.max(0, point.mean - point.half), Math.min(less ? Infinity : 1, point.mean + point.half)];
    const own = lineTrace(view, line, [ms(point)], [point.mean], [text], { mode: "markers", name: plain(point.name), error_y: intervals([point.mean], [half[0]], [half[1]], color) });
    own.marker.size = 12;
    traces.push(own);
  }
  const seeded = points.some((point) => point.values.length > 1);
  return {
    data: traces, layout: { xaxis: logAxis(view, `latency at n = ${n} (ms)`, points.map(ms)), yaxis: axis(view, ACCURACIES[metric], { rangemode: "normal" }) },
    caption: [`Models trained for ${problem}, against the latency measured here`, seeded ? "Marks: mean over the seeds (dots), bars its 95 % interval" : "Marks: one seed each, so that small differences say nothing",
      `${less ? "Lower" : "Upper"} left is better. Dotted: the ${less ? "least wrong" : "most accurate"} at its latency or less`, lacking, switchNote(view, linesOf(view, points.map((point) => point.time)))],
  };
}

CHARTS.push({
  id: "crossover", title: "Crossover",
  build(view) {
    const { setting, inks } = view;
    const { base } = setting;
    if (!base) return { none: "Neither flash nor full has a latency here, so there is nothing to overtake." };
    const mine = setting.crossings.filter(({ series, m }) => !view.state.hidden.has(series) && (view.state.m === "all" || m === null || String(m) === view.state.m));
    if (!mine.length) return { none: `No shown variant was measured at the same n as ${base}.` };
    if (setting.n.length === 1) return { none: `Only n = ${setting.n[0]} was measured: from which n a variant overtakes ${base} takes two.` };
    mine.sort((a, b) => view.order.get(b.series) - view.order.get(a.series) || (b.m ?? -1) - (a.m ?? -1));
    const [first, last] = [setting.n[0], setting.n[setting.n.length - 1]];
    const data = [], annotations = [];
    mine.forEach((one, at) => {
      const { color, symbol } = view.look(one.series);
      const hovertext = plain(one.sentence);
      const bar = (x, width, opacity) => data.push({ type: "scatter", mode: "lines", x, y: x.map(() => at), line: { color, width }, opacity, hoverinfo: "text", hovertext });
      if (one.kind === "never" || one.kind === "refused") {
        annotations.push({ text: one.kind === "refused" ? "no answer" : `not up to ${tokens(one.last)}`, x: 1, xref: "paper", xanchor: "right", y: at, showarrow: false, font: { size: 12, color: inks.faint } });
        data.push({ type: "scatter", mode: "markers", x: [last], y: [at], hoverinfo: "text", hovertext, marker: { color: inks.panel, opacity: 0, size: 18 } });
        return;
      }
      const from = one.kind === "always" ? one.first : one.n;
      bar([from, last], 3, 0.35);
      if (one.kind === "found" && one.high > (one.low ?? first)) bar([one.low ?? first, one.high], 9, 0.5);
      data.push({ type: "scatter", mode: "markers", x: [from], y: [at], hoverinfo: "text", hovertext, marker: { color, symbol: one.kind === "always" ? "triangle-left" : symbol, size: 11 } });
    });
    return {
      data, height: Math.max(240, 60 + 30 * mine.length),
      layout: {
        xaxis: tokenAxis(view, setting.n), annotations, margin: { l: 110, r: 14, t: 8, b: 46 },
        yaxis: axis(view, "", { tickvals: mine.map((_, at) => at), ticktext: mine.map((one) => plain(named(clipped(one.series, 26), one.m))), range: [-0.7, mine.length - 0.3], showgrid: false, fixedrange: true }),
      },
      caption: [`From which n a variant is faster than ${base}: mark, with the stretch between the nearest measured n at which each wins for sure (thick)`,
        "◀: from the smallest n measured on. harness crossover measures between these n"],
    };
  },
});
