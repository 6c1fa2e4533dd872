import type { RgbImage } from "../images/index.js";
import { samplerTitle } from "../samplers/index.js";
import { chartBasics } from "./chart-report-script.js";
import type { Comparison } from "./compare.js";
import { dataUri, type Html, html } from "./html.js";
import { reportPage } from "./report-page.js";
import { reportScript } from "./report-script.js";
import type { ComparisonRow, ComparisonStep } from "./rows.js";
import { fullStepsText, summaryColumns, warningsOf } from "./table.js";

/** What a report shows beside the comparison. */
export interface ComparisonReportOptions {
  /** Source of Chart.js as one classic script, to be put inline. Without it the report has no charts. */
  readonly chartJs?: string;
  /** More facts for the head of the report, such as the command and the version. */
  readonly facts?: Readonly<Record<string, string>>;
}

/** Colours of the rows, legible on light and dark ground. The reference takes the first. */
const palette = ["#8b919c", "#3b82c4", "#e0861a", "#8d6fd1", "#cf4f7b", "#22a079", "#b39b1c", "#4aabcf", "#a5673f"];

const colorOf = (row: number): string => {
  const [reference, ...others] = palette;
  return row === 0 ? (reference as string) : (others[(row - 1) % others.length] as string);
};

/** A comparison as one HTML page that needs nothing else: images, charts, scripts and styles are in it. */
export function comparisonHtml(comparison: Comparison, options: ComparisonReportOptions = {}): string {
  const { model, rows, subjects } = comparison;
  const title = `${model}: ${subjects.length} ${subjects.length === 1 ? "image" : "images"}, drawn ${rows.length} ways`;
  const { chartJs, facts = {} } = options;
  const withCharts = chartJs !== undefined;
  return reportPage({
    command: "femo compare",
    title,
    lead:
      "Every way starts from the same noise. The first computes every step in full; the others save work, and are measured by how " +
      "close they come to it.",
    facts: { ...factsOf(comparison), ...facts },
    sections: [
      summary(rows),
      withCharts && tradeOffChart(rows),
      stepStrips(rows),
      withCharts && errorChart(rows),
      imageGrid(comparison),
      html`<div id="tip" role="tooltip" hidden></div>`,
    ],
    data: chartData(rows),
    scripts: [...(withCharts ? [chartJs, chartBasics] : []), reportScript],
  });
}

function factsOf(comparison: Comparison): Record<string, string> {
  const { model, dtype, subjects, guidanceScale, guidanceChannels, batchSize, converged } = comparison;
  const seeds = subjects.map(({ seed }) => seed);
  return {
    Model: model,
    Precision: dtype,
    Seeds: seeds.length > 1 ? `${seeds[0]} to ${seeds.at(-1)}` : String(seeds[0]),
    Steps: String(comparison.numInferenceSteps),
    Sampler: [
      samplerTitle(comparison.sampler),
      `${comparison.timestepSpacing} spacing`,
      ...(comparison.samplerSettings ? [fieldsText(comparison.samplerSettings)] : []),
    ].join(", "),
    ...(converged && {
      "Converged reference": `${converged.numInferenceSteps} steps, ${converged.timestepSpacing} spacing`,
    }),
    Guidance: guidanceScale > 1 ? `${guidanceScale}, ${guidanceChannels} channels` : "off",
    "Batch size": String(batchSize),
  };
}

function summary(rows: readonly ComparisonRow[]): Html {
  const columns = summaryColumns(rows);
  const head = columns.map(
    ({ heading, meaning }) => html`<th scope="col"><span class="term" data-tip="${meaning}">${heading}</span></th>`,
  );
  const body = rows.map((row, i) => {
    const cells = columns.map(({ cell }) => html`<td>${cell(row)}</td>`);
    return html`<tr><th scope="row">${swatch(i)}${row.name}</th>${cells}</tr>\n`;
  });
  const meanings = columns.map(({ heading, meaning }) => html`<dt>${heading}</dt><dd>${meaning}.</dd>`);
  return html`<section aria-labelledby="summary">
<h2 id="summary">Summary</h2>
<div class="scroll"><table class="summary">
<thead><tr><th scope="col">Variant</th>${head}</tr></thead>
<tbody>
${body}</tbody>
</table></div>
<details><summary>What the columns mean</summary><dl class="meanings">${meanings}</dl></details>
<details><summary>Settings of each variant</summary><dl class="meanings">${rows.map(
    (row) => html`<dt>${row.name}</dt><dd><code>${settingsText(row)}</code></dd>`,
  )}</dl></details>
${warningsOf(rows).map((warning) => html`<p class="note">${warning}</p>`)}
</section>`;
}

const settingsText = ({ cache, sampler, samplerSettings, timestepSpacing }: ComparisonRow): string =>
  fieldsText({ ...cache, sampler, ...samplerSettings, timestepSpacing });

const fieldsText = (fields: object): string =>
  Object.entries(fields)
    .map(([name, value]) => `${name}: ${Array.isArray(value) ? value.join(" ") : value}`)
    .join(", ");

function tradeOffChart(rows: readonly ComparisonRow[]): Html | false {
  const shown = rows.filter(({ psnr }) => psnr && Number.isFinite(psnr.mean));
  if (shown.length === 0) return false;
  const label = shown.map((row) => {
    const speeds = `${row.flopsSpeedup.toFixed(2)} times by FLOPs, ${row.measuredSpeedup.toFixed(2)} measured`;
    return `${row.name}: ${row.psnr?.mean.toFixed(2)} dB at ${speeds}`;
  });
  return html`<section aria-labelledby="trade-off">
<h2 id="trade-off">Error against speed-up</h2>
<fieldset class="choice"><legend>Speed-up</legend>
<label><input type="radio" name="speed" value="flopsSpeedup" checked> by FLOPs</label>
<label><input type="radio" name="speed" value="measuredSpeedup"> measured</label>
</fieldset>
<div class="chart"><canvas id="trade-off-chart" role="img" aria-label="${label.join("; ")}"></canvas></div>
<p class="note">Higher and further right is better. Bars are one standard error of the mean over images. The reference would be
at 1x, infinitely high.</p>
</section>`;
}

function errorChart(rows: readonly ComparisonRow[]): Html | false {
  if (!rows.some(({ steps }) => steps.some(({ forecastError }) => forecastError !== undefined))) return false;
  return html`<section aria-labelledby="errors">
<h2 id="errors">Forecast error over steps</h2>
<div class="chart"><canvas id="error-chart" role="img" aria-label="Relative forecast error of each variant at its full steps"></canvas></div>
<p class="note">At a full step, what would have been forecast is compared with what was computed: |F − F̂| / |F|, root mean square
over features and images.</p>
</section>`;
}

function stepStrips(rows: readonly ComparisonRow[]): Html {
  const strips = rows.map((row, i) => {
    const cells = row.steps.map(
      (step) => html`<i class="${step.computed >= 0.5 ? "full" : "forecast"}" data-tip="${stepText(step)}"></i>`,
    );
    const label = `Full steps of ${row.name}: ${fullStepsText(row)}`;
    return html`<div class="strip-row">
<div class="strip-name">${swatch(i)}${row.name}</div>
<div class="strip" style="--color:${colorOf(i)}" role="img" aria-label="${label}">${cells}</div>
<div class="strip-count">${fullStepsText(row)}</div>
</div>\n`;
  });
  return html`<section aria-labelledby="steps">
<h2 id="steps">Which steps were computed in full</h2>
<div class="strips">
${strips}</div>
<p class="note">From noise, left, to image, right. <span class="key full"></span> full <span class="key forecast"></span> forecast.
Point at a step for its time and error.</p>
</section>`;
}

function computedText(computed: number): string {
  if (computed === 1) return "full";
  return computed === 0 ? "forecast" : `full for ${Math.round(100 * computed)} % of the images`;
}

function stepText({ step, timestep, computed, durationMs, forecastError, beta }: ComparisonStep): string {
  return [
    `Step ${step}, timestep ${timestep}: ${computedText(computed)}`,
    `${durationMs.toFixed(1)} ms for all images`,
    ...(forecastError === undefined ? [] : [`forecast error ${(100 * forecastError).toFixed(1)} %`]),
    ...(beta === undefined ? [] : [`beta ${beta.toFixed(3)}`]),
  ].join("\n");
}

function imageGrid({ rows, images, subjects }: Comparison): Html {
  const head = subjects.map(({ title, seed }) => html`<th scope="col">${title}<small>seed ${seed}</small></th>`);
  const body = rows.map((row, i) => {
    const cells = subjects.map(({ title, seed }, j) => {
      const image = images[i]?.[j] as RgbImage;
      const note = imageNote(row, i, j);
      const alt = `${title}, seed ${seed}, ${row.name}: ${note}`;
      return html`<td><img src="${dataUri(image)}" width="${image.width}" height="${image.height}" alt="${alt}"><small>${note}</small></td>`;
    });
    return html`<tr><th scope="row">${swatch(i)}${row.name}</th>${cells}</tr>\n`;
  });
  return html`<section class="wide" aria-labelledby="images">
<h2 id="images">Images</h2>
<div class="scroll"><table class="images">
<thead><tr><th scope="col">Variant</th>${head}</tr></thead>
<tbody>
${body}</tbody>
</table></div>
<p class="note">PSNR in decibels against the reference above. Point at an image, or press it, to see the reference in its place.</p>
</section>`;
}

function imageNote(row: ComparisonRow, i: number, j: number): string {
  if (i === 0) return "reference";
  const value = row.psnr?.values[j];
  if (value === undefined) return "-";
  return value === Number.POSITIVE_INFINITY ? "identical" : `${value.toFixed(1)} dB`;
}

const swatch = (row: number): Html => html`<span class="swatch" style="background:${colorOf(row)}"></span>`;

/** What the charts show. */
const chartData = (rows: readonly ComparisonRow[]) =>
  rows.map((row, i) => ({
    name: row.name,
    color: colorOf(i),
    flopsSpeedup: row.flopsSpeedup,
    measuredSpeedup: row.measuredSpeedup,
    psnr: row.psnr && Number.isFinite(row.psnr.mean) ? row.psnr.mean : null,
    standardError: row.psnr?.standardError ?? 0,
    errors: row.steps.flatMap(({ step, forecastError }) =>
      forecastError === undefined ? [] : [{ x: step, y: 100 * forecastError }],
    ),
  }));
