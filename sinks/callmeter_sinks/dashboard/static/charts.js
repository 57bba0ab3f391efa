// Draws the charts of a page with uPlot. Data come from the page; what a tooltip says stands in the
// table beside the chart.
/* global uPlot */

const DAY_S = 86400;
const MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
const drawn = new Map(); // element → { plot, shape, data }

const colour = (name) =>
  getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();

const two = (number) => String(number).padStart(2, "0");

function times(_plot, splits, _axis, _space, step) {
  let day = null;
  return splits.map((seconds) => {
    const at = new Date(seconds * 1000);
    const date = `${at.getUTCDate()} ${MONTHS[at.getUTCMonth()]}`;
    if (step >= DAY_S) return date;
    const clock =
      `${two(at.getUTCHours())}:${two(at.getUTCMinutes())}` +
      (step < 60 ? `:${two(at.getUTCSeconds())}` : "");
    const text = date === day ? clock : `${clock}\n${date}`;
    day = date;
    return text;
  });
}

function quantity(unit) {
  if (unit === "ms") {
    return (_plot, splits) =>
      splits.map((ms) => {
        if (ms === 0) return "0";
        if (ms < 1) return `${+(ms * 1000).toPrecision(3)} µs`;
        return ms < 1000 ? `${+ms.toPrecision(3)} ms` : `${+(ms / 1000).toPrecision(3)} s`;
      });
  }
  const form = new Intl.NumberFormat("en", { notation: "compact", maximumSignificantDigits: 4 });
  return (_plot, splits) =>
    splits.map((value) => (value !== 0 && Math.abs(value) < 0.001
      ? value.toExponential(1) : form.format(value)));
}

function step(x) {
  let least = Infinity;
  for (let place = 1; place < x.length; place++) least = Math.min(least, x[place] - x[place - 1]);
  return Number.isFinite(least) ? least : 60;
}

function marks(data) {
  return (plot) => {
    const { ctx, bbox } = plot;
    ctx.save();
    ctx.strokeStyle = colour("mark");
    ctx.fillStyle = colour("mark");
    ctx.setLineDash([4 * devicePixelRatio, 4 * devicePixelRatio]);
    ctx.textAlign = "left";
    ctx.font = `${11 * devicePixelRatio}px system-ui, sans-serif`;
    for (const mark of data.marks) {
      const at = plot.valToPos(mark.x, "x", true);
      if (at < bbox.left - 1 || at > bbox.left + bbox.width + 1) continue;
      ctx.beginPath();
      ctx.moveTo(at, bbox.top);
      ctx.lineTo(at, bbox.top + bbox.height);
      ctx.stroke();
      ctx.fillText(mark.label, at + 4 * devicePixelRatio, bbox.top + 12 * devicePixelRatio);
    }
    ctx.restore();
  };
}

function tooltip(element) {
  const tip = document.createElement("div");
  tip.className = "tip";
  tip.hidden = true;
  element.append(tip);
  return (plot) => {
    const data = drawn.get(element)?.data;
    const { idx, left, top } = plot.cursor;
    tip.hidden = data === undefined || idx === null || idx === undefined || left < 0;
    if (tip.hidden) return;
    const table = document.getElementById(element.id.replace("chart-", "table-"));
    const [at, ...said] = table.tBodies[0].rows[idx].cells;
    const head = document.createElement("strong");
    head.textContent = at.textContent;
    const unit = data.unit === "USD" ? " USD" : "";
    const rows = data.lines.map((line, place) => {
      const row = document.createElement("div");
      const swatch = document.createElement("span");
      swatch.className = `swatch ${line.colour}`;
      const text = document.createElement("span");
      text.textContent = `${line.label}: ${said[place].textContent}${unit}`;
      row.append(swatch, text);
      return row;
    });
    tip.replaceChildren(head, ...(data.unit === "USD" ? rows.reverse() : rows));
    const side = left > plot.over.clientWidth / 2 ? left - tip.offsetWidth - 14 : left + 14;
    const offset = plot.over.offsetLeft + side;
    tip.style.transform = `translate(${Math.max(0, offset)}px, ${Math.max(0, top - 20)}px)`;
  };
}

function options(element, data) {
  const bars = data.kind === "bars";
  const gap = step(data.x);
  const grid = { stroke: () => colour("line"), width: 1 };
  const font = "12px system-ui, sans-serif";
  const axis = { stroke: () => colour("muted"), grid, ticks: { ...grid, size: 4 }, font };
  return {
    width: element.clientWidth,
    height: element.clientHeight,
    legend: { show: false },
    cursor: { drag: { x: false, y: false }, points: { show: !bars } },
    tzDate: (seconds) => uPlot.tzDate(new Date(seconds * 1000), "Etc/UTC"),
    scales: {
      x: {
        time: data.time,
        range: (_plot, low, high) =>
          bars ? [low, high + gap] : low === high ? [low - gap, high + gap] : [low, high],
      },
      y: {
        range: (_plot, low, high) => {
          if (data.unit === "value") return uPlot.rangeNum(low, high, 0.1, true);
          return [0, high > 0 ? high * 1.08 : 1];
        },
      },
    },
    axes: [
      { ...axis, values: data.time ? times : undefined, space: 70 },
      { ...axis, values: quantity(data.unit), size: 62, space: 34 },
    ],
    series: [
      {},
      ...data.lines.map((line) => ({
        label: line.label,
        stroke: () => colour(line.colour),
        fill: bars ? () => colour(line.colour) : undefined,
        width: bars ? 0 : 2,
        paths: bars ? uPlot.paths.bars({ size: [0.82, 48], align: 1 }) : undefined,
        spanGaps: data.unit === "value",
        // Few points are shown as such: one alone would draw no line.
        points: { show: !bars && line.values.filter((v) => v !== null).length < 40, size: 5 },
      })),
    ],
    hooks: { setCursor: [tooltip(element)], draw: [marks(data)] },
  };
}

function draw(element) {
  const data = JSON.parse(element.dataset.chart);
  const values = [data.x, ...data.lines.map((line) => line.values)];
  const shape = JSON.stringify([data.kind, data.unit, data.marks, data.lines.map((l) => l.label)]);
  const held = drawn.get(element);
  if (held && held.shape === shape && held.x === data.x.length) {
    held.data = data;
    held.plot.setData(values);
    return;
  }
  held?.plot.destroy();
  element.replaceChildren();
  drawn.set(element, { plot: null, shape, x: data.x.length, data });
  drawn.get(element).plot = new uPlot(options(element, data), values, element);
}

function size() {
  for (const [element, { plot }] of drawn) {
    if (!element.isConnected) {
      plot.destroy();
      drawn.delete(element);
    } else if (element.clientWidth) {
      plot.setSize({ width: element.clientWidth, height: element.clientHeight });
    }
  }
}

addEventListener("resize", size);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
  for (const { plot } of drawn.values()) plot.redraw(false);
});

export function drawAll(root) {
  for (const element of drawn.keys()) if (!element.isConnected) drawn.delete(element);
  root.querySelectorAll("[data-chart]").forEach(draw);
}
