import { beforeAll, describe, expect, test } from "vitest";
import { nodeFlops, productsAnd } from "../../src/graph/index.js";
import { frechetDistance } from "../../src/metrics/frechet.js";
import { Inception } from "../../src/metrics/inception.js";
import { fitFeatures } from "../../src/metrics/moments.js";
import { inceptionV3 } from "../../src/models/inception-v3.js";
import { engineForTests } from "../runtime/helpers.js";
import { femoError } from "../weights/helpers.js";
import { testImage } from "./hash-weights.js";
import { inceptionTensors } from "./hashed-networks.js";
import { contextForTests, hashedCheckpoint, temporaryFolder } from "./weight-file.js";

const engine = engineForTests();
const folder = temporaryFolder();

const mean = (values: Float32Array): number => values.reduce((a, b) => a + b, 0) / values.length;

describe("equals pytorch-fid with the same weights", () => {
  let network: Inception<"pool_3" | "spatial" | "logits" | "pool_64" | "pool_192" | "pool_768">;

  beforeAll(async () => {
    const tensors = inceptionTensors();
    expect(tensors).toHaveLength(472);
    expect(tensors.reduce((sum, { shape }) => sum + shape.reduce((a, b) => a * b, 1), 0)).toBe(23_885_392);
    const checkpoint = await hashedCheckpoint(folder, "inception.safetensors", tensors);
    const outputs = ["pool_3", "spatial", "logits", "pool_64", "pool_192", "pool_768"] as const;
    network = await Inception.open(checkpoint, outputs, contextForTests(engine, folder));
  });

  test.each([
    ["pytorch", [2.16543, 0.016144, 0.27704, 0.000747], [0.411553, 0.412262]],
    ["tf", [2.157836, 0.015312, 0.279983, 0.000942], [0.409997, 0.410994]],
    ["clean", [2.27902, 0.017905, 0.293978, 0.000898], [0.433675, 0.435376]],
  ] as const)("fid:%s", async (convention, first, means) => {
    const images = [testImage(256, 256, 1), testImage(256, 256, 2)];
    const { pool_3, spatial, logits, pool_64, pool_192, pool_768 } = await network.features(images, convention);
    const [a, b] = pool_3 as [Float32Array, Float32Array];
    expect(a).toHaveLength(2048);
    for (const [i, wanted] of first.entries()) expect(Math.abs((a[i] as number) - wanted)).toBeLessThan(4e-6);
    expect(mean(a)).toBeCloseTo(means[0], 5);
    expect(mean(b)).toBeCloseTo(means[1], 5);
    const [map] = spatial as [Float32Array];
    if (convention === "pytorch") {
      const both = (rows: readonly Float32Array[]): number => rows.reduce((sum, row) => sum + mean(row), 0) / 2;
      expect(both(pool_64)).toBeCloseTo(0.509133, 5);
      expect(both(pool_192)).toBeCloseTo(0.695696, 5);
      expect(both(pool_768)).toBeCloseTo(0.363439, 5);
      const wanted = [0.272567, 0.527896, 0, 0.594287, 0, 0.22541, 0.005994, 0.52915];
      for (const [i, value] of wanted.entries()) expect(map[i]).toBeCloseTo(value, 5);
      expect(mean(map)).toBeCloseTo(0.48149, 5);
      const { values } = { values: a.map((x) => (x - mean(a)) ** 2) };
      expect(Math.sqrt((mean(values) * 2048) / 2047)).toBeCloseTo(0.555043, 5);
    }
    if (convention === "tf") {
      const wanted = [0.275052, 0.520817, 0, 0.609317, 0, 0.234653, 0, 0.543828];
      for (const [i, value] of wanted.entries()) expect(map[i]).toBeCloseTo(value, 5);
      expect(mean(map)).toBeCloseTo(0.478559, 5);
      for (const [i, value] of [0.126445, -0.653869, 0.451375, -0.097285].entries()) {
        expect(logits[0]?.[i]).toBeCloseTo(value, 5);
      }
    }
  });

  test("FID and sFID equal pytorch-fid's, of six images and six others", async () => {
    const images = (from: number) => Array.from({ length: 6 }, (_, i) => testImage(64, 64, from + i));
    const [a, b] = [await network.features(images(1), "pytorch"), await network.features(images(7), "pytorch")];
    const fid = await frechetDistance(await fitFeatures(a.pool_3), await fitFeatures(b.pool_3));
    expect(fid.value).toBeCloseTo(1.984812, 4);
    expect(fid.means).toBeCloseTo(1.437651, 4);
    expect(fid.traces[0]).toBeCloseTo(0.429633, 5);
    expect(fid.traces[1]).toBeCloseTo(0.233844, 5);
    expect(fid.overlap).toBeCloseTo(0.058158, 5);
    const sfid = await frechetDistance(await fitFeatures(a.spatial), await fitFeatures(b.spatial));
    expect(sfid.value).toBeCloseTo(51.49759, 3);
    expect(sfid.overlap).toBeCloseTo(3.529913, 4);
  });

  test("an image alone gets what it gets in a batch", async () => {
    const images = [testImage(64, 48, 1), testImage(300, 200, 2)];
    const together = (await network.features(images, "pytorch")).pool_3;
    for (const [i, image] of images.entries()) {
      const [alone] = (await network.features([image], "pytorch")).pool_3 as [Float32Array];
      for (const [k, x] of alone.entries()) expect(Math.abs(x - (together[i]?.[k] as number))).toBeLessThan(1e-4);
    }
  });
});

test("another network is refused, by its names", async () => {
  const without = inceptionTensors().filter(({ name }) => name !== "Mixed_6c.branch_pool.bn.running_var");
  const checkpoint = await hashedCheckpoint(folder, "other.safetensors", without.slice(0, 20));
  const message = await femoError("E_WEIGHT", () =>
    Inception.open(checkpoint, ["pool_3"], contextForTests(engine, folder)),
  );
  expect(message).toContain("tensors missing");
  expect(message).toContain("Mixed_5b.branch1x1.conv.weight");
});

test("5.71 G multiply-adds", () => {
  const convention = productsAnd({ multiplyAdd: 1 });
  const { nodes } = inceptionV3(["pool_3"]).reachable();
  const count = nodes.reduce((sum, node) => sum + nodeFlops(node, { batch: 1 }, convention), 0);
  expect(count / 1e9).toBeCloseTo(5.71, 2);
});
