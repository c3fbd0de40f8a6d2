// The data island: columns, gzipped. harness/report/island.py says how it is laid out.

async function unpacked(id) {
  const text = document.getElementById(id).textContent.trim();
  const bytes = Uint8Array.fromBase64 ? Uint8Array.fromBase64(text) : Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).arrayBuffer();
}

const KINDS = { uint8: Uint8Array, uint16: Uint16Array, uint32: Uint32Array, float64: Float64Array };

/** {about, count, columns, cell(name, row), rows(setting)}: a missing cell is null. */
async function loadData() {
  const block = await unpacked("data");
  const length = new DataView(block).getUint32(0, true);
  const { columns: described, ...about } = JSON.parse(new TextDecoder().decode(new Uint8Array(block, 4, length)));
  const start = 4 + length;
  const columns = {};
  for (const [name, { type, at, length: count, values }] of Object.entries(described)) {
    columns[name] = { array: new KINDS[type](block, start + at, count), values };
  }
  const count = columns.value.array.length;
  const cell = (name, row) => {
    const { array, values } = columns[name];
    if (values) return values[array[row]];
    return Number.isNaN(array[row]) ? null : array[row];
  };
  const bySetting = new Map();
  for (let row = 0; row < count; row++) {
    const setting = cell("setting", row);
    if (!bySetting.has(setting)) bySetting.set(setting, []);
    bySetting.get(setting).push(row);
  }
  return { about, count, columns, cell, rows: (setting) => bySetting.get(setting) || [] };
}

/** Plotly's own file, run as the page's policy allows it: by its hash. */
async function loadPlotly() {
  const source = new TextDecoder().decode(await unpacked("plotly"));
  document.head.append(make("script", { textContent: source }));
  if (!window.Plotly) throw new Error("plotly.js did not start");
}
