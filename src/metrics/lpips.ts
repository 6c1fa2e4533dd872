import { FemoError } from "../errors.js";
import { fromRgb, type RgbImage, resizePlane } from "../images/index.js";
import {
  type LpipsNet,
  lpips,
  lpipsChannels,
  lpipsIgnores,
  lpipsLeastSide,
  lpipsLinear,
  lpipsNames,
} from "../models/lpips.js";
import type { HostTensor } from "../runtime/engine.js";
import type { Network } from "../runtime/network.js";
import type { Sessions } from "../runtime/sessions.js";
import { weightedNetwork } from "../runtime/weighted-network.js";
import type { Checkpoint } from "../weights/index.js";
import { batchOf } from "./networks.js";

/** How far two images are from each other, as people see it. */
export interface LpipsDistance {
  /** 0 of equal images. */
  readonly value: number;
  /** What of it each layer of the network says. */
  readonly taps: readonly number[];
}

/** LPIPS 0.1 with its weights. */
export class Lpips {
  readonly net: LpipsNet;
  readonly #trunk: Checkpoint;
  readonly #linear: readonly Float32Array[];
  readonly #sessions: Sessions;
  /** By size: a graph is of one. */
  readonly #networks = new Map<string, Network>();

  private constructor(net: LpipsNet, trunk: Checkpoint, linear: readonly Float32Array[], sessions: Sessions) {
    this.net = net;
    this.#trunk = trunk;
    this.#linear = linear;
    this.#sessions = sessions;
  }

  /**
   * @internal
   * @param trunk of torchvision's file
   * @param linear of the file of the package `lpips`
   * @throws FemoError E_WEIGHT if one of them does not have the network's tensors
   */
  static async open(net: LpipsNet, trunk: Checkpoint, linear: Checkpoint, sessions: Sessions): Promise<Lpips> {
    const channels = lpipsChannels[net];
    linear.verify(channels.map((width, tap) => ({ name: lpipsLinear(tap), shape: [1, width, 1, 1] })));
    const weights: Float32Array[] = [];
    for (const tap of channels.keys()) weights.push(await linear.readTensor(lpipsLinear(tap)));
    const opened = new Lpips(net, trunk, weights, sessions);
    const side = lpipsLeastSide[net];
    opened.network(side, side); // looks at the weights
    return opened;
  }

  /** @throws FemoError E_OPTION if the images differ in size or are too small; E_RUNTIME as `Session.run` */
  async distance(a: RgbImage, b: RgbImage): Promise<LpipsDistance> {
    const { taps } = await this.#run(a, b, [lpipsNames.taps]);
    const values = Array.from((taps as HostTensor).data, Number);
    return { value: values.reduce((sum, value) => sum + value, 0), taps: values };
  }

  /** The same for each pixel, [height, width]. @throws FemoError as `distance` */
  async map(a: RgbImage, b: RgbImage): Promise<Float32Array> {
    const names = this.#linear.map((_, tap) => lpipsNames.map(tap));
    const outputs = await this.#run(a, b, names);
    const sum = new Float32Array(a.width * a.height);
    for (const name of names) {
      const { dims, data } = outputs[name] as HostTensor;
      const [, , height, width] = dims as [number, number, number, number];
      const resized = resizePlane({ width, height, data: data as Float32Array }, a.width, a.height);
      for (let i = 0; i < sum.length; i++) sum[i] = (sum[i] as number) + (resized[i] as number);
    }
    return sum;
  }

  async #run(a: RgbImage, b: RgbImage, fetch: readonly string[]): Promise<Readonly<Record<string, HostTensor>>> {
    const [least, { width, height }] = [lpipsLeastSide[this.net], a];
    if (width !== b.width || height !== b.height || Math.min(width, height) < least) {
      const found = `${width}x${height} and ${b.width}x${b.height}`;
      throw new FemoError("E_OPTION", `LPIPS: expected two images of one size of at least ${least}, found ${found}.`);
    }
    const pair = batchOf([fromRgb(a), fromRgb(b)]);
    return (await this.network(height, width).run({ feeds: { [lpipsNames.pair]: pair }, fetch })).outputs;
  }

  /** Of pairs of one size. @internal */
  network(height: number, width: number): Network {
    const key = `${height}x${width}`;
    let network = this.#networks.get(key);
    if (!network) {
      const graph = lpips(this.net, height, width, this.#linear);
      network = weightedNetwork(graph, this.#trunk, this.#sessions, { ignore: lpipsIgnores });
      this.#networks.set(key, network);
    }
    return network;
  }
}
