import { type PlanePoint, principalPlane, project } from "../../src/studies/trajectories/plane.js";
import { type Output, relativeError } from "./algebra.js";

const NS = "http://www.w3.org/2000/svg";
const [WIDTH, HEIGHT, PAD] = [480, 300, 34];

const element = (name: string, attributes: Record<string, string | number>, text?: string): SVGElement => {
  const made = document.createElementNS(NS, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, String(value));
  if (text !== undefined) made.textContent = text;
  return made;
};

function chart(box: HTMLElement, label: string): SVGElement {
  const svg = element("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": label });
  box.replaceChildren(svg);
  return svg;
}

/** Words in the place of a chart. */
export const nothing = (box: HTMLElement, words: string): void => {
  const text = document.createElement("p");
  text.className = "help none";
  text.textContent = words;
  box.replaceChildren(text);
};

const percent = (part: number): string =>
  `${part === 0 || part >= 0.1 ? Math.round(100 * part) : (100 * part).toPrecision(2)} %`;

const polyline = (points: readonly (readonly [number, number])[], kind: string): SVGElement =>
  element("polyline", { points: points.map(([x, y]) => `${x.toFixed(1)},${y.toFixed(1)}`).join(" "), class: kind });

/** Both paths in the plane of the uncached one, or of the cached one if there is no other. */
export function drawTrajectory(box: HTMLElement, cached: readonly Output[], uncached: readonly Output[]): void {
  const path = uncached.length > 2 ? uncached : cached;
  if (path.length < 3) {
    nothing(box, "Draw a picture to see its path.");
    return;
  }
  const plane = principalPlane(path.map(({ data }) => data));
  const truth = uncached.map(({ data }) => project(plane, data));
  const drawn = cached.map(({ data }) => project(plane, data));
  const all = [...truth, ...drawn];
  const [xs, ys] = [all.map(({ x }) => x), all.map(({ y }) => y)];
  const [left, right, low, high] = [Math.min(...xs), Math.max(...xs), Math.min(...ys), Math.max(...ys)];
  const at = ({ x, y }: PlanePoint): [number, number] => [
    PAD + ((x - left) / (right - left || 1)) * (WIDTH - 2 * PAD),
    HEIGHT - PAD - ((y - low) / (high - low || 1)) * (HEIGHT - 2 * PAD),
  ];
  const share = Math.round(100 * plane.share);
  const svg = chart(
    box,
    `Path of the network's output over ${drawn.length} steps in its first two principal components, ${share} % of its variance`,
  );
  if (truth.length > 0) svg.append(polyline(truth.map(at), "line truth"));
  svg.append(polyline(drawn.map(at), "line cached"));
  for (const point of truth) {
    const [x, y] = at(point);
    svg.append(element("circle", { cx: x, cy: y, r: 2.2, class: "mark truth" }));
  }
  for (const [i, point] of drawn.entries()) {
    const [x, y] = at(point);
    svg.append(
      element("circle", {
        cx: x,
        cy: y,
        r: cached[i]?.full ? 5 : 2.6,
        class: `mark ${cached[i]?.full ? "full" : "forecast"}`,
      }),
    );
  }
  for (const [words, point, dy] of [
    ["start", drawn[0], -10],
    ["end", drawn.at(-1), -10],
  ] as const) {
    if (!point) continue;
    const [x, y] = at(point);
    svg.append(
      element(
        "text",
        { x: Math.min(Math.max(x, 22), WIDTH - 22), y: Math.max(12, y + dy), class: "note", "text-anchor": "middle" },
        words,
      ),
    );
  }
  svg.append(
    element("text", { x: WIDTH - 6, y: HEIGHT - 8, class: "note", "text-anchor": "end" }, `${share} % of the variance`),
  );
}

/** @param measured what full steps measured of forecasts, by step */
export function drawErrors(
  box: HTMLElement,
  cached: readonly Output[],
  uncached: readonly Output[],
  measured: ReadonlyMap<number, number>,
  steps: number,
): void {
  const truth = new Map(uncached.map((output) => [output.step, output.data]));
  const errors = cached.flatMap(({ step, full, data }) => {
    const other = truth.get(step);
    return other ? [{ step, full, error: relativeError(data, other) }] : [];
  });
  if (errors.length === 0 && measured.size === 0) {
    nothing(box, "Draw with a cache, and without one, to see how far it was off.");
    return;
  }
  const top = Math.max(0.01, ...errors.map(({ error }) => error), ...measured.values()) * 1.1;
  const x = (step: number): number => PAD + 18 + (step / Math.max(1, steps - 1)) * (WIDTH - 2 * PAD - 18);
  const y = (error: number): number => HEIGHT - PAD - (error / top) * (HEIGHT - 2 * PAD);
  const worst = errors.reduce((most, { error }) => Math.max(most, error), 0);
  const svg = chart(box, `Error of the output at each of ${steps} steps, at most ${percent(worst)}`);
  for (const part of [0, 0.5, 1]) {
    const level = (top / 1.1) * part;
    svg.append(element("line", { x1: PAD + 14, x2: WIDTH - PAD, y1: y(level), y2: y(level), class: "grid" }));
    svg.append(element("text", { x: PAD + 10, y: y(level) + 4, class: "note", "text-anchor": "end" }, percent(level)));
  }
  svg.append(
    polyline(
      errors.map(({ step, error }) => [x(step), y(error)]),
      "line cached",
    ),
  );
  for (const { step, full, error } of errors) {
    svg.append(
      element("circle", { cx: x(step), cy: y(error), r: full ? 4 : 2.6, class: `mark ${full ? "full" : "forecast"}` }),
    );
  }
  for (const [step, error] of measured) {
    const [cx, cy] = [x(step), y(error)];
    svg.append(
      element("path", {
        d: `M${cx} ${cy - 5}L${cx + 5} ${cy}L${cx} ${cy + 5}L${cx - 5} ${cy}Z`,
        class: "mark measured",
      }),
    );
  }
  svg.append(element("text", { x: x(0), y: HEIGHT - 10, class: "note" }, "first step"));
  svg.append(element("text", { x: WIDTH - PAD, y: HEIGHT - 10, class: "note", "text-anchor": "end" }, "last"));
}
