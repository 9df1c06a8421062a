// Draws the table of outcomes: P&L as bars, VaR and ES as lines below it, exceedances as dots, and the
// traffic light of each day as a strip. The table is the data; without this script it is still there.
"use strict";
(() => {
  const HEIGHT = 290;
  const STRIP = 6;
  const ZONES = ["green", "yellow", "red"];
  const color = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
  const number = (cell) => Number(cell.textContent.replace("−", "-").replace(/[^\d.-]/g, "")) / 100;
  const shown = (_, value) => (value == null ? "–" : `${(100 * value).toFixed(2)} %`.replace("-", "−"));
  let drawn = null;

  function read(table) {
    const rows = [...table.tBodies[0].rows].reverse();
    const column = (index) => rows.map((row) => number(row.cells[index]));
    const pnl = column(1);
    return {
      data: [
        rows.map((row) => Date.parse(row.cells[0].textContent) / 1000),
        pnl,
        column(2).map((value) => -value),
        column(3).map((value) => -value),
        pnl.map((value, index) => (rows[index].classList.contains("exceeded") ? value : null)),
      ],
      zones: rows.map((row) => row.cells[5].textContent),
    };
  }

  function strip(chart, zones) {
    const { ctx, bbox } = chart;
    const [first, last] = chart.series[0].idxs;
    const height = STRIP * devicePixelRatio;
    const at = (index) => chart.valToPos(chart.data[0][index], "x", true);
    ctx.save();
    for (let index = first; index <= last; ) {
      const from = index;
      while (index <= last && zones[index] === zones[from]) index += 1;
      if (!ZONES.includes(zones[from])) continue;
      const until = index <= last ? at(index) : bbox.left + bbox.width;
      ctx.fillStyle = color(`${zones[from]}-fill`);
      ctx.fillRect(at(from), bbox.top + bbox.height - height, Math.max(until - at(from), 1), height);
    }
    ctx.restore();
  }

  function draw() {
    const into = document.querySelector("[data-draw]");
    const table = into && document.getElementById(into.dataset.draw);
    drawn?.destroy();
    drawn = null;
    if (!table) return;
    const { data, zones } = read(table);
    const [muted, line] = [color("muted"), color("line")];
    const axis = { stroke: muted, font: "12px system-ui, sans-serif", grid: { stroke: line, width: 1 }, ticks: { stroke: line, width: 1 } };
    const lined = (label, name, more) => ({ label, stroke: color(name), width: 1.5, points: { show: false }, value: shown, ...more });
    drawn = new uPlot(
      {
        width: into.clientWidth,
        height: HEIGHT,
        tzDate: (seconds) => uPlot.tzDate(new Date(seconds * 1000), "Etc/UTC"),
        fmtDate: (template) => uPlot.fmtDate(template),
        cursor: { y: false },
        scales: { x: { time: true }, y: { range: (_, low, high) => { const room = 0.08 * (high - low); return [low - 2 * room, Math.max(high, 0) + room]; } } },
        axes: [
          { ...axis, grid: { show: false } },
          { ...axis, size: 56, values: (_, ticks) => ticks.map((tick) => `${+(100 * tick).toFixed(2)} %`.replace("-", "−")) },
        ],
        series: [
          { label: "Day", value: "{YYYY}-{MM}-{DD}" },
          lined("P&L", "pnl", { fill: color("pnl"), width: 0, paths: uPlot.paths.bars({ size: [0.7, 12] }) }),
          lined("−VaR", "var"),
          lined("−ES", "es", { width: 1, dash: [5, 4] }),
          { label: "Exceeded", stroke: color("exceeded"), paths: () => null, points: { show: true, size: 9, fill: color("exceeded"), stroke: color("surface"), width: 1 }, value: shown },
        ],
        hooks: { draw: [(chart) => strip(chart, zones)] },
      },
      data,
      into,
    );
    into.dataset.drawn = data[0].length;
  }

  draw();
  document.addEventListener("swapped", (event) => {
    if (event.target.querySelector("[data-draw]")) draw();
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  new ResizeObserver(() => {
    const into = document.querySelector("[data-draw]");
    if (drawn && into) drawn.setSize({ width: into.clientWidth, height: HEIGHT });
  }).observe(document.getElementById("main"));
})();
