/**
 * What the text-to-image model is taught: which options draw an avatar, and which words say so.
 *
 * An avatar is described by attributes (style, hair, hairColor, background, glasses ...). `drawAttributes`
 * chooses them from a random source, `dicebearOptions` turns them into DiceBear's options, and `caption`
 * writes one of very many descriptions: synonyms, varied order, and parts left out. All variation of a
 * picture is named by its attributes; what captions have no word for (noses, brows) is the same everywhere.
 */

/** A small generator of uniform numbers in [0, 1) (mulberry32), the same on every machine. */
export function randomSource(seed) {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = Math.imul(state ^ (state >>> 15), state | 1);
    t = (t + Math.imul(t ^ (t >>> 7), t | 61)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

export const BACKGROUNDS = {
  blue: "8ec5ff",
  pink: "ffb3d1",
  green: "a8e0a0",
  yellow: "ffe680",
  purple: "c9a8f0",
  orange: "ffc078",
  red: "f28080",
  white: "ffffff",
  grey: "c4c8ce",
};

export const HAIR_COLORS = {
  black: "1c1a1a",
  brown: "7a4a26",
  blonde: "efc75e",
  red: "cf3a1a",
  grey: "a9adb3",
  blue: "3d74d9",
  pink: "f27cb4",
  green: "3fa34d",
  purple: "8a4fc7",
};

export const SKINS = { pale: "ffffff", light: "fbd7b5", tan: "dca777", brown: "a9683c", dark: "6b3f22" };

export const CLOTHES_COLORS = {
  red: "d9363e",
  blue: "3b73d1",
  green: "46a35a",
  yellow: "f5cd3d",
  purple: "8453c4",
  pink: "f28bb5",
  white: "f4f4f4",
  black: "2b2b2f",
};

/**
 * Per style: how often it comes, and for each attribute the values with DiceBear's options that draw them.
 * All values are equally likely; `none`, a part left out, has the share that ABSENT says.
 */
export const STYLES = {
  lorelei: {
    share: 7,
    options: {
      nose: ["variant02"],
      eyebrows: ["variant10"],
      head: ["variant03"],
    },
    skin: ["pale", "light", "tan", "brown", "dark"],
    hair: {
      short: { hair: ["variant03"] },
      buzz: { hair: ["variant28"] },
      curly: { hair: ["variant39"] },
      "big curly": { hair: ["variant24"] },
      long: { hair: ["variant15"] },
      wavy: { hair: ["variant35"] },
      bob: { hair: ["variant19"] },
      ponytail: { hair: ["variant31"] },
      bun: { hair: ["variant38"] },
      "two buns": { hair: ["variant26"] },
      mohawk: { hair: ["variant27"] },
      messy: { hair: ["variant20"] },
    },
    mouth: {
      smile: { mouth: ["happy01"] },
      grin: { mouth: ["happy16"] },
      laugh: { mouth: ["happy05"] },
      sad: { mouth: ["sad05"] },
      surprised: { mouth: ["sad01"] },
      tongue: { mouth: ["happy09"] },
    },
    eyes: {
      open: { eyes: ["variant02"] },
      closed: { eyes: ["variant19"] },
      wide: { eyes: ["variant09"] },
    },
    glasses: {
      round: { glasses: ["variant01"] },
      square: { glasses: ["variant04"] },
      sunglasses: { glasses: ["variant02"] },
    },
    beard: { beard: { beard: ["variant01"] } },
    accessory: {
      earrings: { earrings: ["variant01"] },
      freckles: { freckles: ["variant01"] },
      flowers: { hairAccessories: ["flowers"] },
    },
  },
  adventurer: {
    share: 4,
    options: { eyebrows: ["variant10"] },
    skin: ["light", "tan", "brown", "dark"],
    hair: {
      short: { hair: ["short01"] },
      buzz: { hair: ["short04"] },
      spiky: { hair: ["short16"] },
      curly: { hair: ["short03"] },
      long: { hair: ["long09"] },
      wavy: { hair: ["long24"] },
      bob: { hair: ["long21"] },
      ponytail: { hair: ["long19"] },
      braids: { hair: ["long16"] },
      bun: { hair: ["short05"] },
      "two buns": { hair: ["long23"] },
      pigtails: { hair: ["long15"] },
    },
    mouth: {
      smile: { mouth: ["variant22"] },
      grin: { mouth: ["variant23"] },
      laugh: { mouth: ["variant26"] },
      sad: { mouth: ["variant14"] },
      surprised: { mouth: ["variant15"] },
      tongue: { mouth: ["variant16"] },
    },
    eyes: {
      open: { eyes: ["variant12"] },
      closed: { eyes: ["variant20"] },
      wide: { eyes: ["variant26"] },
      wink: { eyes: ["variant22"] },
    },
    glasses: {
      round: { glasses: ["variant04"] },
      square: { glasses: ["variant05"] },
      sunglasses: { glasses: ["variant01"] },
    },
    beard: { mustache: { features: ["mustache"] } },
    accessory: { earrings: { earrings: ["variant03"] } },
  },
  "big-smile": {
    share: 4,
    options: {},
    skin: ["light", "tan", "brown", "dark"],
    hair: {
      short: { hair: ["shortHair"] },
      buzz: { hair: ["shavedHead"] },
      curly: { hair: ["curlyShortHair"] },
      "big curly": { hair: ["curlyBob"] },
      long: { hair: ["straightHair"] },
      wavy: { hair: ["wavyBob"] },
      bowl: { hair: ["bowlCutHair"] },
      bun: { hair: ["bunHair"] },
      mohawk: { hair: ["mohawk"] },
      bangs: { hair: ["bangs"] },
    },
    mouth: {
      smile: { mouth: ["kawaii"] },
      grin: { mouth: ["teethSmile"] },
      laugh: { mouth: ["openedSmile"] },
      neutral: { mouth: ["unimpressed"] },
      sad: { mouth: ["openSad"] },
    },
    eyes: {
      open: { eyes: ["normal"] },
      closed: { eyes: ["sleepy"] },
      wink: { eyes: ["winking"] },
      angry: { eyes: ["angry"] },
      stars: { eyes: ["starstruck"] },
    },
    glasses: {
      round: { accessories: ["glasses"] },
      sunglasses: { accessories: ["sunglasses"] },
    },
    beard: { mustache: { accessories: ["mustache"] } },
    accessory: {
      "cat ears": { accessories: ["catEars"] },
      crown: { accessories: ["sailormoonCrown"] },
      "clown nose": { accessories: ["clownNose"] },
    },
  },
  micah: {
    share: 5,
    options: { nose: ["curve"], ears: ["attached"], eyebrows: ["up"] },
    skin: ["light", "tan", "brown", "dark"],
    hair: {
      quiff: { hair: ["fonze"] },
      "side part": { hair: ["dannyPhantom"] },
      long: { hair: ["full"] },
      bob: { hair: ["pixie"] },
      "flat top": { hair: ["mrT"] },
      bald: { hair: ["mrClean"] },
    },
    mouth: {
      smile: { mouth: ["smile"] },
      grin: { mouth: ["nervous"] },
      laugh: { mouth: ["laughing"] },
      sad: { mouth: ["frown"] },
      surprised: { mouth: ["surprised"] },
      kiss: { mouth: ["pucker"] },
    },
    eyes: { open: { eyes: ["eyes"] }, closed: { eyes: ["smiling"] } },
    glasses: { round: { glasses: ["round"] }, square: { glasses: ["square"] } },
    beard: { beard: { facialHair: ["beard"] }, stubble: { facialHair: ["scruff"] } },
    clothes: {
      "crew neck": { shirt: ["crew"] },
      collar: { shirt: ["collared"] },
      "open neck": { shirt: ["open"] },
    },
    accessory: { earrings: { earrings: ["hoop"] } },
  },
  "pixel-art": {
    share: 5,
    options: { eyesColor: ["43677d"], mouthColor: ["c94f4f"] },
    skin: ["light", "tan", "brown", "dark"],
    hair: {
      short: { hair: ["short17"] },
      buzz: { hair: ["short04"] },
      spiky: { hair: ["short12"] },
      curly: { hair: ["short13"] },
      long: { hair: ["long13"] },
      wavy: { hair: ["long03"] },
      bob: { hair: ["long21"] },
      bun: { hair: ["long05"] },
      braids: { hair: ["long18"] },
      mohawk: { hair: ["short21"] },
    },
    mouth: {
      smile: { mouth: ["happy09"] },
      grin: { mouth: ["happy12"] },
      surprised: { mouth: ["happy01"] },
      sad: { mouth: ["sad03"] },
      neutral: { mouth: ["sad06"] },
    },
    eyes: { open: { eyes: ["variant08"] } },
    glasses: { round: { glasses: ["light07"] }, square: { glasses: ["light02"] }, sunglasses: { glasses: ["dark03"] } },
    beard: { beard: { beard: ["variant07"] } },
    clothes: {
      "t-shirt": { clothing: ["variant03"] },
      "tank top": { clothing: ["variant22"] },
      stripes: { clothing: ["variant13"] },
    },
    accessory: { cap: { hat: ["variant07"] }, beanie: { hat: ["variant03"] } },
  },
};

/** The parts DiceBear draws or leaves out by chance; here only the attributes decide. */
const OPTIONAL = [
  "glasses",
  "beard",
  "earrings",
  "freckles",
  "hairAccessories",
  "features",
  "accessories",
  "facialHair",
  "hat",
];

/** Share of pictures without the part. */
const ABSENT = { glasses: 0.5, beard: 0.78, accessory: 0.7 };

/** Attributes in the order of the files' columns; a picture that has no such part says `none`. */
export const ATTRIBUTES = [
  "style",
  "background",
  "hairColor",
  "hair",
  "glasses",
  "beard",
  "mouth",
  "eyes",
  "skin",
  "clothes",
  "clothesColor",
  "accessory",
];

/** All values of an attribute over all styles, in a fixed order, `none` first where it occurs. */
export function attributeValues(attribute) {
  if (attribute === "style") return Object.keys(STYLES);
  if (attribute === "background") return Object.keys(BACKGROUNDS);
  if (attribute === "hairColor") return ["none", ...Object.keys(HAIR_COLORS)];
  if (attribute === "skin") return Object.keys(SKINS);
  if (attribute === "clothesColor") return ["none", ...Object.keys(CLOTHES_COLORS)];
  const values = new Set();
  for (const style of Object.values(STYLES)) for (const value of Object.keys(style[attribute] ?? {})) values.add(value);
  return attribute === "hair" || attribute === "mouth" ? [...values] : ["none", ...values];
}

const pick = (random, list) => list[Math.floor(random() * list.length)];

function pickStyle(random) {
  const entries = Object.entries(STYLES);
  let at = random() * entries.reduce((sum, [, style]) => sum + style.share, 0);
  for (const [name, style] of entries) {
    at -= style.share;
    if (at < 0) return name;
  }
}

const optional = (random, values, absent) =>
  values && random() >= absent ? pick(random, Object.keys(values)) : "none";

/** Chooses what the picture shows. Parts that would hide each other do not come together. */
export function drawAttributes(random) {
  const name = pickStyle(random);
  const style = STYLES[name];
  const hair = pick(random, Object.keys(style.hair));
  const attributes = {
    style: name,
    background: pick(random, Object.keys(BACKGROUNDS)),
    hairColor: hair === "bald" ? "none" : pick(random, Object.keys(HAIR_COLORS)),
    hair,
    glasses: optional(random, style.glasses, ABSENT.glasses),
    beard: optional(random, style.beard, ABSENT.beard),
    mouth: pick(random, Object.keys(style.mouth)),
    eyes: random() < 0.5 ? "open" : pick(random, Object.keys(style.eyes)),
    skin: name === "lorelei" && random() < 0.5 ? "pale" : pick(random, style.skin),
    clothes: style.clothes ? pick(random, Object.keys(style.clothes)) : "none",
    clothesColor: style.clothes ? pick(random, Object.keys(CLOTHES_COLORS)) : "none",
    accessory: optional(random, style.accessory, ABSENT.accessory),
  };
  if (name === "big-smile") {
    // DiceBear draws one accessory: glasses, moustache and the rest exclude each other.
    if (attributes.glasses !== "none") attributes.beard = attributes.accessory = "none";
    if (attributes.beard !== "none") attributes.accessory = "none";
  }
  if (attributes.glasses === "sunglasses") attributes.eyes = "none";
  if (attributes.accessory === "flowers" && ["mohawk", "buzz", "short"].includes(hair)) attributes.accessory = "none";
  return attributes;
}

/** DiceBear's options for exactly this picture. */
export function dicebearOptions(attributes) {
  const style = STYLES[attributes.style];
  const hairColor = attributes.hairColor === "none" ? [HAIR_COLORS.black] : [HAIR_COLORS[attributes.hairColor]];
  const options = {
    ...style.options,
    backgroundColor: [BACKGROUNDS[attributes.background]],
    hairColor,
    hairProbability: 100,
    skinColor: [SKINS[attributes.skin]],
    baseColor: [SKINS[attributes.skin]],
    facialHairColor: hairColor,
    glassesColor: ["222222"],
    hatColor: ["2663a3"],
    accessoriesColor: ["daa520"],
    earringColor: ["f4d150"],
    frecklesColor: ["000000"],
  };
  if (attributes.clothesColor !== "none") {
    options.clothingColor = options.shirtColor = [CLOTHES_COLORS[attributes.clothesColor]];
  }
  for (const part of OPTIONAL) options[`${part}Probability`] = 0;
  for (const attribute of ["hair", "mouth", "eyes", "glasses", "beard", "clothes", "accessory"]) {
    // Behind sunglasses the eyes are the ordinary ones.
    const value = attribute === "eyes" && attributes.eyes === "none" ? "open" : attributes[attribute];
    for (const [part, variants] of Object.entries(style[attribute]?.[value] ?? {})) {
      options[part] = variants;
      if (OPTIONAL.includes(part)) options[`${part}Probability`] = 100;
    }
  }
  return options;
}

// ---- words ----

const STYLE_WORDS = {
  lorelei: ["lorelei"],
  adventurer: ["adventurer"],
  "big-smile": ["big smile", "big-smile"],
  micah: ["micah"],
  "pixel-art": ["pixel art", "pixel-art", "pixelated", "8-bit pixel art"],
};

const BACKGROUND_WORDS = {
  blue: ["blue", "blue", "light blue", "sky blue", "pale blue"],
  pink: ["pink", "pink", "light pink", "rose"],
  green: ["green", "green", "light green", "mint green"],
  yellow: ["yellow", "yellow", "light yellow", "sunny yellow"],
  purple: ["purple", "purple", "lilac", "violet", "lavender"],
  orange: ["orange", "orange", "peach", "apricot"],
  red: ["red", "red", "coral", "light red"],
  white: ["white", "white", "plain white", "blank white"],
  grey: ["grey", "gray", "light grey", "light gray"],
};

const HAIR_COLOR_WORDS = {
  black: ["black", "black", "dark", "jet black"],
  brown: ["brown", "brown", "chestnut", "brunette"],
  blonde: ["blonde", "blond", "golden", "yellow"],
  red: ["red", "red", "ginger", "fiery red"],
  grey: ["grey", "gray", "silver"],
  blue: ["blue", "blue", "bright blue"],
  pink: ["pink", "pink", "bright pink"],
  green: ["green", "green", "bright green"],
  purple: ["purple", "violet", "purple"],
};

/** Each hair style as phrases; `{c}` is the colour with a blank after it, or nothing. */
const HAIR_WORDS = {
  short: ["short {c}hair", "{c}short hair", "{c}hair cut short"],
  buzz: ["a {c}buzz cut", "very short {c}hair", "cropped {c}hair"],
  curly: ["curly {c}hair", "short curly {c}hair", "{c}curls"],
  "big curly": ["big curly {c}hair", "a {c}afro", "voluminous {c}curls"],
  long: ["long {c}hair", "long straight {c}hair", "{c}hair worn long"],
  wavy: ["wavy {c}hair", "long wavy {c}hair", "{c}waves"],
  bob: ["a {c}bob", "{c}hair in a bob", "chin-length {c}hair", "a {c}bob haircut"],
  ponytail: ["a {c}ponytail", "{c}hair in a ponytail", "{c}hair tied back"],
  bun: ["a {c}bun", "{c}hair in a bun", "a {c}top knot", "{c}hair tied up"],
  "two buns": ["two {c}buns", "{c}hair in two buns", "{c}space buns"],
  mohawk: ["a {c}mohawk", "{c}mohawk", "{c}hair in a mohawk"],
  messy: ["messy {c}hair", "tousled {c}hair", "wild {c}hair"],
  spiky: ["spiky {c}hair", "{c}spikes", "{c}hair standing up in spikes"],
  braids: ["a {c}braid", "braided {c}hair", "{c}braids"],
  pigtails: ["{c}pigtails", "{c}hair in pigtails", "two {c}pigtails"],
  bowl: ["a {c}bowl cut", "{c}hair in a bowl cut"],
  bangs: ["{c}hair with bangs", "long {c}hair and bangs", "{c}bangs", "a {c}fringe"],
  quiff: ["a {c}quiff", "short {c}hair swept up", "a {c}pompadour"],
  "side part": ["side-parted {c}hair", "{c}hair with a side part", "short combed {c}hair"],
  "flat top": ["a {c}flat top", "flat top {c}hair", "{c}hair in a flat top"],
};

const GLASSES_WORDS = {
  round: ["round glasses", "round glasses", "circular glasses", "round spectacles", "wearing round glasses"],
  square: ["square glasses", "square glasses", "rectangular glasses", "square spectacles", "wearing square glasses"],
  sunglasses: ["sunglasses", "sunglasses", "dark glasses", "wearing sunglasses", "shades"],
};
const ANY_GLASSES = ["glasses", "spectacles", "eyeglasses"];

const BEARD_WORDS = {
  beard: ["a beard", "a full beard", "bearded", "beard"],
  mustache: ["a mustache", "a moustache", "mustache"],
  stubble: ["stubble", "a stubbly chin", "unshaven"],
};

/** [adjective before a noun, noun phrase that follows "with"]. */
const MOUTH_WORDS = {
  smile: {
    adjectives: ["smiling", "friendly", "happy"],
    phrases: ["a smile", "a gentle smile", "smiling", "a happy mood"],
  },
  grin: { adjectives: ["grinning"], phrases: ["a grin", "a toothy grin", "grinning", "showing teeth"] },
  laugh: { adjectives: ["laughing", "cheerful"], phrases: ["laughing", "an open smile", "a big laugh", "cheerful"] },
  neutral: {
    adjectives: ["serious", "neutral"],
    phrases: ["a neutral expression", "a straight face", "serious", "unimpressed"],
  },
  sad: { adjectives: ["sad", "unhappy"], phrases: ["a sad face", "frowning", "sad", "a frown", "unhappy"] },
  surprised: {
    adjectives: ["surprised"],
    phrases: ["a surprised look", "surprised", "an open mouth", "a round open mouth"],
  },
  tongue: { adjectives: ["cheeky"], phrases: ["tongue out", "sticking the tongue out", "a cheeky tongue"] },
  kiss: { adjectives: ["kissing"], phrases: ["puckered lips", "a kissing mouth", "kissing"] },
};

const EYES_WORDS = {
  open: ["open eyes"],
  closed: ["closed eyes", "eyes closed", "eyes shut"],
  wide: ["wide eyes", "big eyes", "wide open eyes"],
  wink: ["winking", "a wink", "one eye closed"],
  angry: ["angry eyes", "an angry look", "angry"],
  stars: ["starry eyes", "stars in the eyes", "star eyes"],
};

const SKIN_WORDS = {
  pale: ["white skin", "pale skin", "very pale skin"],
  light: ["light skin", "fair skin"],
  tan: ["tan skin", "tanned skin", "olive skin"],
  brown: ["brown skin", "medium brown skin"],
  dark: ["dark skin", "dark brown skin", "deep brown skin"],
};

const CLOTHES_WORDS = {
  "crew neck": ["{c}crew neck shirt", "{c}sweater", "{c}shirt"],
  collar: ["{c}collared shirt", "{c}polo shirt", "{c}shirt with a collar"],
  "open neck": ["{c}open neck shirt", "{c}v-neck", "{c}top with an open neck"],
  "t-shirt": ["{c}t-shirt", "{c}tee", "{c}shirt"],
  "tank top": ["{c}tank top", "{c}sleeveless top", "{c}vest"],
  stripes: ["{c}striped shirt", "striped {c}top", "{c}shirt with stripes"],
};

const ACCESSORY_WORDS = {
  earrings: ["earrings", "an earring", "wearing earrings"],
  freckles: ["freckles", "freckled cheeks", "a freckled face"],
  flowers: ["flowers in the hair", "hair flowers", "a flower hair clip"],
  "cat ears": ["cat ears", "kitty ears", "wearing cat ears"],
  crown: ["a tiara", "a crown", "a golden crown"],
  "clown nose": ["a clown nose", "a red nose", "a red clown nose"],
  cap: ["a cap", "a blue cap", "a baseball cap"],
  beanie: ["a beanie", "a blue beanie", "a woolly hat"],
};

const SUBJECTS = ["person", "person", "character", "face", "someone"];
const FORMS = ["portrait", "portrait", "avatar", "avatar", "character", "picture", "face", "drawing"];

const article = (phrase) => (/^[aeiou8]/.test(phrase) ? `an ${phrase}` : `a ${phrase}`);

/** "a {c}bob" with an article that fits: "an orange bob". */
const withColor = (phrase, color) => phrase.replace("{c}", color ? `${color} ` : "").replace(/^a (?=[aeiou])/, "an ");

function shuffled(random, list) {
  const result = [...list];
  for (let i = result.length - 1; i > 0; i--) {
    const j = Math.floor(random() * (i + 1));
    [result[i], result[j]] = [result[j], result[i]];
  }
  return result;
}

/** Everything that may be said of the picture besides style and background, each with a chance to be left out. */
function describeParts(attributes, random, keep) {
  const kept = (chance = keep) => random() < chance;
  const parts = [];
  if (attributes.hair === "bald") {
    if (kept()) parts.push(pick(random, ["bald", "a bald head", "no hair"]));
  } else {
    const color = kept(Math.max(keep, 0.8)) ? pick(random, HAIR_COLOR_WORDS[attributes.hairColor]) : "";
    if (kept()) parts.push(withColor(pick(random, HAIR_WORDS[attributes.hair]), color));
    else if (color) parts.push(`${color} hair`);
  }
  if (attributes.glasses !== "none") {
    const words =
      keep < 1 && attributes.glasses !== "sunglasses" && random() < 0.2
        ? ANY_GLASSES
        : GLASSES_WORDS[attributes.glasses];
    if (kept(Math.max(keep, 0.75))) parts.push(pick(random, words));
  } else if (random() < 0.07) {
    parts.push(pick(random, ["no glasses", "glasses-free"]));
  }
  if (attributes.beard !== "none") {
    if (kept(Math.max(keep, 0.75))) parts.push(pick(random, BEARD_WORDS[attributes.beard]));
  } else if (STYLES[attributes.style].beard && random() < 0.05) {
    parts.push(pick(random, ["no beard", "a clean-shaven face"]));
  }
  if (kept(attributes.eyes === "open" || attributes.eyes === "none" ? 0.05 : keep) && attributes.eyes !== "none") {
    parts.push(pick(random, EYES_WORDS[attributes.eyes]));
  }
  if (kept()) parts.push(pick(random, SKIN_WORDS[attributes.skin]));
  if (attributes.clothes !== "none") {
    const color = kept() ? attributes.clothesColor : "";
    if (kept()) parts.push(article(withColor(pick(random, CLOTHES_WORDS[attributes.clothes]), color)));
    else if (color) parts.push(pick(random, [`${color} clothes`, article(`${color} top`), article(`${color} shirt`)]));
  }
  if (attributes.accessory !== "none" && kept(Math.max(keep, 0.75))) {
    parts.push(pick(random, ACCESSORY_WORDS[attributes.accessory]));
  }
  return shuffled(random, parts);
}

const list = (parts, last) =>
  parts.length < 2 ? parts.join("") : `${parts.slice(0, -1).join(", ")} ${last} ${parts.at(-1)}`;

/** One description of the picture, 1 to about 40 words; a complete one tells everything but open eyes. */
export function caption(attributes, random, { complete = false } = {}) {
  const keep = complete ? 1 : pick(random, [1, 0.85, 0.7, 0.5, 0.3]);
  const style = complete || random() < 0.95 ? pick(random, STYLE_WORDS[attributes.style]) : "";
  const color = random() < Math.max(keep, 0.7) ? pick(random, BACKGROUND_WORDS[attributes.background]) : "";
  const parts = describeParts(attributes, random, keep);
  const mouth = MOUTH_WORDS[attributes.mouth];
  const mood = random() < keep ? (random() < 0.4 ? "adjective" : "phrase") : "";
  if (mood === "phrase") parts.splice(Math.floor(random() * (parts.length + 1)), 0, pick(random, mouth.phrases));
  const adjective = mood === "adjective" ? `${pick(random, mouth.adjectives)} ` : "";
  const form = pick(random, FORMS);

  let text;
  if (random() < 0.6) {
    // A list of parts: "a lorelei portrait, red hair, round glasses, blue background".
    const ground =
      color && pick(random, [`${color} background`, `${color} background`, `${color} backdrop`, `on ${color}`]);
    const subject = pick(random, [
      article(`${adjective}${style ? `${style} ` : ""}${form}`),
      `${adjective}${style ? `${style} ` : ""}${form}`,
      style ? `${adjective}${style}` : `${adjective}${form}`,
      style ? article(`${adjective}${form} in ${style} style`) : article(`${adjective}${form}`),
    ]);
    const all = shuffled(random, [...parts, ground].filter(Boolean));
    if (random() < 0.5 && ground) {
      all.splice(all.indexOf(ground), 1);
      all.push(ground);
    }
    if (random() < 0.8) all.unshift(subject);
    else all.splice(Math.floor(random() * (all.length + 1)), 0, subject);
    text = all.join(random() < 0.9 ? ", " : " ");
  } else {
    // A sentence: "a smiling person with a red bob and round glasses in micah style, on a blue background".
    const subject = article(`${adjective}${pick(random, SUBJECTS)}`);
    const opening = style
      ? pick(random, [
          `${article(`${style} ${form}`)} of ${subject}`,
          `${article(form)} of ${subject} in the style of ${style}`,
          `${article(`${adjective}${style} ${form}`)}`,
          `${subject}, ${style} style,`,
        ])
      : `${article(form)} of ${subject}`;
    const told = list(parts, pick(random, ["and", "and", "with"]));
    text = told ? `${opening} with ${told}` : opening.replace(/,$/, "");
    const ground =
      color &&
      pick(random, [
        `on ${article(`${color} background`)}`,
        `against ${article(`${color} background`)}`,
        `in front of ${article(`${color} backdrop`)}`,
      ]);
    if (ground) text += random() < 0.5 ? `, ${ground}` : ` ${ground}`;
  }
  if (random() < 0.15) text = text[0].toUpperCase() + text.slice(1);
  if (random() < 0.1) text += ".";
  return text;
}
