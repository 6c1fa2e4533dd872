import { DiffusionPipeline, type PretrainedOptions } from "../../src/pipelines/index.js";
import { pretrainedClasses as classesOf, openPretrained as open } from "../../src/pipelines/pretrained.js";
import { platform } from "../../src/platform/node/index.js";
import { findModel, type HubAccess } from "../../src/platform/node/models.js";
import type { Platform } from "../../src/platform/platform.js";

/** The platform with another access to the Hub than the process has. */
const withAccess = (access: HubAccess): Platform => ({
  ...platform,
  findModel: (path, options) => findModel(path, options, access),
});

export const openPretrained = async (model: string, options: PretrainedOptions = {}, access: HubAccess = {}) =>
  DiffusionPipeline.of(await open(model, options, withAccess(access)));

export const pretrainedClasses = (model: string, options: PretrainedOptions = {}, access: HubAccess = {}) =>
  classesOf(model, options, withAccess(access));
