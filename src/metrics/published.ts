import type { LpipsNet } from "../models/lpips.js";
import type { PublishedFile } from "../platform/platform.js";

/** FID's network, as pytorch-fid and torch-fidelity download it. */
export const inceptionFile: PublishedFile = {
  name: "pt_inception-2015-12-05-6726825d.pth",
  sha256: "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2",
  from: {
    url: "https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/pt_inception-2015-12-05-6726825d.pth",
  },
};

/** torchvision names a file by how its SHA-256 begins. */
const torchvision = (name: string): PublishedFile => ({
  name: `${name}.pth`,
  sha256: name.slice(name.lastIndexOf("-") + 1),
  from: { url: `https://download.pytorch.org/models/${name}.pth` },
});

/** The networks that LPIPS stands on. */
export const lpipsTrunks: Readonly<Record<LpipsNet, PublishedFile>> = {
  alex: torchvision("alexnet-owt-7be5be79"),
  vgg: torchvision("vgg16-397923af"),
  squeeze: torchvision("squeezenet1_1-b8a52dc0"),
};

const linear = (name: string, sha256: string): PublishedFile => ({ name, sha256, from: { embedded: "lpips" } });

/** LPIPS' own layers, which come with femo. */
export const lpipsLayers: Readonly<Record<LpipsNet, PublishedFile>> = {
  alex: linear("alex.pth", "df73285e35b22355a2df87cdb6b70b343713b667eddbda73e1977e0c860835c0"),
  vgg: linear("vgg.pth", "a78928a0af1e5f0fcb1f3b9e8f8c3a2a5a3de244d830ad5c1feddc79b8432868"),
  squeeze: linear("squeeze.pth", "4a5350f23600cb79923ce65bb07cbf57dca461329894153e05a1346bd531cf76"),
};

export const imageRewardFile: PublishedFile = {
  name: "ImageReward.pt",
  sha256: "d71dc8d4912bc633c06ab8ef1ef6a81e8199d4369f14b47b29baf1d19de561f6",
  from: { hub: "THUDM/ImageReward" },
};

/** BERT's vocabulary, of which ImageReward's prompts are made. */
export const bertVocabularyFile: PublishedFile = {
  name: "vocab.txt",
  sha256: undefined,
  from: { hub: "google-bert/bert-base-uncased" },
};

/**
 * Which CLIP, and how it is given images.
 * - `L/14`: what torchmetrics takes unless told otherwise;
 * - `g/14`: what FoCa's tables and cache-dit's have;
 * - `L/14-twice-rescaled`: nearly black images, for tables beside a paper's column (docs/metrics.md); no measure of anything.
 */
export type ClipConvention = "L/14" | "B/32" | "B/16" | "g/14" | "L/14-twice-rescaled";

/** Repositories on the Hub. */
export const clipRepositories: Readonly<Record<ClipConvention, string>> = {
  "L/14": "openai/clip-vit-large-patch14",
  "B/32": "openai/clip-vit-base-patch32",
  "B/16": "openai/clip-vit-base-patch16",
  "g/14": "laion/CLIP-ViT-g-14-laion2B-s12B-b42K",
  "L/14-twice-rescaled": "openai/clip-vit-large-patch14",
};

/** All of them. */
export const clipConventions = Object.keys(clipRepositories) as ClipConvention[];
