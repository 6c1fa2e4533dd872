import { existsSync, readdirSync, readFileSync } from "node:fs";
import { link, mkdir, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { decodePng, encodePng, type RgbImage } from "../images/index.js";
import { writeWhole } from "../platform/node/whole-files.js";
import {
  partFromJson,
  type StudyPart,
  type StudyPlan,
  type StudyStore,
  type Trajectories,
  type Wanted,
} from "../studies/index.js";
import { parseJson } from "../weights/json.js";
import { keepingError, textOf } from "./files.js";

const PLAN = "plan.json";

/**
 * A study in a folder: its plan, a file for every part of every cell, the uncached images, and some of each cell to look at. A file
 * is whole or not there, so that a process may be killed at any time, and several may work in the same folder on other images.
 */
export class StudyFolder implements StudyStore {
  readonly path: string;

  constructor(path: string) {
    this.path = path;
  }

  /** The plan that it has. @throws FemoError E_CONFIG if it is damaged */
  plan(): StudyPlan | undefined {
    const path = join(this.path, PLAN);
    return existsSync(path) ? (parseJson(textOf(path), path) as StudyPlan) : undefined;
  }

  /** Keeps the plan, unless another process was first: what the folder has now. */
  async begin(plan: StudyPlan): Promise<StudyPlan> {
    const temporary = join(this.path, `.${PLAN}.${process.pid}.tmp`);
    try {
      await mkdir(this.path, { recursive: true });
      await writeFile(temporary, `${JSON.stringify(plan, null, 1)}\n`);
      await link(temporary, join(this.path, PLAN)).catch((error: NodeJS.ErrnoException) => {
        if (error.code !== "EEXIST") throw error;
      });
    } catch (error) {
      throw folderError(this.path, error);
    } finally {
      await rm(temporary, { force: true }).catch(() => {}); // where there is no folder there is no such file
    }
    return this.plan() as StudyPlan;
  }

  async has(cell: string, first: number): Promise<boolean> {
    return existsSync(this.#partPath(cell, first));
  }

  add(part: StudyPart): Promise<void> {
    return this.#write(this.#partPath(part.cell, part.first), JSON.stringify(part));
  }

  async images(of: Wanted, first: number, count: number): Promise<RgbImage[] | undefined> {
    const paths = Array.from({ length: count }, (_, i) => this.#imagePath(of, first + i));
    return paths.every((path) => existsSync(path))
      ? paths.map((path) => decodePng(readFileSync(path)).image)
      : undefined;
  }

  async keepImages(of: Wanted, first: number, images: readonly RgbImage[]): Promise<void> {
    for (const [i, image] of images.entries()) await this.#write(this.#imagePath(of, first + i), encodePng(image));
  }

  async keepSamples(cell: string, images: readonly RgbImage[]): Promise<void> {
    for (const [i, image] of images.entries()) await this.#write(this.#samplePath(cell, i), encodePng(image));
  }

  /** The images of a cell that were kept to be looked at. */
  samples(cell: string): RgbImage[] {
    const images: RgbImage[] = [];
    for (let i = 0; existsSync(this.#samplePath(cell, i)); i++) {
      images.push(decodePng(readFileSync(this.#samplePath(cell, i))).image);
    }
    return images;
  }

  /** The first image of each part of a cell that is kept. */
  firsts(cell: string): number[] {
    const folder = join(this.path, "parts", cell);
    const names = existsSync(folder) ? readdirSync(folder) : [];
    return names.flatMap((name) => (/^\d+\.json$/.test(name) ? [Number.parseInt(name, 10)] : []));
  }

  /** A part that is kept. @throws FemoError E_CONFIG if it is damaged */
  part(cell: string, first: number): StudyPart {
    const path = this.#partPath(cell, first);
    return partFromJson(parseJson(textOf(path), path), path);
  }

  /** Recorded paths of features, by level. */
  trajectories(level: string): Trajectories | undefined {
    const path = this.#trajectoriesPath(level);
    return existsSync(path) ? (parseJson(textOf(path), path) as Trajectories) : undefined;
  }

  /** Of all levels. */
  allTrajectories(): Trajectories[] {
    const folder = join(this.path, "trajectories");
    if (!existsSync(folder)) return [];
    const levels = readdirSync(folder).flatMap((name) => (name.endsWith(".json") ? [name.slice(0, -5)] : []));
    return levels.toSorted().flatMap((level) => this.trajectories(level) ?? []);
  }

  keepTrajectories(recorded: Trajectories): Promise<void> {
    return this.#write(this.#trajectoriesPath(recorded.level), JSON.stringify(recorded));
  }

  async #write(path: string, content: string | Uint8Array): Promise<void> {
    try {
      await writeWhole({ path, write: (temporary) => writeFile(temporary, content) });
    } catch (error) {
      throw folderError(path, error);
    }
  }

  #partPath = (cell: string, first: number): string => join(this.path, "parts", cell, `${first}.json`);
  #imagePath = (of: Wanted, image: number): string => join(this.path, of, `${image}.png`);
  #trajectoriesPath = (level: string): string => join(this.path, "trajectories", `${level}.json`);
  #samplePath = (cell: string, i: number): string => join(this.path, "samples", `${cell}-${i}.png`);
}

const folderError = (path: string, cause: unknown) => keepingError(path, "the study", cause, "--out goes elsewhere");
