/** Script of the comparison report: tooltips, the reference on pointing, and charts where Chart.js is there. */
export const reportScript = `
"use strict";
(() => {
  const rows = JSON.parse(document.getElementById("data").textContent);

  const tip = document.getElementById("tip");
  document.addEventListener("pointerover", ({ target, clientX, clientY }) => {
    const text = target.closest("[data-tip]")?.dataset.tip;
    tip.hidden = !text;
    if (!text) return;
    tip.textContent = text;
    const { width, height } = tip.getBoundingClientRect();
    const below = clientY + 18 + height < innerHeight;
    tip.style.left = Math.max(8, Math.min(clientX - width / 2, innerWidth - width - 8)) + "px";
    tip.style.top = (below ? clientY + 18 : clientY - height - 12) + "px";
  });
  document.addEventListener("scroll", () => { tip.hidden = true; }, true);

  const [reference, ...others] = document.querySelectorAll(".images tbody tr");
  for (const line of others) {
    line.querySelectorAll("td").forEach((cell, column) => {
      const image = cell.querySelector("img");
      const own = image.src;
      const swap = (on) => {
        image.src = on ? reference.querySelectorAll("td img")[column].src : own;
        cell.classList.toggle("swapped", on);
      };
      image.addEventListener("pointerenter", () => swap(true));
      image.addEventListener("pointerleave", () => swap(false));
    });
  }

  if (typeof Chart === "undefined") return;

  /** One standard error up and down, and the name beside each point. */
  const annotations = {
    id: "annotations",
    afterDatasetsDraw(chart) {
      const { ctx, chartArea, data } = chart;
      const taken = [];
      data.datasets.forEach((set, i) => {
        const [point] = chart.getDatasetMeta(i).data;
        if (!point) return;
        const { y, standardError } = set.data[0];
        errorBar(chart, point, y, standardError, set.borderColor, 1.5);
        ctx.save();
        ctx.font = "550 12px " + Chart.defaults.font.family;
        ctx.fillStyle = colorOf("--text");
        ctx.textBaseline = "middle";
        const width = ctx.measureText(set.label).width;
        const right = point.x + 12 + width < chartArea.right;
        const left = right ? point.x + 12 : point.x - 12 - width;
        // The first free place near the point; names of close points must not cover each other.
        const free = [0, -15, 15, -30, 30, -45, 45].find((dy) => taken.every((other) =>
          Math.abs(other.y - point.y - dy) > 13 || other.left > left + width || other.left + other.width < left)) ?? 0;
        taken.push({ left, width, y: point.y + free });
        ctx.fillText(set.label, left, point.y + free);
        ctx.restore();
      });
    },
  };

  const tradeOff = document.getElementById("trade-off-chart");
  const errors = document.getElementById("error-chart");
  let charts = [];
  const draw = () => {
    for (const chart of charts) chart.destroy();
    charts = [];
    if (tradeOff) {
      const speed = document.querySelector("input[name=speed]:checked").value;
      const shown = rows.filter((row) => row.psnr !== null);
      const low = Math.min(...shown.map((row) => row.psnr - row.standardError));
      const high = Math.max(...shown.map((row) => row.psnr + row.standardError));
      const margin = Math.max(0.5, 0.12 * (high - low));
      const fastest = Math.max(...shown.map((row) => row[speed]));
      const slowest = Math.min(...shown.map((row) => row[speed]));
      charts.push(new Chart(tradeOff, {
        type: "scatter",
        plugins: [annotations],
        data: {
          datasets: shown.map((row) => ({
            label: row.name,
            data: [{ x: row[speed], y: row.psnr, standardError: row.standardError }],
            backgroundColor: row.color,
            borderColor: row.color,
            pointRadius: 6,
            pointHoverRadius: 8,
          })),
        },
        options: {
          scales: {
            x: axis(speed === "flopsSpeedup" ? "Speed-up by FLOPs" : "Measured speed-up", {
              ticks: { callback: (value) => value + "x" },
              min: Math.min(1, Math.floor(10 * slowest) / 10),
              max: Math.ceil(fastest * 1.15 * 2) / 2,
            }),
            y: axis("PSNR, dB", { min: Math.floor(low - margin), max: Math.ceil(high + margin) }),
          },
          plugins: {
            legend: { display: false },
            tooltip: { callbacks: { label: ({ dataset, parsed }) =>
              dataset.label + ": " + parsed.y.toFixed(2) + " dB at " + parsed.x.toFixed(2) + "x" } },
          },
        },
      }));
    }
    if (errors) {
      charts.push(new Chart(errors, {
        type: "line",
        data: {
          datasets: rows.filter((row) => row.errors.length > 0).map((row) => ({
            label: row.name,
            data: row.errors,
            backgroundColor: row.color,
            borderColor: row.color,
            borderWidth: 2,
            pointRadius: 3,
          })),
        },
        options: {
          interaction: { mode: "x", intersect: false },
          scales: {
            x: axis("Step", { type: "linear" }),
            y: axis("Forecast error", { ticks: { callback: (value) => value + " %" }, min: 0 }),
          },
          plugins: {
            legend: { labels: { color: colorOf("--text"), usePointStyle: true, pointStyle: "circle", boxHeight: 7 } },
            tooltip: { callbacks: {
              title: ([item]) => "Step " + item.parsed.x,
              label: ({ dataset, parsed }) => dataset.label + ": " + parsed.y.toFixed(1) + " %",
            } },
          },
        },
      }));
    }
  };
  draw();
  for (const input of document.querySelectorAll("input[name=speed]")) input.addEventListener("change", draw);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
})();
`;
