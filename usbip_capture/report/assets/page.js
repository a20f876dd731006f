"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const byId = (id) => document.getElementById(id);
  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const make = (tag, text, parent) => {
    const element = document.createElement(tag);
    if (text) element.textContent = text;
    if (parent) parent.append(element);
    return element;
  };

  // Places in a cell, after its slice's number.
  const [SLICE, URBS, BYTES, ERRORS, TIMED, SUM, MAX] = [0, 1, 2, 3, 4, 5, 6];
  const POINTS = 320;         // in a plot, so that a slice is some pixels wide
  const MARKS = 80;           // warnings and worse in view, above which they are not drawn across the plots
  const LANES = { error: 0, warning: 1, other: 2 };    // from the top
  const total = data.slices * data.width;
  const shown = data.endpoints.map(() => true);
  let range = [0, total];
  let step = 1;
  let current = null;         // the columns in view

  const three = (number) => (number >= 99.95 ? number.toFixed(0) : number >= 9.995 ? number.toFixed(1)
    : number ? number.toFixed(2) : "0");
  const unit = (number, units) => {
    for (const [size, name] of units) if (Math.abs(number) >= size * 0.9995) return `${three(number / size)} ${name}`;
    const [size, name] = units[units.length - 1];
    return `${three(number / size)} ${name}`;
  };
  const rate = (number) => (number ? unit(number, [[1e9, "GB/s"], [1e6, "MB/s"], [1e3, "kB/s"], [1, "B/s"]]) : "0");
  const plain = (text) => text.replace(/(\.\d*?)0+(?= )/, "$1").replace(/\.(?= )/, "");
  const duration = (s) => (s ? unit(s, [[1, "s"], [1e-3, "ms"], [1e-6, "µs"], [1e-9, "ns"]]) : "0");
  const moment = (s) => `+${s.toFixed(total < 10 ? 6 : 3)} s`;
  // Labels of an axis: one unit, and as many digits as the gap between them needs.
  const times = (ticks, gap) => {
    const most = Math.max(...ticks);
    const [size, name] = [[1, "s"], [1e-3, "ms"], [1e-6, "µs"]].find(([least]) => most >= least) || [1e-6, "µs"];
    const digits = Math.min(9, Math.max(0, Math.ceil(-Math.log10(gap / size) - 1e-9)));
    return ticks.map((tick) => (tick ? `${(tick / size).toFixed(digits)} ${name}` : "0"));
  };
  const tidy = (number) => parseFloat(number.toPrecision(6));

  // What is in view: slices joined so that there are about POINTS of them, always at the same borders.
  function columns(from, to) {
    step = Math.max(1, Math.ceil((to - from) / data.width / POINTS));
    const first = Math.max(0, Math.floor(from / data.width / step) - 1);
    const last = Math.min(Math.ceil(data.slices / step), Math.ceil(to / data.width / step) + 1);
    const size = Math.max(1, last - first);
    const seconds = step * data.width;
    const x = Array.from({ length: size + 1 }, (_, i) => (first + i) * seconds);
    const sums = data.endpoints.map((endpoint) => {
      const joined = Array.from({ length: size }, () => [0, 0, 0, 0, 0, 0, 0]);
      for (const cell of endpoint.cells) {
        const into = joined[Math.floor(cell[SLICE] / step) - first];
        if (!into) continue;
        for (const place of [URBS, BYTES, ERRORS, TIMED, SUM]) into[place] += cell[place];
        into[MAX] = Math.max(into[MAX], cell[MAX]);
      }
      return joined;
    });
    // The last border has no slice of its own: it ends the last step.
    const column = (value, end) => sums.map((joined) => [...joined.map(value), end]);
    return {
      x, middles: x.map((at) => at + seconds / 2), throughput: column((c) => c[BYTES] / seconds, 0), urbs: column((c) => c[URBS] / seconds, 0),
      errors: column((c) => c[ERRORS] || null, null),
      mean: column((c) => (c[TIMED] ? c[SUM] / c[TIMED] / 1e9 : null), null),
      longest: column((c) => (c[TIMED] ? c[MAX] / 1e9 : null), null),
    };
  }

  const plots = [];
  const hue = (index) => colour(`--e${index % 8}`);

  function view(from, to) {
    const least = Math.min(total, 8 * data.width);
    if (to - from < least) to = from + least;
    range = [Math.max(0, from), Math.min(total, to)];
    current = columns(...range);
    for (const plot of plots) {
      plot.u.batch(() => {
        plot.u.setData(plot.rows(current), false);
        plot.u.setScale("x", { min: range[0], max: range[1] });
        plot.rescale(plot.u, current);
      });
    }
    byId("whole").disabled = range[0] === 0 && range[1] === total;
  }

  const inView = () => data.lines.filter((line) => line[0] >= range[0] && line[0] <= range[1]);
  const kindOf = (line) => (["error", "critical", "alert", "emergency"].includes(line[2]) ? "error"
    : line[2] === "warning" ? "warning" : "other");
  const inkOf = (line) => colour({ error: "--error", warning: "--warning", other: "--remark" }[kindOf(line)]);

  // Only what is a warning or worse: a device that logs a lot would be behind a fence.
  function marks(u) {
    const lines = inView().filter((line) => kindOf(line) !== "other");
    if (lines.length > MARKS) return;
    const { ctx, bbox } = u;
    ctx.save();
    ctx.globalAlpha = 0.35;
    ctx.setLineDash([4, 4]);
    for (const line of lines) {
      const x = Math.round(u.valToPos(line[0], "x", true)) + 0.5;
      ctx.strokeStyle = inkOf(line);
      ctx.beginPath(); ctx.moveTo(x, bbox.top); ctx.lineTo(x, bbox.top + bbox.height); ctx.stroke();
    }
    ctx.restore();
  }

  function lanes(u) {
    const { ctx, bbox } = u;
    ctx.save();
    ctx.beginPath(); ctx.rect(bbox.left, bbox.top, bbox.width, bbox.height); ctx.clip();
    for (const line of inView()) {
      const x = u.valToPos(line[0], "x", true);
      const y = bbox.top + (LANES[kindOf(line)] + 0.5) * bbox.height / 3;
      ctx.fillStyle = inkOf(line);
      ctx.globalAlpha = 0.8;
      const half = 3.5 * devicePixelRatio;
      ctx.beginPath(); ctx.moveTo(x, y - half); ctx.lineTo(x + half, y); ctx.lineTo(x, y + half);
      ctx.lineTo(x - half, y); ctx.fill();
    }
    ctx.restore();
  }

  const axis = (extra) => ({
    stroke: () => colour("--quiet"), grid: { stroke: () => colour("--grid"), width: 1 },
    ticks: { stroke: () => colour("--line"), width: 1 }, font: "12px system-ui, sans-serif", ...extra,
  });

  function add(title, height, series, rows, scale, label, rescale, draw) {
    const box = make("div", "", byId("plots"));
    box.className = "plot";
    make("h4", title, box);
    const last = draw === lanes;
    const u = new uPlot({
      width: box.clientWidth || 900, height, series: [{}, ...series], scales: { x: { time: false }, y: scale },
      axes: [
        axis({ values: (_, ticks, __, ___, gap) => (last ? times(ticks, gap) : ticks.map(() => "")), size: last ? 34 : 10 }),
        axis({ size: 84, values: (_, ticks) => ticks.map(label), ...(last ? { splits: () => [0.5, 1.5, 2.5] } : {}) }),
      ],
      legend: { show: false },
      cursor: {
        // Only where the cursor is goes to the other plots: a selection acts on all of them by itself.
        sync: { key: "time", filters: { sub: (type) => type === "mousemove" || type === "mouseleave" } },
        drag: { x: true, y: false, setScale: false }, points: { size: 6 },
        bind: { dblclick: () => () => { view(0, total); return null; } },
      },
      hooks: {
        draw: [draw || marks],
        setSelect: [(plot) => {
          if (plot.select.width < 3) return;
          const from = plot.posToVal(plot.select.left, "x");
          const to = plot.posToVal(plot.select.left + plot.select.width, "x");
          plot.setSelect({ left: 0, top: 0, width: 0, height: 0 }, false);
          view(from, to);
        }],
        setCursor: [(plot) => { if (plots.length && plot === plots[0].u) point(plot.cursor); }],
      },
    }, rows(current), box);
    plots.push({ u, rows, box, height, per: series.length / data.endpoints.length, rescale: rescale || (() => {}) });
  }

  // What the cursor is at: the endpoints' values there, and the log line before it.
  function point(cursor) {
    const seconds = cursor.left >= 0 ? plots[0].u.posToVal(cursor.left, "x") : -1;
    const at = Math.floor((seconds - current.x[0]) / (step * data.width));
    const now = seconds < 0 || !(at < current.x.length) ? null : current;
    const chips = byId("endpoints").children;
    data.endpoints.forEach((endpoint, index) => {
      const small = chips[index].querySelector("small");
      const mean = now && now.mean[index][at];
      small.textContent = now ? `${rate(now.throughput[index][at])}${mean ? `, mean ${duration(mean)}` : ""}`
        : endpoint.summary;
    });
    if (!now) { byId("moment").textContent = ""; return; }
    byId("moment").textContent = `${moment(seconds)} · ${duration(step * data.width)} a step`;
    highlight(seconds);
  }

  let lit = null;
  function highlight(seconds) {
    const near = (range[1] - range[0]) / 100;
    let best = -1;
    data.lines.forEach((line, index) => {
      if (Math.abs(line[0] - seconds) > near) return;
      if (best < 0 || Math.abs(line[0] - seconds) < Math.abs(data.lines[best][0] - seconds)) best = index;
    });
    if (lit) lit.classList.remove("now");
    lit = best < 0 ? null : byId("lines").children[best];
    if (!lit) return;
    lit.classList.add("now");
    const list = byId("lines");
    list.scrollTop = lit.offsetTop - list.offsetTop - list.clientHeight / 2;
  }

  function chips() {
    data.endpoints.forEach((endpoint, index) => {
      const chip = make("button", "", byId("endpoints"));
      chip.type = "button";
      make("i", "", chip).style.setProperty("--c", `var(--e${index % 8})`);
      make("span", endpoint.name, chip);
      make("small", endpoint.summary, chip);
      chip.onclick = () => {
        shown[index] = !shown[index];
        chip.classList.toggle("off", !shown[index]);
        for (const plot of plots) {
          for (let of = 0; of < plot.per; of++) {
            plot.u.setSeries(1 + of * data.endpoints.length + index, { show: shown[index] });
          }
        }
        view(...range);
      };
    });
  }

  // The enumeration's burst of control transfers must not make all else lie on the floor: the others set the scale.
  const most = (rows) => {
    const highest = (wanted) => Math.max(0, ...rows.filter((_, index) => shown[index] && wanted(data.endpoints[index]))
      .map((row) => Math.max(...row)));
    return highest((endpoint) => !endpoint.is_control) || highest(() => true);
  };
  // A scale of decades ends at 1, 2 or 5.
  const round = (number, up) => {
    const decade = 10 ** Math.floor(Math.log10(number));
    const steps = [1, 2, 5, 10].map((digit) => digit * decade);
    return up ? steps.find((end) => end >= number * 0.9999) : steps.reverse().find((end) => end <= number * 1.0001);
  };
  const fromZero = (name) => (u, now) => u.setScale("y", { min: 0, max: (most(now[name]) || 1) * 1.08 });
  const lines = (extra) => data.endpoints.map((_, index) => ({
    stroke: () => hue(index), width: 1.5, spanGaps: false, points: { show: false }, ...(extra ? extra(index) : {}),
  }));

  function draw() {
    const stepped = uPlot.paths.stepped({ align: 1 });
    const filled = (index) => ({ paths: stepped, fill: () => `${hue(index)}22` });
    const dots = (size) => (index) => ({
      paths: () => null, points: { show: true, size, width: 0, fill: () => hue(index), stroke: () => hue(index) },
    });
    add("Throughput", 210, lines(filled), (now) => [now.x, ...now.throughput], { auto: false, range: [0, 1] },
      (tick) => plain(rate(tidy(tick))), fromZero("throughput"));
    add("Completion time (line: mean, dots: maximum)", 210, [...lines(() => ({ points: { size: 3 } })), ...lines(dots(4))],
      (now) => [now.middles, ...now.mean, ...now.longest], { distr: 3, range: (u, low, high) => [low ? round(low / 1.2, false) : 1e-6, high ? round(high * 1.2, true) : 1] },
      (tick) => (tick === null ? "" : plain(duration(tidy(tick)))));
    add("URBs a second", 120, lines((index) => ({ paths: stepped })), (now) => [now.x, ...now.urbs], { auto: false, range: [0, 1] }, (tick) => String(tidy(tick)), fromZero("urbs"));
    if (data.endpoints.some((endpoint) => endpoint.cells.some((cell) => cell[ERRORS]))) {
      add("Failed URBs", 100, lines(dots(6)), (now) => [now.middles, ...now.errors], { auto: false, range: [0, 1] },
        (tick) => (Number.isInteger(tick) ? String(tick) : ""), fromZero("errors"));
    }
    add(data.lines.length ? "Log" : "Log: there are no lines", 110, lines(() => ({ paths: () => null })),
      (now) => [now.x, ...now.x.length ? data.endpoints.map(() => now.x.map(() => null)) : []],
      { auto: false, range: [0, 3] }, (tick) => ({ 0.5: "other", 1.5: "warning", 2.5: "error" })[tick] || "", null, lanes);
  }

  function list() {
    if (!data.lines.length) return;
    byId("log").hidden = false;
    byId("log-note").textContent = data.left_out ? `${data.left_out} more are left out of the middle` : "";
    for (const line of data.lines) {
      const row = make("div", "", byId("lines"));
      row.className = kindOf(line);
      for (const text of [moment(line[0]), line[1], line[3]]) make("span", text, row);
      row.onclick = () => {
        const half = (range[1] - range[0]) / 2;
        if (line[0] < range[0] || line[0] > range[1]) view(line[0] - half, line[0] + half);
        const { u } = plots[0];
        u.setCursor({ left: u.valToPos(line[0], "x"), top: u.over.clientHeight / 2 }, true, true);
        byId("time-line").scrollIntoView({ block: "nearest" });
      };
    }
  }

  list();
  if (!data.endpoints.length || !data.slices) return;
  byId("time-line").hidden = false;
  chips();
  current = columns(...range);
  draw();
  byId("whole").onclick = () => view(0, total);
  view(0, total);
  const fit = () => plots.forEach(({ u, box, height }) => u.setSize({ width: box.clientWidth, height }));
  new ResizeObserver(fit).observe(byId("plots"));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => plots.forEach(({ u }) => u.redraw()));
})();
