import { expect, test } from "vitest";
import type { MachineReport } from "../../src/platform/node/doctor.js";
import { missingLibraries } from "../../src/platform/node/native-words.js";
import { femo } from "./run.js";

test("doctor says of each device how fast it is or what it misses, and what native code says stays unheard", async () => {
  const { code, stdout, stderr } = await femo(["doctor", "--json"]);
  expect(stderr).toBe("");
  expect(code).toBe(0);
  const { devices } = JSON.parse(stdout) as Pick<MachineReport, "devices">;
  expect(devices.map(({ device }) => device)).toEqual(["cpu", "webgpu", "cuda", "coreml", "dml"]);
  for (const { gflops = 0, missing = "" } of devices) expect(gflops > 0).toBe(missing === "");
  const [{ gflops = 0, fewBitsGflops: { int8 = 0, int4 = 0 } = {} } = {}] = devices;
  for (const rate of [gflops, int8, int4]) expect(rate).toBeGreaterThan(0);
});

test("libraries that a loader does not find are named once, without their folders", () => {
  const text = `Warning: Couldn't load Vulkan: libvulkan.so.1: cannot open shared object file: No such file or directory
    at operator() (BackendVk.cpp:368)
[E:onnxruntime] Failed to load library /opt/x/libonnxruntime_providers_shared.so with error: /opt/x/libonnxruntime_providers_shared.so: cannot open shared object file: No such file or directory
LoadLibrary failed with error 126 "The specified module could not be found." when trying to load "C:\\femo\\onnxruntime_providers_cuda.dll"
libvulkan.so.1: cannot open shared object file: No such file or directory`;
  expect(missingLibraries(text)).toEqual([
    "libvulkan.so.1",
    "libonnxruntime_providers_shared.so",
    "onnxruntime_providers_cuda.dll",
  ]);
  expect(missingLibraries("a driver's warning")).toEqual([]);
});
