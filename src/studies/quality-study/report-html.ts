import type { RgbImage } from "../../images/index.js";
import { chartBasics } from "../chart-report-script.js";
import { dataUri, type Html, html } from "../html.js";
import { reportPage } from "../report-page.js";
import { bytesText } from "../table.js";
import type { LineFigure } from "./figures.js";
import type { StudyPlan } from "./plan.js";
import { bestNear, chartRows, differenceOf, type Measure, measuresOf, speeds } from "./report-data.js";
import { studyScript } from "./report-script.js";
import type { StudyRow } from "./summary.js";

/** What a report of a study shows. */
export interface StudyReport {
  readonly plan: StudyPlan;
  /** The uncached reference first. */
  readonly rows: readonly StudyRow[];
  /** Images of a cell to look at. */
  readonly samples: (cell: string) => readonly RgbImage[];
  /** Source of Chart.js as one classic script, to be put inline. */
  readonly chartJs: string;
  /** More facts for the head of the report, such as the command and the version. */
  readonly facts?: Readonly<Record<string, string>>;
  readonly figures?: readonly LineFigure[];
}

/** A study as one HTML page that needs nothing else. */
export function studyHtml({ plan, rows, samples, chartJs, facts = {}, figures = [] }: StudyReport): string {
  const measures = measuresOf(rows);
  const title = `${plan.model}: ${rows.length} ways to draw, ${rows[0]?.images ?? 0} images`;
  const [first] = measures;
  return reportPage({
    command: "femo study",
    title,
    lead:
      "Every way draws the same images from the same noise. Methods and rivals are set to the same costs, each in all the settings it " +
      "has; what is shown first is each at its best.",
    facts: { ...factsOf(plan, rows), ...facts },
    sections: [
      tradeOff(measures),
      first && bestTables(rows, measures, first),
      first && grid(rows, first, samples),
      ...figures.map(figureHtml),
    ],
    data: {
      rows: chartRows(rows, measures),
      measures: measures.map(({ key, title, sign }) => ({ key, title, sign })),
      figures,
      speeds: Object.entries(speeds).map(([key, { title }]) => ({ key, title })),
    },
    scripts: [chartJs, chartBasics, studyScript],
  });
}

function factsOf(plan: StudyPlan, rows: readonly StudyRow[]): Record<string, string> {
  const images = rows[0]?.images ?? 0;
  const { drawing } = plan;
  return {
    Model: `${plan.model}, ${plan.dtype}`,
    Images: `${images} of seeds ${plan.seed} to ${plan.seed + images - 1}`,
    "Uncached steps": String(plan.numInferenceSteps),
    ...(plan.convergedSteps !== undefined && { "Converged steps": String(plan.convergedSteps) }),
    Drawing:
      Object.entries(drawing)
        .map(([name, value]) => `${name} ${value}`)
        .join(", ") || "the model's own settings",
  };
}

function tradeOff(measures: readonly Measure[]): Html {
  return html`<section aria-labelledby="trade-off">
<h2 id="trade-off">Quality against cost</h2>
<p class="choice">
<label>Quality <select id="measure">${measures.map(({ key, title }) => html`<option value="${key}">${title}</option>`)}</select></label>
<label>Cost <select id="speed">${Object.entries(speeds).map(([key, { title }]) => html`<option value="${key}">${title}</option>`)}</select></label>
<label><input type="checkbox" id="all"> every setting</label>
</p>
<div class="chart tall"><canvas id="trade-off-chart" role="img" aria-label="Quality of every method over its cost; the tables below say the same in numbers"></canvas></div>
<p class="note">A line is a method at its best settings: those that no other setting of it beats. The dashed line is what no method at all beats.
Bars are confidence intervals of 95 %, of means over images. Press a name to hide it.</p>
</section>`;
}

const figureHtml = ({ title, note, lines }: LineFigure, i: number): Html =>
  html`<section aria-labelledby="figure-${i}">
<h2 id="figure-${i}">${title}</h2>
<div class="chart tall"><canvas id="figure-${i}-chart" role="img" aria-label="${title}, of ${lines.map(({ label }) => label).join(", ")}"></canvas></div>
<p class="note">${note}</p>
</section>`;

/** All of PSNR, the means of the rest, and not every label. */
const IN_TABLES =
  /^(reference\.psnr\.|converged\.psnr\.|(reference|converged)\..*\.mean$|frechet\.|scores\.(accuracy|clip|imageReward)$)/;

/** Costs at which methods are compared in tables. */
const NEAR = [2, 3, 5, 7, 10] as const;

function bestTables(rows: readonly StudyRow[], measures: readonly Measure[], first: Measure): Html {
  const tables = NEAR.flatMap((speedup) => {
    const best = bestNear(rows.slice(1), first, speedup);
    if (best.length === 0) return [];
    const shown = measures.filter(({ key }) => IN_TABLES.test(key));
    const head = shown.map(({ title }) => html`<th scope="col">${title}</th>`);
    const body = best.map((row) => {
      const cells = shown.map((measure) => html`<td>${numberText(measure, row)}</td>`);
      return html`<tr><th scope="row">${row.cell.series}</th><td>${row.fullSteps.toFixed(1)}</td><td>${row.flopsSpeedup.toFixed(2)}x</td>
<td>${row.measuredSpeedup.median.toFixed(2)}x</td><td>${bytesText(row.stateBytes)}</td><td>${behindText(first, row, best[0])}</td>${cells}</tr>\n`;
    });
    return [
      html`<h3>About ${speedup} times</h3>
<div class="scroll"><table class="summary">
<thead><tr><th scope="col">Method and settings</th><th scope="col">Network runs</th><th scope="col">By FLOPs</th><th scope="col">Measured</th><th scope="col">State</th><th scope="col">From the first, image by image</th>${head}</tr></thead>
<tbody>${body}</tbody></table></div>`,
    ];
  });
  return html`<section class="wide" aria-labelledby="best">
<h2 id="best">The best of each method at equal cost</h2>
${tables}
<p class="note">Of each method the setting with the best “${first.title}” within a tenth of the speed-up. How far it is from the first's is the mean of
the differences on the same images, whose interval of 95 % is narrower than what the two of the means say: an image that is hard for one way is so for others.</p>
</section>`;
}

const numberText = (measure: Measure, row: StudyRow): string => {
  const value = measure.of(row);
  const margin = measure.margin(row);
  if (value === undefined) return "";
  const text = Number.isFinite(value) ? value.toPrecision(4) : "identical";
  return margin === undefined ? text : `${text} ± ${margin.toPrecision(2)}`;
};

const behindText = (measure: Measure, row: StudyRow, first: StudyRow | undefined): string => {
  const found = first && row !== first ? differenceOf(measure, row, first) : undefined;
  return found ? `${found.mean.toFixed(2)} ± ${found.margin.toFixed(2)}` : "";
};

/** The speed-up of the images that are shown, and how many methods. */
const GRID_SPEEDUP = 5;
const GRID_ROWS = 12;

function grid(rows: readonly StudyRow[], measure: Measure, samples: StudyReport["samples"]): Html {
  const best = bestNear(rows.slice(1), measure, GRID_SPEEDUP).slice(0, GRID_ROWS);
  const body = [...rows.slice(0, 1), ...best].map((row) => {
    const images = samples(row.cell.id).map(
      (image, i) =>
        html`<td><img src="${dataUri(image)}" width="${image.width}" height="${image.height}" alt="Image ${i + 1}, ${row.cell.series}"></td>`,
    );
    return html`<tr><th scope="row">${row.cell.series}<small>${row.flopsSpeedup.toFixed(2)}x</small></th>${images}</tr>\n`;
  });
  return html`<section class="wide" aria-labelledby="images">
<h2 id="images">Images at about ${GRID_SPEEDUP} times</h2>
<div class="scroll"><table class="images"><tbody>
${body}</tbody></table></div>
<p class="note">The first images of the study, not chosen, from the best setting of each method. Point at one to see the uncached image in its place.</p>
</section>`;
}
