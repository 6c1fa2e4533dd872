import type { Engine } from "../runtime/engine.js";
import type { Checkpoint, FolderSource } from "../weights/index.js";
import type { Device } from "./device.js";

/**
 * Where a model is: the name of an embedded one, a path, an id on the Hub; in a browser also an address, a file that the
 * user picked, or the files of a folder.
 */
export type ModelPlace = string | URL | File | readonly File[];

/** How far a download is. Not called at all if everything is there already. */
export interface DownloadProgress {
  /** "owner/name", with the revision if that is not main. */
  readonly model: string;
  /** The file that is being downloaded, by its path in the repository. */
  readonly file: string;
  /** Of all files that are needed, those that were there already included. May go back if bytes arrived damaged. */
  readonly bytesDone: number;
  readonly bytesTotal: number;
}

/** Where to look for a model, and who watches. */
export interface FindOptions {
  /** Of a model on the Hub. Default "main". */
  readonly revision?: string | undefined;
  /** Where downloads are kept. Default: the platform's own place. */
  readonly cacheDir?: string | undefined;
  /** Of the Hub. Default: in Node that of the environment, in a browser none. */
  readonly token?: string | undefined;
  readonly signal?: AbortSignal | undefined;
  readonly onProgress?: ((progress: DownloadProgress) => void) | undefined;
  /** Which of a repository's files are needed, by path. Default: those of a pipeline in diffusers' layout. */
  readonly select?: (folder: FolderSource) => Promise<readonly string[]>;
}

/** How far the making of weights is. */
export interface ConversionProgress {
  /** The tensor that was made last; undefined before the first. */
  readonly tensor: string | undefined;
  readonly tensorsDone: number;
  readonly tensorsTotal: number;
  /** Of the file that keeps them. */
  readonly bytesDone: number;
  readonly bytesTotal: number;
}

export interface KeepOptions {
  /** Stops it between two tensors. */
  readonly signal?: AbortSignal | undefined;
  /** Not called if the tensors are kept already. */
  readonly onProgress?: ((progress: ConversionProgress) => void) | undefined;
}

/** Where a model is. */
export interface FoundModel {
  readonly folder: FolderSource;
  /** What reports call the model. */
  readonly name: string;
  /** The file in the folder that was meant, if not the folder itself. */
  readonly file: string | undefined;
}

/** A file that somebody published, and by what it is known. */
export interface PublishedFile {
  /** By which it is looked for in folders. */
  readonly name: string;
  /** In hexadecimal digits, or how it begins. Undefined of a file that is known by its place alone. */
  readonly sha256: string | undefined;
  /** The folder of an embedded model, an address, or a repository on the Hub, "owner/name". */
  readonly from: { readonly embedded: string } | { readonly url: string } | { readonly hub: string };
}

export interface FindFileOptions extends Pick<FindOptions, "cacheDir" | "signal" | "onProgress"> {
  /** A folder that has it, or the file itself: nothing is downloaded. */
  readonly at?: string | undefined;
}

export interface FoundFile {
  readonly folder: FolderSource;
  /** In the folder. */
  readonly path: string;
  readonly sha256: string;
}

export interface EngineOptions {
  /** CPU threads of one operator. Default: one per physical core. */
  readonly threads?: number | undefined;
  /** Default: "auto". */
  readonly device?: Device | undefined;
}

/** What the core needs of the machine it runs on. Each platform is one module, `#platform`, that gives one. */
export interface Platform {
  /**
   * @throws FemoError E_OPTION if an option is out of range, or the device is not there, with what to do about it; E_RUNTIME
   *   if it does not start
   */
  createEngine(options?: EngineOptions): Promise<Engine>;
  /** Bytes of weights that loaded graphs may take before those not in use make room: a quarter of the memory. */
  graphMemory(): number;
  /**
   * Finds a model, and downloads what is missing of it.
   * @throws FemoError E_FILE if there is none; E_NETWORK, E_ACCESS if it cannot be downloaded; E_OPTION if a revision is
   *   given of what is not on the Hub; the signal's reason if it was aborted
   */
  findModel(place: ModelPlace, options?: FindOptions): Promise<FoundModel>;
  /**
   * Finds a published file, downloads it if it is not there, and makes sure that it is the right one.
   * @throws FemoError E_FILE if there is none, or another; E_NETWORK, E_ACCESS if it cannot be downloaded; the signal's
   *   reason if it was aborted
   */
  findFile(file: PublishedFile, options?: FindFileOptions): Promise<FoundFile>;
  /** SHA-256 of a file as `FolderSource.resolve` names it, in hexadecimal digits. @throws FemoError E_FILE */
  sha256(file: string, signal?: AbortSignal): Promise<string>;
  /**
   * A checkpoint whose computed tensors are in a file: made once, tensor by tensor, and found there again as long as the
   * files that they are made from do not change. A conversion that was stopped goes on where it was.
   * @throws FemoError E_WEIGHT, E_FILE if a tensor cannot be computed; E_FILE if the file cannot be written; the signal's
   *   reason if it was aborted
   */
  kept(checkpoint: Checkpoint, options?: KeepOptions): Promise<Checkpoint>;
}
