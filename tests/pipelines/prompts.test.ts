import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, expect, test } from "vitest";
import { clipTextConfigFromJson } from "../../src/models/clip-text.js";
import { t5ConfigFromJson } from "../../src/models/t5.js";
import { PromptEncoder } from "../../src/pipelines/families/flux-prompts.js";
import { ClipTextModel, T5EncoderModel } from "../../src/pipelines/text-encoders.js";
import { nodeFolder } from "../../src/platform/node/folder.js";
import type { Engine } from "../../src/runtime/engine.js";
import { Sessions } from "../../src/runtime/sessions.js";
import { openTokenizer } from "../../src/tokenizers/index.js";
import { type ModelFolder, openModelFolder } from "../../src/weights/index.js";
import { engineForTests } from "../runtime/helpers.js";

const engine = engineForTests();
let folder: ModelFolder;
beforeAll(async () => {
  folder = await openModelFolder(nodeFolder(fileURLToPath(new URL("../goldens/flux-pipeline/dev", import.meta.url))));
});

/** An engine that notes what is loaded, run and freed, in this order. */
function noting(): { engine: Engine; notes: string[] } {
  const notes: string[] = [];
  let loaded = 0;
  return {
    notes,
    engine: {
      ...engine,
      async load(graph) {
        const number = loaded++;
        notes.push(`load ${number}`);
        const session = await engine.load(graph);
        return {
          ...session,
          run(request) {
            notes.push(`run ${number}`);
            return session.run(request);
          },
          release() {
            notes.push(`free ${number}`);
            return session.release();
          },
        };
      },
    },
  };
}

const sessions: Sessions[] = [];
afterAll(() => Promise.all(sessions.map(({ engine }) => engine.close())));

async function encoderWith(watched: Engine, maxStayingBytes?: number): Promise<PromptEncoder> {
  const own = new Sessions(watched, 2 ** 30);
  const [clip, t5] = [await folder.component("text_encoder"), await folder.component("text_encoder_2")];
  return new PromptEncoder(
    {
      tokenizer: await openTokenizer(folder.part("tokenizer"), "."),
      textEncoder: new ClipTextModel(clipTextConfigFromJson(clip.config), clip.checkpoint, own, ["pooled"]),
      tokenizer2: await openTokenizer(folder.part("tokenizer_2"), "."),
      textEncoder2: new T5EncoderModel(t5ConfigFromJson(t5.config), t5.checkpoint, own),
    },
    maxStayingBytes,
  );
}

const texts = (...prompts: string[]) => prompts.map((prompt) => ({ prompt, prompt2: prompt, maxSequenceLength: 12 }));

test("CLIP reads all prompts, then T5 does; equal texts are read once, in later requests too", async () => {
  const { engine: watched, notes } = noting();
  const encoder = await encoderWith(watched);
  const first = await encoder.encode(texts("a fox", "two lemons", "a fox"));
  expect(notes).toEqual(["load 0", "run 0", "run 0", "load 1", "run 1", "run 1"]);
  expect(first.encoded[2]).toEqual(first.encoded[0]);
  const again = await encoder.encode(texts("two lemons"));
  expect(notes).toHaveLength(6);
  expect(again.encoded[0]).toEqual(first.encoded[1]);
  await encoder.encode([{ prompt: "a fox", prompt2: "a fox", maxSequenceLength: 16 }]);
  expect(notes.slice(6)).toEqual(["run 1"]); // another length is another text to T5, and none to CLIP
});

test("text encoders that are large are freed before anything else is loaded", async () => {
  const { engine: watched, notes } = noting();
  const encoder = await encoderWith(watched, 0);
  await encoder.encode(texts("a fox"));
  expect(notes).toEqual(["load 0", "run 0", "free 0", "load 1", "run 1", "free 1"]);
});

test("what fails is not kept, and an aborted request reads no further", async () => {
  const encoder = await encoderWith({
    ...engine,
    async load(graph) {
      const session = await engine.load(graph);
      return { ...session, run: () => Promise.reject(new Error("out of memory")) };
    },
  });
  await expect(encoder.encode(texts("a fox"))).rejects.toThrow("out of memory");
  await expect(encoder.encode(texts("a fox"))).rejects.toThrow("out of memory");
  const { engine: watched, notes } = noting();
  const stopped = await encoderWith(watched);
  await expect(stopped.encode(texts("a fox"), AbortSignal.abort(new Error("enough")))).rejects.toThrow("enough");
  expect(notes).toEqual([]);
});
