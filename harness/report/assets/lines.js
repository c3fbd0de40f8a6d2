// Charts against n: latency, memory and the speed-up over the base.

/** Lines over n of one metric, failures as marks where the worst values lie. unit: of the rows, or × for the speed-up; low: less is worse. */
function overTokens(view, { metric, columns, label, unit, skip, shapes = [], include = [], low: worstLow = false }) {
  const { cell } = view.data;
  const [value, low, high] = columns;
  const rows = (view.byMetric.get(metric) || []).filter((row) => view.chosen(row) && !(skip && skip(row)));
  const good = rows.filter((row) => isGood(view, row, value));
  if (!good.length) return null;
  if (view.setting.n.length === 1) return inRows(view, { metric, columns, label, unit, include, rows });
  const data = [];
  const every = [...include];
  const marked = [];
  for (const line of linesOf(view, rows)) {
    const own = line.rows;
    const y = own.map((row) => (isGood(view, row, value) ? cell(value, row) : null));
    if (own.some((row) => cell("status", row) in FAILED)) marked.push(line);
    if (y.every((at) => at === null)) continue;
    const lows = own.map((row) => cell(low, row));
    const highs = own.map((row) => cell(high, row));
    every.push(...y, ...lows, ...highs);
    const x = own.map((row) => cell("n", row));
    const hover = own.map((row, at) => `${named(line.series, line.m)}, n = ${x[at]}: ${told(y[at], lows[at], highs[at], unit(row))}`);
    const { color } = view.look(line.series);
    data.push(lineTrace(view, line, x, y, hover, { error_y: intervals(y, lows, highs, color) }));
  }
  marked.push(...failedLines(view, metric, marked));
  const series = [...new Set(marked.map((line) => line.series))];
  data.push(...failureMarks(view, marked, series, worstLow));
  const room = series.length ? Math.min(0.3, 0.05 + 0.055 * series.length) : 0;
  return {
    data,
    layout: {
      xaxis: tokenAxis(view, view.setting.n), yaxis: logAxis(view, label, every, { room, below: worstLow }),
      yaxis2: { overlaying: "y", range: [0, 1], visible: false, fixedrange: true }, shapes,
    },
    failed: series.length > 0, switched: switchNote(view, linesOf(view, good)),
  };
}

const ROW_PIXELS = 30;

/** The values at the only n there is: a row a variant and m, its value in words at the right, a status where it has none. */
function inRows(view, { metric, columns, label, unit, include, rows }) {
  const { cell } = view.data;
  const [value, low, high] = columns;
  const measured = linesOf(view, rows);
  const lines = linesOf(view, [...rows, ...failedLines(view, metric, measured).flatMap((line) => line.rows)]);
  const names = lines.map((line) => clipped(named(line.series, line.m), view.narrow ? 22 : 34));
  const every = [...include];
  const data = [];
  const words = lines.map((line, at) => {
    const [row] = line.rows;
    const own = isGood(view, row, value) ? cell(value, row) : null;
    if (own === null) return { at, text: cell("status", row), color: view.inks.faint };
    const [least, most] = [cell(low, row), cell(high, row)];
    every.push(own, least, most);
    const hover = `${named(line.series, line.m)}, n = ${cell("n", row)}: ${told(own, least, most, unit(row))}`;
    const { color } = view.look(line.series);
    data.push(lineTrace(view, line, [own], [at], [hover], { mode: "markers", error_x: intervals([own], [least], [most], color) }));
    return { at, text: `${figure(own)}${unit(row) === "×" ? "×" : unit(row) === "1" ? "" : ` ${unit(row)}`}`, color: view.inks.ink };
  });
  const vertical = include.map((x) => ({ type: "line", yref: "paper", x0: x, x1: x, y0: 0, y1: 1, line: { color: view.inks.ink, width: 1.2 } }));
  return {
    data, height: Math.max(340, ROW_PIXELS * lines.length + 80),
    layout: {
      xaxis: logAxis(view, label, every, { room: view.narrow ? 0.4 : 0.2 }), shapes: vertical,
      yaxis: axis(view, "", { tickvals: lines.map((_, at) => at), ticktext: names.map(plain), range: [lines.length - 0.4, -0.6], showgrid: false, fixedrange: true }),
      annotations: words.map(({ at, text, color }) => ({ xref: "paper", x: 1, xanchor: "right", y: at, yanchor: "middle", text: plain(text), showarrow: false, font: { color, size: 12 } })),
    },
    failed: false, only: `n = ${cell("n", rows[0])}`,
  };
}

/** Lines whose cases failed as a whole carry no row of this metric: their failed case stands in. */
function failedLines(view, metric, already) {
  const { cell } = view.data;
  const known = new Set(already.map((line) => named(line.series, line.m)));
  const rows = [];
  for (const [name, own] of view.byMetric) {
    if (name !== metric) rows.push(...own.filter((row) => cell("whole", row) && view.chosen(row) && cell("status", row) in FAILED));
  }
  return linesOf(view, rows).filter((line) => !known.has(named(line.series, line.m)));
}

function failureMarks(view, lines, series, low) {
  const { cell } = view.data;
  return lines.flatMap((line) => {
    const rows = line.rows.filter((row) => cell("status", row) in FAILED);
    if (!rows.length) return [];
    const inward = 0.035 + 0.055 * Math.min(series.indexOf(line.series), 5);
    const place = low ? inward : 1 - inward;
    const { color } = view.look(line.series);
    return [{
      type: "scatter", mode: "markers", yaxis: "y2", x: rows.map((row) => cell("n", row)), y: rows.map(() => place), hoverinfo: "text",
      hovertext: rows.map((row) => plain(`${named(line.series, line.m)}, n = ${cell("n", row)}: ${cell("status", row)}: ${cell("note", row)}`)),
      marker: { symbol: rows.map((row) => FAILED[cell("status", row)][0]), size: 10, color, line: { width: 2.2, color } }, cliponaxis: false,
    }];
  });
}

const SEEDS_TOLD = "A model of several seeds: the median of theirs, its interval from the lowest end to the highest";
const MARKS_TOLD = "× out of memory, + timeout, Y error";

function metricChart(id, title, label, remark) {
  CHARTS.push({
    id, title,
    build(view) {
      const unit = (row) => view.data.cell("unit", row);
      const first = (view.byMetric.get(id) || []).find((row) => isGood(view, row));
      if (first === undefined) return { none: `No value of ${id} in this selection.` };
      const built = overTokens(view, { metric: id, columns: ["value", "ci_low", "ci_high"], label: `${label} (${unit(first)})`, unit });
      if (!built) return { none: `No value of ${id} for the variants and m that are shown.` };
      return { ...built, caption: [built.only, remark, built.switched, view.setting.seeds ? SEEDS_TOLD : "", built.failed ? `Marks at the top: ${MARKS_TOLD}` : ""] };
    },
  });
}

metricChart("latency", "Latency", "latency", "Medians with 95 % intervals");

CHARTS.push({
  id: "speedup", title: "Speed-up",
  build(view) {
    const { base } = view.setting;
    if (!base) return { none: "Neither flash nor full has a latency here, so there is nothing to compare with." };
    const line = { type: "line", xref: "paper", x0: 0, x1: 1, y0: 1, y1: 1, line: { color: view.inks.ink, width: 1.2 } };
    const built = overTokens(view, {
      metric: "latency", columns: ["speed", "speed_low", "speed_high"], label: `speed-up over ${plain(base)} (×)`, unit: () => "×",
      skip: (row) => view.data.cell("series", row) === base, shapes: [line], include: [1], low: true,
    });
    if (!built) return { none: `Nothing that is shown was measured at a size where ${base} was, too.` };
    const lacking = base.startsWith("flash") ? "" : "No flash in this run: full is the base";
    return { ...built, caption: [built.only, `Ratio of medians with 95 % intervals; above 1 is faster than ${base}`, lacking, built.switched, view.setting.seeds ? SEEDS_TOLD : "", built.failed ? `Marks at the bottom: ${MARKS_TOLD}` : ""] };
  },
});

metricChart("peak_memory", "Memory", "peak memory", "Most bytes alive above the inputs, output included");
