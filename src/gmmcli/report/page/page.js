"use strict";

const read = (id) => JSON.parse(document.getElementById(id).textContent);
const charts = read("charts");
const names = read("models");
const CONFIG = { responsive: true, displayModeBar: false, doubleClick: false, showTips: false };
const CLASS_COLOURS = ["#4a7fc1", "#e07b28", "#3f9a4d", "#d1495b", "#8e6bbf", "#96694f", "#d873b0", "#808890", "#8f8a1c", "#178f9b"];
const CLASS_SYMBOLS = ["circle", "square", "diamond", "triangle-up", "pentagon", "star", "hexagon", "triangle-down", "hourglass", "bowtie"];
const SAMPLE_SYMBOL = "x-thin";
const BEFORE = "clean";
const PAPER = 680; // pixels: what A4 and Letter both have between their margins

// Plotly reads a little HTML in its texts; what users named is none.
const plain = (text) => String(text).replace(/&/g, "&amp;").replace(/</g, "&lt;");
const percent = (share, digits = 1) => `${(100 * share).toFixed(digits)}%`;
const short = (set) => set.replace(/^(npz|folder):(?:.*\/)?/, "");
const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const every = (selector, within = document) => [...within.querySelectorAll(selector)];
const selected = (name) => document.querySelector(`select[name="${name}"], input[name="${name}"]:checked`)?.value;

function look(model) {
  const i = names.indexOf(model);
  return { color: css(`--model-${i % 8}`), dash: ["solid", "dash", "dot"][Math.floor(i / 8) % 3] };
}

function layout(more) {
  const axis = { gridcolor: css("--line"), linecolor: css("--line"), zeroline: false, fixedrange: true, automargin: true };
  return {
    font: { family: css("--sans"), size: 12, color: css("--text") },
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)",
    margin: { l: 44, r: 18, t: 8, b: 40 },
    showlegend: false,
    dragmode: false,
    hovermode: "closest",
    hoverlabel: { bgcolor: css("--surface"), bordercolor: css("--muted"), font: { color: css("--text") } },
    ...more,
    xaxis: { ...axis, ...more.xaxis },
    yaxis: { ...axis, ...more.yaxis },
  };
}

// Calibration

function reliability(one) {
  const bins = one.variants[selected("scale")].bins.filter((bin) => bin.n);
  const most = Math.max(...bins.map((bin) => bin.n));
  const bars = {
    type: "bar",
    x: bins.map((bin) => (bin.low + bin.high) / 2),
    y: bins.map((bin) => bin.accuracy),
    width: bins.map((bin) => bin.high - bin.low),
    marker: { color: look(one.model).color, opacity: bins.map((bin) => 0.25 + 0.75 * Math.sqrt(bin.n / most)) },
    error_y: {
      visible: bins.every((bin) => bin.ci95), // results of earlier versions have no intervals
      type: "data", symmetric: false, color: css("--text"), thickness: 1, width: 2,
      array: bins.map((bin) => bin.ci95?.[1] - bin.accuracy),
      arrayminus: bins.map((bin) => bin.accuracy - bin.ci95?.[0]),
    },
    text: bins.map((bin) => `confidence ${percent(bin.confidence)}<br>accuracy ${percent(bin.accuracy)}${interval(bin.ci95)}<br>${bin.n} images`),
    textposition: "none",
    hovertemplate: "%{text}<extra></extra>",
  };
  const diagonal = { x: [0, 1], y: [0, 1], mode: "lines", line: { color: css("--text"), width: 1, dash: "dash" }, hoverinfo: "skip" };
  const unit = { range: [0, 1], tickformat: ".0%", dtick: 0.25 };
  return {
    traces: [bars, diagonal],
    layout: layout({ xaxis: { ...unit, title: { text: "confidence" } }, yaxis: { ...unit, title: { text: "accuracy" } }, bargap: 0 }),
  };
}

const interval = (ends) => (ends ? ` (${percent(ends[0])} to ${percent(ends[1])})` : "");

function calibrated(one) {
  const { ece, scale } = one.variants[selected("scale")];
  return `ECE ${percent(ece, 2)}, logits / ${Number(scale.toPrecision(3))}, n = ${one.n}`;
}

// Out of distribution

function histogram(scores, set, line, fill) {
  const shares = scores.shares[set] ?? [];
  return {
    x: scores.centres, y: shares, name: plain(short(set)), mode: "lines",
    line: { ...line, shape: "hvh", width: 1.8 }, fill: fill ? "tozeroy" : "none",
    hovertemplate: "%{y:.1%} near %{x}",
  };
}

function ood(one) {
  const scores = one.scores[selected("score")];
  if (!scores) return { traces: [], layout: layout({}) };
  const inside = { ...histogram(scores, "in", { color: look(one.model).color }, true), name: plain(one.in_distribution) };
  const other = histogram(scores, selected("set"), { color: css("--text"), dash: "dash" }, false);
  const highest = 1.08 * Math.max(...inside.y, ...other.y);
  const label = document.querySelector('select[name="score"]').selectedOptions[0].text;
  return {
    traces: [inside, other],
    layout: layout({
      xaxis: { title: { text: label }, nticks: 6 },
      yaxis: { range: [0, highest], title: { text: "share" }, tickformat: ".0%", nticks: 5 },
    }),
  };
}

function detected(one) {
  const auroc = one.scores[selected("score")]?.auroc[selected("set")];
  const sets = `${one.in_distribution} against ${short(selected("set"))}`;
  return auroc === undefined ? "not measured" : `AUROC ${auroc.toFixed(3)}, ${sets}`;
}

// Robustness

function levels(eps) {
  const [over, under] = eps.split("/");
  return under ? (255 * over) / under : 255 * over;
}

function attackLine(one, attack, floor, line) {
  const points = Object.entries(one.curves[attack]).filter(([eps]) => levels(eps) > 0).sort(([a], [b]) => levels(a) - levels(b));
  return {
    x: [floor, ...points.map(([eps]) => levels(eps))],
    y: [one.clean, ...points.map(([, accuracy]) => accuracy)],
    text: [BEFORE, ...points.map(([eps]) => eps)],
    name: plain(`${one.model}, ${attack}`),
    mode: "lines+markers",
    line: { color: look(one.model).color, ...line },
    marker: { size: 4 + line.width },
    hovertemplate: "%{fullData.name}<br>%{text}: %{y:.1%}<extra></extra>",
  };
}

function attacksOf(one, floor) {
  const audited = "worst case" in one.curves;
  const asked = !audited || selected("attacks") === one.model;
  const others = Object.keys(one.curves).filter((attack) => attack !== "worst case" && asked);
  return [
    ...others.map((attack) => attackLine(one, attack, floor, { width: 1.5, dash: "dot" })),
    ...(audited ? [attackLine(one, "worst case", floor, { width: 4, dash: look(one.model).dash })] : []),
  ];
}

function robustness() {
  const radii = charts.robustness.flatMap((one) => Object.values(one.curves).flatMap((curve) => Object.keys(curve).map(levels)));
  const ticks = [...new Set(radii)].filter((radius) => radius > 0).sort((a, b) => a - b);
  const floor = (ticks[0] ?? 1) / 2;
  const labels = ticks.map((radius) => String(Number(radius.toPrecision(3))));
  return {
    traces: charts.robustness.flatMap((one) => attacksOf(one, floor)),
    layout: layout({
      xaxis: { type: "log", tickvals: [floor, ...ticks], ticktext: [BEFORE, ...labels], title: { text: "radius, eps × 255" } },
      yaxis: { range: [-0.02, 1.02], tickformat: ".0%", title: { text: "accuracy" } },
    }),
  };
}

// Training

const symlog = (value) => (value === null ? null : Math.sign(value) * Math.log10(1 + Math.abs(value)));

function symlogTicks(values) {
  const known = values.filter((value) => value !== null);
  const [low, high] = [Math.min(...known), Math.max(...known)];
  const powers = [...Array(13).keys()].map((i) => 10 ** (i - 1));
  const choices = [[1], [1, 3], [1, 2, 5], [1, 1.5, 2, 3, 4, 5, 6, 8]].map((digits) => {
    const sizes = powers.flatMap((power) => digits.map((digit) => digit * power)).filter((size) => size >= 1 || high - low < 3);
    return [...sizes.map((size) => -size), 0, ...sizes].filter((tick) => low <= tick && tick <= high);
  });
  const ticks = choices.find((some) => some.length > 2) ?? choices.at(-1);
  return { tickvals: ticks.map(symlog), ticktext: ticks.map((tick) => tick.toLocaleString("en").replace("-", "−")) };
}

function verticals(one, line) {
  return one.switches.map((epoch) => ({ type: "line", x0: epoch, x1: epoch, y0: 0, y1: 1, yref: "paper", line: { width: 1, dash: "dot", ...line } }));
}

function eventMarks(one, color) {
  const events = one.seeds.flatMap((run) => run.events.map((event) => ({ ...event, seed: run.seed })));
  return {
    x: events.map((event) => event.epoch), y: events.map(() => 0.97), yaxis: "y2", mode: "markers",
    marker: { symbol: "x", size: 9, color }, text: events.map((event) => plain(`${one.model}, seed ${event.seed}: ${event.event}`)),
    hovertemplate: "%{text}, epoch %{x}<extra></extra>",
  };
}

const UNSEEN_AXIS = { overlaying: "y", range: [0, 1], visible: false, fixedrange: true };

function curve(x, y, name, line, more = {}) {
  return { x, y, name: plain(name), mode: "lines", line, hovertemplate: "%{fullData.name}<br>epoch %{x}: %{y:.1%}<extra></extra>", ...more };
}

function accuracyOf(one) {
  const line = look(one.model);
  const traces = one.seeds.flatMap((run) => [
    curve(run.epoch, run.accuracy, `${one.model}, seed ${run.seed}, batches`, { ...line, width: 1 }, { opacity: 0.4 }),
    curve(run.validation_epoch, run.validation_accuracy, `${one.model}, seed ${run.seed}`, { ...line, width: 2.5 }, { mode: "lines+markers", marker: { size: 8 } }),
  ]);
  return [...traces, eventMarks(one, line.color)];
}

function accuracy() {
  return {
    traces: charts.curves.flatMap(accuracyOf),
    layout: layout({
      xaxis: { title: { text: "epoch" }, rangemode: "tozero" },
      yaxis: { title: { text: "accuracy" }, tickformat: ".0%" },
      yaxis2: UNSEEN_AXIS,
      shapes: charts.curves.flatMap((one) => verticals(one, { color: look(one.model).color })),
    }),
  };
}

function energies(one) {
  const { color } = look(one.model);
  const traces = one.seeds.flatMap((run) =>
    [["energy_data", "real", "solid"], ["energy_model", "sampled", "dash"]].map(([key, label, dash]) =>
      curve(run.epoch, run[key].map(symlog), `${label}, seed ${run.seed}`, { color, dash, width: 1.8 }, {
        customdata: run[key], hovertemplate: "%{fullData.name}<br>epoch %{x}: %{customdata:.4g}<extra></extra>",
      }),
    ),
  );
  const values = one.seeds.flatMap((run) => [...run.energy_data, ...run.energy_model]);
  return {
    traces: [...traces, eventMarks(one, css("--bad"))],
    layout: layout({
      xaxis: { title: { text: "epoch" }, rangemode: "tozero" }, yaxis: { ...symlogTicks(values), title: { text: "energy" } },
      yaxis2: UNSEEN_AXIS, shapes: verticals(one, { color: css("--muted") }),
    }),
  };
}

// t-SNE

const classColour = (k) => CLASS_COLOURS[k % 10];

function points(one, sampled) {
  const rows = [...one.x.keys()].filter((i) => one.sampled[i] === sampled);
  const wanted = selected("class");
  const labels = rows.map((i) => one.labels[i]);
  const symbols = labels.map((k) => (sampled ? SAMPLE_SYMBOL : CLASS_SYMBOLS[Math.floor(k / 10) % 10]));
  const colours = labels.map(classColour);
  return {
    x: rows.map((i) => one.x[i]), y: rows.map((i) => one.y[i]), customdata: rows, mode: "markers", hoverinfo: "none",
    marker: {
      size: sampled ? 7 : 6, symbol: symbols, color: colours, line: { width: sampled ? 1.6 : 0, color: colours },
      opacity: labels.map((k) => (wanted === "" || Number(wanted) === k ? 0.9 : 0.08)),
    },
  };
}

function tsne(one) {
  const here = one.at === undefined ? [] : [one.at];
  const ring = { color: "rgba(0,0,0,0)", size: 15, line: { color: css("--text"), width: 2.5 } };
  const cursor = { x: here.map((i) => one.x[i]), y: here.map((i) => one.y[i]), mode: "markers", marker: ring, hoverinfo: "skip" };
  const bare = { showgrid: false, showline: false, showticklabels: false };
  return { traces: [points(one, false), points(one, true), cursor], layout: layout({ xaxis: bare, yaxis: bare, margin: { l: 6, r: 6, t: 6, b: 6 } }) };
}

function show(element, one, i) {
  one.at = i;
  const figure = element.closest("figure");
  const tile = figure.querySelector(".tile");
  const size = tile.clientWidth;
  tile.style.backgroundImage = `url(${one.sheet})`;
  tile.style.backgroundSize = `${size * one.columns}px auto`;
  tile.style.backgroundPosition = `-${size * (i % one.columns)}px -${size * Math.floor(i / one.columns)}px`;
  const kind = one.sampled[i] ? "sample" : "test image";
  figure.querySelector("[role=status]").textContent = `${one.classes[one.labels[i]]}, ${kind} ${i + 1} of ${one.x.length}`;
  Plotly.restyle(element, { x: [[one.x[i]]], y: [[one.y[i]]] }, [2]);
}

/** The point that a key leads to; undefined where it leads nowhere. */
function led(one, key) {
  const by = { ArrowLeft: "x", ArrowRight: "x", ArrowDown: "y", ArrowUp: "y", Home: "x", End: "x" }[key];
  if (!by) return undefined;
  const order = [...one.x.keys()].sort((a, b) => one[by][a] - one[by][b] || a - b);
  if (key === "Home" || (one.at === undefined && key !== "End")) return order[0];
  if (key === "End") return order.at(-1);
  const step = key === "ArrowRight" || key === "ArrowUp" ? 1 : -1;
  return order[(order.indexOf(one.at) + step + order.length) % order.length];
}

function walkable(element) {
  const one = charts.tsne[element.dataset.i];
  element.on("plotly_hover", ({ points: [point] }) => show(element, one, point.customdata));
  element.closest(".walk").addEventListener("keydown", (event) => {
    const next = event.altKey || event.ctrlKey || event.metaKey ? undefined : led(one, event.key);
    if (next === undefined) return;
    event.preventDefault();
    show(element, one, next);
  });
}

// The page

const KINDS = {
  reliability: { draw: reliability, say: calibrated }, ood: { draw: ood, say: detected },
  robustness: { draw: robustness }, accuracy: { draw: accuracy, of: "curves" }, energies: { draw: energies, of: "curves" },
  tsne: { draw: tsne, begin: walkable },
};
const drawn = new Set();

function draw(element) {
  const { draw: make, begin, of } = KINDS[element.dataset.chart];
  const { traces, layout: frame } = make(charts[of ?? element.dataset.chart][element.dataset.i]);
  if (document.documentElement.classList.contains("printed-page")) {
    Object.assign(frame, { width: Math.min(element.clientWidth, PAPER), height: element.clientHeight }); // with both Plotly keeps to them
  }
  Plotly.react(element, traces, frame, CONFIG);
  if (!drawn.has(element)) begin?.(element);
  drawn.add(element);
}

function caption(element) {
  const { say } = KINDS[element.dataset.chart];
  if (say) element.closest("figure").querySelector("[data-caption]").textContent = say(charts[element.dataset.chart][element.dataset.i]);
}

function redraw(kind) {
  const some = every(`[data-chart="${kind}"]`);
  some.forEach(caption);
  some.filter((element) => drawn.has(element)).forEach(draw);
}

/** Draw each chart when it comes near the screen: all at once would hold up the page. */
function drawLazily(all) {
  const observer = new IntersectionObserver((entries) => {
    for (const { target } of entries.filter((entry) => entry.isIntersecting)) {
      observer.unobserve(target);
      draw(target);
    }
  }, { rootMargin: "400px" });
  all.forEach((element) => observer.observe(element));
}

function markSections() {
  const observer = new IntersectionObserver((entries) => {
    for (const { target } of entries.filter((entry) => entry.isIntersecting)) {
      every("nav a").forEach((link) => link.removeAttribute("aria-current"));
      document.querySelector(`nav a[href="#${target.id}"]`)?.setAttribute("aria-current", "true");
    }
  }, { rootMargin: "-20% 0px -75% 0px" });
  every("main > section").forEach((section) => observer.observe(section));
}

/** A chart keeps the size it was drawn at, and paper is narrower than most screens: let it shrink with its box. */
function shrinkable(element, on) {
  const drawings = every(".main-svg", element);
  const [width, height] = ["width", "height"].map((side) => drawings[0].getAttribute(side));
  element.style.aspectRatio = on ? `${width} / ${height}` : "";
  for (const drawing of drawings) {
    if (on) drawing.setAttribute("viewBox", `0 0 ${width} ${height}`);
    else drawing.removeAttribute("viewBox");
  }
}

/** On paper everything is open, drawn, light, and as wide as the page. */
function print(on) {
  document.documentElement.classList.toggle("printed-page", on);
  every(on ? "details:not([open])" : "details[data-shut]").forEach((one) => {
    one.open = on;
    one.toggleAttribute("data-shut", on);
  });
  for (const element of every("[data-chart]")) {
    draw(element);
    shrinkable(element, on);
  }
}

function begin() {
  const all = every("[data-chart]");
  all.forEach(caption);
  drawLazily(all);
  markSections();
  every("#classes .dot").forEach((dot, k) => (dot.style.background = classColour(k)));
  every("[data-for]").forEach((controls) => controls.addEventListener("change", () => redraw(controls.dataset.for)));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => drawn.forEach(draw));
  addEventListener("beforeprint", () => print(true));
  addEventListener("afterprint", () => print(false));
}

begin();
