import { describe, expect, test } from "vitest";
import { Backbone } from "../../src/denoising/backbone.js";
import { dit, ditConfigFromJson, ditXL2 } from "../../src/models/dit.js";
import type { Engine } from "../../src/runtime/engine.js";
import { Sessions } from "../../src/runtime/sessions.js";
import { traceCut } from "../../src/tracing/index.js";
import { Checkpoint, type TensorInfo } from "../../src/weights/index.js";
import { engineForTests, floats, integers, noise, numbers, relativeError } from "../runtime/helpers.js";
import { femoError } from "../weights/helpers.js";
import { embeddedFolder, goldenFolder, openGolden, openModel, tensorsOf } from "./tiny.js";

const engine = engineForTests();

describe("equals PyTorch", () => {
  test.each([
    ["tiny-a", `${goldenFolder}/tiny-a`, "tiny-a/golden.safetensors"],
    ["tiny-b", `${goldenFolder}/tiny-b`, "tiny-b/golden.safetensors"],
    ["tiny-c", `${goldenFolder}/tiny-c`, "tiny-c/golden.safetensors"],
    ["the embedded model", embeddedFolder, "embedded.safetensors"],
  ])("%s", async (_, folder, file) => {
    const [{ model, run }, golden] = [await openModel(engine, folder), await openGolden(file)];
    const [sample, labels, timesteps] = [await golden("sample"), await golden("labels"), await golden("timesteps")];
    const { output } = await run(traceCut(model, { hoisted: "inline" }), {
      sample,
      timestep: floats(timesteps.dims, numbers(timesteps)),
      class_label: labels,
    });
    const wanted = await golden("output");
    expect(output?.dims).toEqual(wanted.dims);
    const error = relativeError(numbers(output), numbers(wanted));
    expect(error).toBeLessThan(1e-5);
  });
});

test("conditioning tables and pairs give what the whole graph gives", async () => {
  const { model, run, tables } = await openModel(engine, `${goldenFolder}/tiny-a`);
  const [timesteps, labels] = [
    [999, 10, 500],
    [7, 0, 3],
  ];
  const sample = noise([4, 4, 8, 8], 1);
  const pair = [2, 0, 0, 1];
  const at = (values: number[]): number[] => pair.map((row) => values[row] as number);
  const whole = await run(traceCut(model, { hoisted: "inline" }), {
    sample,
    timestep: floats([4], at(timesteps)),
    class_label: integers([4], at(labels)),
  });
  const step = await run(traceCut(model, {}), {
    ...(await tables(timesteps, labels)),
    sample,
    pair: integers([4], pair),
  });
  expect(relativeError(numbers(step.output), numbers(whole.output))).toBeLessThan(1e-6);
});

describe("a checkpoint that is not the model's", () => {
  const config = ditConfigFromJson({ num_layers: 1, num_attention_heads: 2, attention_head_dim: 4 });
  const tensors = () => tensorsOf(dit(config));
  const open = (list: TensorInfo[]) =>
    new Backbone(dit(config), Checkpoint.fromTensors("f.safetensors", list), new Sessions({} as Engine, 0));

  test("the model's own is accepted", () => expect(() => open(tensors())).not.toThrow());

  test.each(tensors().map(({ name, shape }) => ({ name, shape })))(
    "$name missing or misshapen",
    async ({ name, shape }) => {
      const without = tensors().filter((tensor) => tensor.name !== name);
      expect(await femoError("E_WEIGHT", () => open(without))).toContain(`"${name}" [${shape.join(", ")}]`);
      const other = [...tensors()].map((tensor) =>
        tensor.name === name ? { ...tensor, shape: [3, ...shape] as number[] } : tensor,
      );
      const message = await femoError("E_WEIGHT", () => open(other));
      expect(message).toContain(`"${name}": expected [${shape.join(", ")}], found [3, ${shape.join(", ")}]`);
    },
  );

  test("a surplus tensor is named with its shape", async () => {
    const surplus = { ...(tensors()[0] as TensorInfo), name: "transformer_blocks.1.extra", shape: [5, 7] };
    expect(await femoError("E_WEIGHT", () => open([...tensors(), surplus]))).toContain(
      '"transformer_blocks.1.extra" [5, 7]',
    );
  });
});

describe("configs", () => {
  test("what is left out has diffusers' defaults", () => {
    expect(ditConfigFromJson({})).toEqual({ ...ditXL2, outChannels: 4 });
    expect(ditConfigFromJson({ in_channels: 3, out_channels: null }).outChannels).toBe(3);
  });

  test.each([
    ["num_layers", { num_layers: 0 }],
    ["num_layers", { num_layers: "28" }],
    ["num_attention_heads", { num_attention_heads: 2.5 }],
    ["attention_head_dim", { attention_head_dim: -8 }],
    ["in_channels", { in_channels: null }],
    ["out_channels", { out_channels: -1 }],
    ["sample_size", { sample_size: [32, 32] }],
    ["patch_size", { sample_size: 32, patch_size: 3 }],
    ["patch_size", { patch_size: Number.POSITIVE_INFINITY }],
    ["activation_fn", { activation_fn: "relu" }],
    ["attention_bias", { attention_bias: 1 }],
    ["num_embeds_ada_norm", { num_embeds_ada_norm: null }],
    ["norm_type", { norm_type: "layer_norm" }],
    ["norm_elementwise_affine", { norm_elementwise_affine: "yes" }],
    ["norm_eps", { norm_eps: 0 }],
    ["width", { num_attention_heads: 3, attention_head_dim: 6 }],
    ["(root)", null],
    ["(root)", [1]],
    ["(root)", "{}"],
  ])("%s: %j is refused", async (field, json) => {
    const message = await femoError("E_CONFIG", () => ditConfigFromJson(json, "here/config.json"));
    expect(message).toContain("here/config.json");
    expect(message).toContain(field);
  });
});
