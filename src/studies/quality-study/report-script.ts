/** Script of a study's report: the trade-off chart, and the uncached image on pointing. */
export const studyScript = `
"use strict";
(() => {
  const { rows, measures, speeds, figures } = JSON.parse(document.getElementById("data").textContent);
  const palette = ["#3b82c4", "#e0861a", "#8d6fd1", "#cf4f7b", "#22a079", "#b39b1c", "#4aabcf", "#a5673f", "#6f7bd8",
    "#c0453a", "#5f9e3a", "#d48ac0", "#3f8f8f", "#9b7b4f", "#7a5ea8", "#b5651d"];
  const groups = [...new Set(rows.map((row) => row.group))];
  const colorFor = (group) => palette[groups.indexOf(group) % palette.length];

  const [reference, ...others] = document.querySelectorAll(".images tbody tr");
  for (const line of others) {
    line.querySelectorAll("img").forEach((image, column) => {
      const own = image.src;
      const uncached = reference.querySelectorAll("img")[column];
      if (!uncached) return;
      image.addEventListener("pointerenter", () => { image.src = uncached.src; });
      image.addEventListener("pointerleave", () => { image.src = own; });
    });
  }

  /** Points that no other beats, by cost from cheap to dear. */
  const front = (points, sign, cheap) => {
    const kept = [];
    for (const point of points.toSorted((a, b) => cheap * (b.x - a.x) || sign * (b.y - a.y))) {
      if (kept.length === 0 || sign * point.y > sign * kept.at(-1).y) kept.push(point);
    }
    return kept.reverse();
  };

  const bars = {
    id: "bars",
    afterDatasetsDraw(chart) {
      chart.data.datasets.forEach((set, i) => {
        if (!chart.isDatasetVisible(i)) return;
        chart.getDatasetMeta(i).data.forEach((point, j) => {
          const { y, margin } = set.data[j];
          if (margin) errorBar(chart, point, y, margin, set.borderColor, 1.2);
        });
      });
    },
  };

  const [measureInput, speedInput, allInput] = ["measure", "speed", "all"].map((id) => document.getElementById(id));
  let chart;
  const draw = () => {
    chart?.destroy();
    const measure = measures.find(({ key }) => key === measureInput.value);
    const speed = speeds.find(({ key }) => key === speedInput.value);
    const cheap = speed.key === "fullSteps" ? -1 : 1;
    const points = rows.filter((row) => row.y[measure.key] !== null).map((row) => ({
      x: row.x[speed.key], y: row.y[measure.key], margin: row.margin[measure.key], series: row.series, group: row.group,
    }));
    const setOf = (label, group, data, more) => ({
      label, data, borderColor: colorFor(group), backgroundColor: colorFor(group),
      showLine: true, borderWidth: 1.6, pointRadius: 3.5, pointHoverRadius: 6, ...more,
    });
    const names = allInput.checked ? [...new Set(points.map(({ series }) => series))] : groups;
    const sets = names.flatMap((name) => {
      const own = points.filter((point) => (allInput.checked ? point.series : point.group) === name);
      if (own.length === 0) return [];
      return [setOf(name, own[0].group, allInput.checked ? own.toSorted((a, b) => a.x - b.x) : front(own, measure.sign, cheap))];
    });
    const text = colorOf("--text");
    sets.push({ label: "Best of all", data: front(points, measure.sign, cheap).map((point) => ({ ...point, margin: null })),
      borderColor: text, backgroundColor: text, showLine: true, borderDash: [5, 4], borderWidth: 1.2, pointRadius: 0, order: 1 });
    chart = new Chart(document.getElementById("trade-off-chart"), {
      type: "scatter", plugins: [bars], data: { datasets: sets },
      options: {
        scales: {
          x: axis(speed.title, { type: "logarithmic", reverse: cheap < 0,
            ticks: { callback: (value) => [1, 1.5, 2, 3, 4, 5, 6, 7, 8, 10, 15, 20, 30, 50].includes(value) ? value + (cheap > 0 ? "x" : "") : "" } }),
          y: axis(measure.title, { grace: "6%" }),
        },
        plugins: {
          legend: { position: "right", labels: { color: text, usePointStyle: true, pointStyle: "circle", boxHeight: 6, font: { size: 11 } } },
          tooltip: { callbacks: { label: ({ raw }) => raw.series + ": " + raw.y.toPrecision(4) +
            (raw.margin ? " ± " + raw.margin.toPrecision(2) : "") + " at " + raw.x.toFixed(2) + (cheap > 0 ? "x" : " runs") } },
        },
      },
    });
  };
  /** Lines, each with the range around its points where it has one, and marks where those are. */
  const drawFigure = (figure, i) => {
    const text = colorOf("--text");
    const sets = figure.lines.flatMap((line, k) => {
      const color = line.dashed ? text : palette[k % palette.length];
      const own = { label: line.label, data: line.points, borderColor: color, backgroundColor: color, showLine: true,
        borderWidth: line.dashed ? 1.2 : 1.6, borderDash: line.dashed ? [5, 4] : [], pointRadius: (c) => c.raw?.mark ? 4 : line.points.length > 30 ? 0 : 2 };
      if (!line.points.some((point) => point.low !== undefined)) return [own];
      const edge = (of) => ({ label: "", data: line.points.map((point) => ({ x: point.x, y: point[of] })), showLine: true,
        borderWidth: 0, pointRadius: 0, backgroundColor: color + "22", band: line.label });
      return [own, { ...edge("low"), fill: false }, { ...edge("high"), fill: "-1" }];
    });
    return new Chart(document.getElementById("figure-" + i + "-chart"), {
      type: "scatter", data: { datasets: sets },
      options: {
        scales: { x: axis(figure.x), y: axis(figure.y, figure.logarithmic ? { type: "logarithmic" } : {}) },
        plugins: {
          legend: { position: "right",
            labels: { color: text, usePointStyle: true, pointStyle: "circle", boxHeight: 6, font: { size: 11 }, filter: ({ text }) => text !== "" },
            onClick(event, { datasetIndex }, { chart }) {
              const { label } = chart.data.datasets[datasetIndex];
              const show = !chart.isDatasetVisible(datasetIndex);
              chart.data.datasets.forEach((set, k) => { if (set.label === label || set.band === label) chart.setDatasetVisibility(k, show); });
              chart.update();
            } },
          tooltip: { filter: ({ dataset }) => dataset.label !== "",
            callbacks: { label: ({ dataset, raw }) => dataset.label + ": " + raw.y.toPrecision(4) + " at " + raw.x.toPrecision(4) } },
        },
      },
    });
  };
  let drawn = [];
  const drawFigures = () => {
    for (const one of drawn) one.destroy();
    drawn = figures.map(drawFigure);
  };
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawFigures);
  drawFigures();

  for (const input of [measureInput, speedInput, allInput]) input.addEventListener("change", draw);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  draw();
})();
`;
