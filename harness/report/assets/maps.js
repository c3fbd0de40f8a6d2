// The n × m map and the roofline.

const SLOW_TO_FAST = [[0, "#8c1c13"], [0.25, "#d6604d"], [0.42, "#f4c3ab"], [0.5, "#f4f4f2"], [0.58, "#b3d3e8"], [0.75, "#4393c3"], [1, "#114a85"]];
const MOST_REACH = 64, CELL = 34, TITLE = 24;

CHARTS.push({
  id: "map", title: "n × m map",
  build(view) {
    const { cell } = view.data;
    const { setting, inks } = view;
    const rows = (view.byMetric.get("latency") || []).filter((row) => view.shown(row) && cell("m", row) !== null);
    const good = rows.filter((row) => isGood(view, row));
    if (!good.length) return { none: "No variant with an m has a latency here." };
    const series = [...new Set(linesOf(view, good).map((line) => line.series))];
    const ns = [...new Set(rows.map((row) => cell("n", row)))].sort((a, b) => a - b);
    const ms = [...new Set(rows.map((row) => cell("m", row)))].sort((a, b) => a - b);
    const ratio = good.some((row) => cell("speed", row) > 0);
    const column = ratio ? "speed" : "value";
    const values = good.map((row) => cell(column, row)).filter((value) => value > 0);
    const reach = Math.log10(Math.min(MOST_REACH, Math.max(2, ...values, ...(ratio ? values.map((value) => 1 / value) : []))));
    const [low, high] = ratio ? [-reach, reach] : [Math.log10(Math.min(...values)), Math.log10(Math.max(...values))];
    const height = series.length * (ms.length * CELL + TITLE + 12) + 74;
    const step = Math.ceil(ns.length / (view.narrow ? 7 : 12));
    const kept = ns.map((_, i) => i).filter((i) => (ns.length - 1 - i) % step === 0);
    const words = ns.length <= (view.narrow ? 5 : 12);
    const data = [], annotations = [], layout = {};
    series.forEach((name, at) => {
      const place = new Map(rows.filter((row) => cell("series", row) === name).map((row) => [`${cell("n", row)}|${cell("m", row)}`, row]));
      const each = (read) => ms.map((m) => ns.map((n) => read(place.get(`${n}|${m}`), n, m)));
      const ok = (row) => row !== undefined && isGood(view, row);
      const y = at ? `y${at + 1}` : "y";
      const top = 1 - at / series.length;
      const bottom = 1 - (at + 1) / series.length;
      const title = (TITLE / (ms.length * CELL + TITLE + 12)) * (top - bottom);
      data.push({
        type: "heatmap", x: ns.map((_, i) => i), y: ms.map((_, i) => i), yaxis: y, xgap: 2, ygap: 2, zmin: low, zmax: high,
        z: each((row) => (ok(row) && cell(column, row) > 0 ? Math.log10(cell(column, row)) : null)), colorscale: ratio ? SLOW_TO_FAST : "Viridis",
        text: each((row) => (ok(row) && words ? `${figure(cell("value", row))}${cell("switched", row) ? " *" : ""}` : "")), texttemplate: "%{text}", textfont: { size: 12 },
        hovertext: each((row, n, m) => plain(row === undefined ? `n = ${n}, m = ${m}: not part of this run` : mapWords(view, row, name))), hoverinfo: "text",
        hoverongaps: true, showscale: at === 0 && !view.narrow,
        colorbar: at ? undefined : scaleBar(view, low, high, ratio ? `over ${plain(setting.base)}` : "ms"),
      });
      layout[`yaxis${at ? at + 1 : ""}`] = axis(view, "", {
        domain: [bottom + 0.03 * (top - bottom), top - title], tickvals: ms.map((_, i) => i), ticktext: ms.map((m) => `m=${m}`), showgrid: false, showline: false,
        fixedrange: true, range: [-0.5, ms.length - 0.5],
      });
      annotations.push({ text: `<b>${plain(name)}</b>`, xref: "paper", yref: "paper", x: 0, y: top, xanchor: "left", yanchor: "top", showarrow: false, font: { size: 13, color: view.look(name).color } });
      each((row, n, m) => {
        if (row !== undefined && !isGood(view, row) && words) {
          annotations.push({ text: plain(mapShort(cell("status", row))), x: ns.indexOf(n), y: ms.indexOf(m), yref: y, showarrow: false, font: { size: 11, color: inks.faint } });
        }
      });
    });
    layout.xaxis = axis(view, "n (tokens)", { anchor: series.length > 1 ? `y${series.length}` : "y", tickvals: kept, ticktext: kept.map((at) => tokens(ns[at])), showgrid: false, showline: false, range: [-0.5, ns.length - 0.5], fixedrange: true });
    const over = ratio ? `Colour: speed-up over ${setting.base} at the same n, blue is faster; grey cells have nothing to compare with` : "Colour: latency, yellow is slower";
    return { data, height, layout: { ...layout, annotations, plot_bgcolor: inks.empty, margin: { l: 58, r: 10, t: 8, b: 46 } }, caption: ["Cells: median latency in ms", over, good.some((row) => cell("switched", row)) ? "* by another backend" : "", "n/a: not supported or not available"] };
  },
});

function mapShort(status) {
  return status === "unsupported" || status === "unavailable" ? "n/a" : status;
}

function mapWords(view, row, name) {
  const { cell } = view.data;
  const where = `${named(name, cell("m", row))}, n = ${cell("n", row)}`;
  if (!isGood(view, row)) return `${where}: ${cell("status", row)}: ${cell("note", row)}`;
  const speed = cell("speed", row) === null ? "" : `, ${told(cell("speed", row), cell("speed_low", row), cell("speed_high", row), "×")} the speed of ${view.setting.base}`;
  const switched = cell("switched", row) ? `; ${cell("switched", row)}` : "";
  return `${where}: ${told(cell("value", row), cell("ci_low", row), cell("ci_high", row), "ms")}${speed}${switched}`;
}

function scaleBar(view, low, high, title) {
  const ticks = logTicks(10 ** low, 10 ** high, 7);
  return {
    title: { text: title, side: "right", font: { size: 12, color: view.inks.ink } }, thickness: 12, outlinewidth: 0, tickvals: ticks.map(Math.log10),
    ticktext: ticks.map((value) => `${tick(value)}${title === "ms" ? "" : "×"}`), tickfont: { size: 11, color: view.inks.ink },
  };
}

CHARTS.push({
  id: "roofline", title: "Roofline",
  build(view) {
    const { cell } = view.data;
    const { setting, inks } = view;
    const rows = (view.byMetric.get("flops_rate") || []).filter((row) => view.chosen(row) && isGood(view, row) && cell("intensity", row) > 0);
    if (!rows.length) return { none: "No shown case has flops_rate, latency and bytes_moved together." };
    const sizes = rows.map((row) => Math.log2(cell("n", row)));
    const [least, most] = [Math.min(...sizes), Math.max(...sizes)];
    const data = linesOf(view, rows).map((line) => lineTrace(
      view, line, line.rows.map((row) => cell("intensity", row)), line.rows.map((row) => cell("value", row)),
      line.rows.map((row) => `${named(line.series, line.m)}, n = ${cell("n", row)}: ${told(cell("value", row), cell("ci_low", row), cell("ci_high", row), cell("unit", row))} at ${figure(cell("intensity", row))} FLOPs a byte`),
      { marker: { ...lineTrace(view, line, [], [], []).marker, size: line.rows.map((row) => 5 + (most > least ? 7 * (Math.log2(cell("n", row)) - least) / (most - least) : 3)) } },
    ));
    const xs = rows.map((row) => cell("intensity", row));
    const ys = rows.map((row) => cell("value", row));
    let ceiling = "No ceilings were measured for this dtype and device";
    if (setting.roof) {
      const [copy, product] = setting.roof;
      xs.push(product / copy);
      ys.push(product);
      const [from, to] = [Math.min(...xs) / 4, Math.max(...xs) * 4];
      const x = [from, product / copy, to].sort((a, b) => a - b);
      data.unshift({ type: "scatter", mode: "lines", x, y: x.map((at) => Math.min(copy * at, product)), line: { color: inks.ink, width: 1.6 }, hoverinfo: "text",
        hovertext: x.map(() => plain(`measured ceiling: copy ${figure(copy * 1e3)} GB/s, matmul ${figure(product)} TFLOP/s`)) });
      ceiling = `The roof is what this device was measured to do: a large copy at ${figure(copy * 1e3)} GB/s, a large matrix product at ${figure(product)} TFLOP/s`;
    }
    const backward = setting.values.phase === "forward" ? "" : "A backward pass counts two forward passes, 2.5 for kernels that recompute the scores";
    return {
      data, layout: { xaxis: logAxis(view, "FLOPs per byte (least traffic)", xs), yaxis: logAxis(view, "TFLOP/s", ys) },
      caption: [ceiling, "FLOPs and least bytes are the cost model's. Larger mark: larger n", backward, switchNote(view, linesOf(view, rows))],
    };
  },
});
