import {
  type Device,
  type DiffusionPipeline,
  FemoError,
  type ModelPlace,
  DiffusionPipeline as Pipelines,
  psnr,
  type RgbImage,
} from "femo";
import { drawErrors, drawTrajectory, nothing } from "./charts.js";
import { draw, type Run } from "./drawing.js";
import { bytesOf, dataUrl, differenceOf, openPng, paint, pngOf } from "./pictures.js";
import {
  defaults,
  knobs,
  linkOf,
  type Method,
  methods,
  type Settings,
  settingsOfLink,
  titleOf,
  walkedSteps,
} from "./settings.js";

const find = <T extends HTMLElement>(id: string): T => document.getElementById(id) as T;
const DEFAULT_MODEL = new URL("models/avatars-flux/", document.baseURI).href;
const STORED = "femo-playground-runs";
const MAX_STORED = 24;

const settings: Settings = { ...defaults, ...settingsOfLink() };
/** What is shown now. */
let shown: { settings: Settings; run?: Run; image: RgbImage; reference?: Run } | undefined;
/** Uncached runs by what they drew, for the next caches to be compared with. */
const references = new Map<string, Run>();
let opening: Promise<DiffusionPipeline> | undefined;
let controller: AbortController | undefined;
let place: ModelPlace = DEFAULT_MODEL;
let device: Device = "auto";

// --- words -----------------------------------------------------------------------------------------------------------

const say = (words: string): void => {
  find("phase").textContent = words;
};
const complain = (error: unknown): void => {
  const isAbort = error instanceof DOMException && error.name === "AbortError";
  find("error").textContent = isAbort ? "" : error instanceof Error ? error.message : String(error);
  if (isAbort) say("Stopped.");
  else console.error(error);
};
const seconds = (ms: number): string => (ms < 950 ? `${Math.round(ms)} ms` : `${(ms / 1000).toPrecision(2)} s`);
const megabytes = (bytes: number): string => `${(bytes / 1e6).toFixed(1)} MB`;

// --- model -----------------------------------------------------------------------------------------------------------

async function open(from: ModelPlace, device: Device): Promise<DiffusionPipeline> {
  const chip = find("device");
  const tell = (words: string, state: string): void => {
    find("device-text").textContent = words;
    chip.dataset.state = state;
  };
  tell("opening the model…", "busy");
  try {
    const pipeline = await Pipelines.fromPretrained(from, {
      device,
      onProgress: ({ bytesDone, bytesTotal }) =>
        tell(`loading ${megabytes(bytesDone)} of ${megabytes(bytesTotal)}`, "busy"),
    });
    const { kind, title } = pipeline.device;
    tell(kind === "webgpu" ? `GPU: ${title}` : title, "ready");
    find("device-detail").textContent = `${pipeline.name} on ${title}.`;
    fitTo(pipeline);
    return pipeline;
  } catch (error) {
    tell("no model", "failed");
    throw error;
  }
}

/** Controls that depend on the model. */
function fitTo(pipeline: DiffusionPipeline): void {
  const level = document.getElementById("level") as HTMLSelectElement | null;
  if (level) fillLevels(level, pipeline.levels);
  fitFullSteps(pipeline);
  const label = document.querySelector('label[for="prompt"]') as HTMLElement;
  label.textContent = pipeline.subjectOption === "prompt" ? "Prompt" : "Class, by name or number";
  const isOwn = typeof place === "string" && place === DEFAULT_MODEL;
  if (settings.prompt === "" || (!isOwn && pipeline.subjectOption !== "prompt"))
    setPrompt(String(pipeline.examples[0] ?? ""));
}

function fillLevels(select: HTMLSelectElement, levels: readonly string[]): void {
  select.replaceChildren(...levels.map((level) => new Option(level, level)));
  if (!levels.includes(settings.level)) settings.level = levels.includes("output") ? "output" : (levels[0] ?? "x0");
  select.value = settings.level;
}

/** Offers the fitted solvers that the model has. */
function fitFullSteps({ solvers }: DiffusionPipeline): void {
  const runs = [...new Set(solvers.map(({ timesteps }) => timesteps.length))].sort((a, b) => a - b);
  const option = find("method").querySelector<HTMLOptionElement>('option[value="calibrated"]');
  if (option) option.disabled = runs.length === 0;
  const select = find<HTMLSelectElement>("full-steps");
  select.replaceChildren(...runs.map((count) => new Option(String(count))));
  if (!runs.includes(settings.fullSteps)) settings.fullSteps = runs.at(-1) ?? settings.fullSteps;
  select.value = String(settings.fullSteps);
}

const start = (): Promise<DiffusionPipeline> => {
  const before = opening;
  references.clear();
  opening = (async () => {
    await before?.then((pipeline) => pipeline.close()).catch(() => {});
    return open(place, device);
  })();
  opening.catch(complain);
  return opening;
};

// --- controls --------------------------------------------------------------------------------------------------------

const setPrompt = (text: string): void => {
  settings.prompt = text;
  find<HTMLTextAreaElement>("prompt").value = text;
};

function buildControls(): void {
  const method = find<HTMLSelectElement>("method");
  method.replaceChildren(...Object.entries(methods).map(([name, { title }]) => new Option(title, name)));
  method.addEventListener("change", () => {
    settings.method = method.value as Method;
    showControls();
  });
  const box = find("knobs");
  for (const { key, title, min, max, step } of knobs) {
    const field = document.createElement("div");
    field.className = "field";
    field.id = `field-${key}`;
    field.innerHTML = `<label for="${key}">${title}</label><output for="${key}"></output>
      <input id="${key}" type="range" min="${min}" max="${max}" step="${step}" aria-describedby="${key}-help">
      <p id="${key}-help" class="help"></p>`;
    const input = field.querySelector("input") as HTMLInputElement;
    input.addEventListener("input", () => {
      settings[key] = Number(input.value);
      showControls();
    });
    box.append(field);
    if (key === "warmup") box.append(levelField());
  }
  box.prepend(fullStepsField());
  const seed = document.createElement("div");
  seed.className = "field";
  seed.innerHTML = `<label for="seed">Seed</label><div class="seed"><input id="seed" type="number" min="0" step="1" inputmode="numeric">
    <button id="reseed" type="button">New</button></div><p class="help">The same seed draws the same picture again.</p>`;
  box.append(seed);
  const number = seed.querySelector("input") as HTMLInputElement;
  number.addEventListener("change", () => {
    settings.seed = Math.max(0, Math.round(Number(number.value)) || 0);
    showControls();
  });
  find("reseed").addEventListener("click", () => {
    settings.seed = Math.floor(Math.random() * 1e6);
    showControls();
  });
  const prompt = find<HTMLTextAreaElement>("prompt");
  prompt.addEventListener("input", () => {
    settings.prompt = prompt.value;
  });
  prompt.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    find<HTMLFormElement>("controls").requestSubmit();
  });
  let example = 0;
  find("example").addEventListener("click", async () => {
    const examples = (await opening?.catch(() => undefined))?.examples ?? [];
    setPrompt(String(examples[++example % Math.max(1, examples.length)] ?? ""));
  });
}

function selectField(id: string, title: string, help: string, onChange: (value: string) => void): HTMLElement {
  const field = document.createElement("div");
  field.className = "field";
  field.id = `field-${id}`;
  field.innerHTML = `<label for="${id}">${title}</label><select id="${id}" aria-describedby="${id}-help"></select>
    <p id="${id}-help" class="help">${help}</p>`;
  const select = field.querySelector("select") as HTMLSelectElement;
  select.addEventListener("change", () => onChange(select.value));
  return field;
}

function levelField(): HTMLElement {
  const help = "What is kept and forecast: fine parts of the network, or its output as a whole, the cheapest.";
  const field = selectField("level", "Level", help, (level) => {
    settings.level = level;
  });
  fillLevels(field.querySelector("select") as HTMLSelectElement, [settings.level]);
  return field;
}

function fullStepsField(): HTMLElement {
  const help = "How often the network is computed, in place of the steps that the uncached picture takes.";
  const field = selectField("full-steps", "Runs", help, (runs) => {
    settings.fullSteps = Number(runs);
  });
  field.querySelector("select")?.append(new Option(String(settings.fullSteps)));
  return field;
}

/** Chooses a value, if it is offered. */
function choose(id: string, value: string): void {
  const select = find<HTMLSelectElement>(id);
  if ([...select.options].some((option) => option.value === value)) select.value = value;
}

/** What the settings are, in the controls. */
function showControls(): void {
  const { knobs: own, help } = methods[settings.method];
  find<HTMLSelectElement>("method").value = settings.method;
  find("method-help").textContent = help;
  find<HTMLTextAreaElement>("prompt").value = settings.prompt;
  find<HTMLInputElement>("seed").value = String(settings.seed);
  const has = (key: string): boolean => (own as readonly string[]).includes(key);
  for (const { key, help: words } of knobs) {
    const value = settings[key];
    find<HTMLInputElement>(key).value = String(value);
    const field = find(`field-${key}`);
    (field.querySelector("output") as HTMLElement).textContent = String(value);
    (field.querySelector(".help") as HTMLElement).textContent = words(value, settings);
    field.hidden = key !== "steps" && key !== "guidance" && !has(key);
  }
  find("field-level").hidden = !has("level");
  find("field-full-steps").hidden = !has("fullSteps");
  choose("full-steps", String(settings.fullSteps));
  choose("level", settings.level);
}

const take = (found: Partial<Settings> | undefined): void => {
  Object.assign(settings, found);
  showControls();
};

// --- what is shown ---------------------------------------------------------------------------------------------------

function showView(view: string): void {
  find("views").dataset.view = view;
  for (const button of document.querySelectorAll<HTMLButtonElement>(".segments button")) {
    button.setAttribute("aria-pressed", String(button.dataset.view === view));
  }
}

function startStrip(steps: number): void {
  find("strip").replaceChildren(...Array.from({ length: steps }, () => document.createElement("i")));
}

function markStep(step: number, full: boolean): void {
  find("strip").children[step]?.setAttribute("class", full ? "full" : "forecast");
}

function showRun(): void {
  if (!shown) return;
  const { run, image, reference, settings: own } = shown;
  const picture = find<HTMLCanvasElement>("picture");
  paint(picture, image);
  picture.setAttribute("aria-label", `Picture of: ${own.prompt}`);
  const comparable = Boolean(reference && own.method !== "none" && run);
  for (const button of document.querySelectorAll<HTMLButtonElement>(".segments button")) {
    if (button.dataset.view !== "picture") button.disabled = !comparable;
  }
  if (comparable && reference) {
    paint(find("reference"), reference.image);
    paint(find("difference"), differenceOf(image, reference.image));
  } else showView("picture");
  find<HTMLButtonElement>("download").disabled = false;
  if (!run) {
    for (const id of ["steps", "flops", "time", "psnr"]) find(`stat-${id}`).textContent = "–";
    return;
  }
  const { report } = run;
  const full = report.fullSteps[0]?.length ?? 0;
  startStrip(report.numInferenceSteps);
  for (const { step, full: computed, rejected } of report.batches[0]?.steps ?? [])
    if (!rejected) markStep(step, computed);
  find("strip").setAttribute(
    "aria-label",
    `${full} of ${own.steps} steps computed${own.method === "calibrated" ? "" : ", the others forecast"}`,
  );
  find("stat-steps").textContent = `${full} of ${own.steps}`;
  const times = (report.flops.speedup * own.steps) / report.numInferenceSteps;
  find("stat-flops").textContent =
    times < 1.005 ? "none" : `${Math.round(100 * (1 - 1 / times))} %, ${times.toFixed(1)}×`;
  const faster = reference && own.method !== "none" ? `, not ${seconds(reference.report.stepsMs)}` : "";
  find("stat-time").textContent = `${seconds(report.stepsMs)}${faster}`;
  find("stat-psnr").textContent = comparable && reference ? nearness(image, reference.image) : "–";
  // Hindsight walks steps again, and a fitted solver has others: only where they led is comparable then.
  const byStates = own.method === "hindsight" || own.method === "calibrated";
  const path = (of: Run) => (byStates || of.outputs.length === 0 ? of.states : of.outputs);
  const truth = reference && own.method !== "none" ? path(reference) : [];
  drawTrajectory(find("trajectory"), path(run), truth);
  if (own.method === "calibrated")
    nothing(find("errors"), "Its steps are its own: none of the uncached ones is beside them.");
  else drawErrors(find("errors"), truth.length > 0 ? path(run) : [], truth, run.measured, own.steps);
}

function nearness(a: RgbImage, b: RgbImage): string {
  const db = psnr(a, b);
  if (!Number.isFinite(db)) return "the same";
  return `${db.toFixed(1)} dB, ${db > 40 ? "alike to the eye" : db > 30 ? "small differences" : "another picture"}`;
}

// --- gallery ---------------------------------------------------------------------------------------------------------

interface Kept {
  readonly png: string;
}
const stored = (): Kept[] => {
  try {
    const found: unknown = JSON.parse(localStorage.getItem(STORED) ?? "[]");
    return Array.isArray(found) ? found.filter((one): one is Kept => typeof one?.png === "string") : [];
  } catch {
    return [];
  }
};

function keep(png: string): void {
  let runs = [{ png }, ...stored()].slice(0, MAX_STORED);
  for (;;) {
    try {
      localStorage.setItem(STORED, JSON.stringify(runs));
      break;
    } catch {
      if (runs.length <= 1) break; // no room: the gallery is this page's alone
      runs = runs.slice(0, -1);
    }
  }
  showGallery(runs);
}

function showGallery(runs = stored()): void {
  find("empty").hidden = runs.length > 0;
  find("runs").replaceChildren(
    ...runs.flatMap(({ png }) => {
      let found: ReturnType<typeof openPng>;
      try {
        found = openPng(bytesOf(png));
      } catch {
        return [];
      }
      const own: Settings = { ...defaults, ...found.settings };
      const item = document.createElement("li");
      const button = document.createElement("button");
      button.type = "button";
      const picture = Object.assign(document.createElement("img"), { src: png, alt: "", width: 96, height: 96 });
      const title = document.createElement("span");
      title.textContent = own.prompt;
      const what = document.createElement("small");
      what.textContent = titleOf(own);
      button.append(picture, title, what);
      button.addEventListener("click", () => restore(found));
      item.append(button);
      return [item];
    }),
  );
}

function restore({ image, settings: found }: ReturnType<typeof openPng>): void {
  if (!found) {
    complain(new FemoError("E_IMAGE", "This PNG does not say how it was drawn: it is none of this page's."));
    return;
  }
  find("error").textContent = "";
  take(found);
  shown = { settings: { ...settings }, image };
  showView("picture");
  showRun();
  say("Settings restored: draw to see them at work.");
}

async function openFile(file: File | undefined): Promise<void> {
  if (!file) return;
  try {
    restore(openPng(new Uint8Array(await file.arrayBuffer())));
  } catch (error) {
    complain(error);
  }
}

// --- drawing ---------------------------------------------------------------------------------------------------------

const referenceKey = ({ prompt, seed, steps, guidance }: Settings): string =>
  JSON.stringify([prompt, seed, steps, guidance]);

async function drawNow(): Promise<void> {
  if (controller) return;
  controller = new AbortController();
  const { signal } = controller;
  const own: Settings = { ...settings };
  const busy = (is: boolean): void => {
    find<HTMLButtonElement>("draw").disabled = is;
    find<HTMLButtonElement>("stop").disabled = !is;
    document.body.classList.toggle("busy", is);
  };
  busy(true);
  find("error").textContent = "";
  try {
    say("Waiting for the model…");
    const pipeline = await (opening ?? start());
    signal.throwIfAborted();
    showView("picture");
    startStrip(walkedSteps(own));
    const share = own.steps / walkedSteps(own);
    let [done, spared, ms, flops, most] = [0, 0, 0, 0, 0];
    const run = await draw(pipeline, own, signal, {
      phase: say,
      step(progress) {
        const { step, full } = progress;
        markStep(step, full);
        done = Math.max(done, step + 1);
        spared += full ? 0 : 1;
        ms += progress.durationMs;
        flops += progress.flops;
        most = Math.max(most, progress.flops);
        find("stat-steps").textContent = `${done - spared} of ${done}`;
        find("stat-time").textContent = seconds(ms);
        find("stat-flops").textContent = `${Math.round(100 * Math.max(0, 1 - flops / (most * done * share)))} %`;
      },
      preview: (image) => paint(find("picture"), image),
    });
    const key = referenceKey(own);
    if (own.method === "none") references.set(key, run);
    const known = references.get(key);
    shown = { settings: own, run, image: run.image, ...(known && { reference: known }) };
    showRun();
    const noted = { settings: own, model: pipeline.name, sampler: run.report.sampler };
    keep(dataUrl(pngOf(run.image, noted)));
    history.replaceState(null, "", linkOf(own));
    say(`Drawn in ${seconds(run.report.totalMs)}.`);
    if (own.method !== "none" && !known && find<HTMLInputElement>("beside").checked) {
      say("Drawing it without a cache, to compare…");
      let steps = 0;
      const reference = await draw(pipeline, { ...own, method: "none" }, signal, {
        phase: () => {},
        step: () => say(`Drawing it without a cache, to compare: step ${++steps} of ${own.steps}`),
      });
      references.set(key, reference);
      shown = { ...shown, reference };
      showRun();
      say(`Without a cache the steps took ${seconds(reference.report.stepsMs)}.`);
    }
  } catch (error) {
    complain(error);
    // An engine that has ended draws no more: the next picture opens it again.
    if (error instanceof FemoError && error.code === "E_RUNTIME") opening = undefined;
  } finally {
    controller = undefined;
    busy(false);
  }
}

// --- the page --------------------------------------------------------------------------------------------------------

buildControls();
showControls();
showGallery();
startStrip(settings.steps);
drawTrajectory(find("trajectory"), [], []);
drawErrors(find("errors"), [], [], new Map(), settings.steps);

find<HTMLFormElement>("controls").addEventListener("submit", (event) => {
  event.preventDefault();
  void drawNow();
});
find("stop").addEventListener("click", () => controller?.abort());
for (const button of document.querySelectorAll<HTMLButtonElement>(".segments button")) {
  button.addEventListener("click", () => showView(button.dataset.view ?? "picture"));
}
const split = find<HTMLInputElement>("split");
const moveSplit = (): void => find("views").style.setProperty("--split", `${split.value}%`);
split.addEventListener("input", moveSplit);
moveSplit();

find("download").addEventListener("click", async () => {
  if (!shown) return;
  const pipeline = await opening?.catch(() => undefined);
  const noted = { settings: shown.settings, model: pipeline?.name ?? "", sampler: shown.run?.report.sampler ?? "" };
  const link = document.createElement("a");
  link.href = dataUrl(pngOf(shown.image, noted));
  link.download = `${shown.settings.prompt.replaceAll(/\W+/g, "-").slice(0, 60) || "femo"}-${shown.settings.seed}.png`;
  link.click();
});
find("share").addEventListener("click", async () => {
  const link = linkOf(shown?.settings ?? settings);
  history.replaceState(null, "", link);
  await navigator.clipboard?.writeText(link).then(
    () => say("Link copied."),
    () => say("The link is in the address bar."),
  );
});
find<HTMLInputElement>("png").addEventListener("change", ({ target }) =>
  openFile((target as HTMLInputElement).files?.[0]),
);
addEventListener("dragover", (event) => {
  event.preventDefault();
  document.body.classList.add("dropping");
});
addEventListener("dragleave", ({ relatedTarget }) => {
  if (!relatedTarget) document.body.classList.remove("dropping");
});
addEventListener("drop", (event) => {
  event.preventDefault();
  document.body.classList.remove("dropping");
  void openFile(event.dataTransfer?.files[0]);
});
addEventListener("hashchange", () => take(settingsOfLink()));

const dialog = find<HTMLDialogElement>("settings");
find("device").addEventListener("click", () => {
  find<HTMLInputElement>("model-url").value = typeof place === "string" ? place : "";
  dialog.showModal();
});
dialog.addEventListener("close", () => {
  if (dialog.returnValue !== "open") return;
  controller?.abort();
  const files = find<HTMLInputElement>("model-folder").files;
  const url = find<HTMLInputElement>("model-url").value.trim();
  place = files && files.length > 0 ? [...files] : url || DEFAULT_MODEL;
  device = find<HTMLSelectElement>("device-choice").value as Device;
  void start();
});

void start();
