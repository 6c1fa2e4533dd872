import { FemoError } from "../errors.js";
import { quote } from "./text.js";

/** What a pickle of tensors is made of. Other objects are there, but not what is in them: nobody asks. */
export type PickleValue =
  | null
  | boolean
  | number
  | bigint
  | string
  | readonly PickleValue[] // a tuple
  | ReadonlyMap<PickleValue, PickleValue> // a dictionary
  | PickleObject;

/** A value that only its maker looks into. */
export abstract class PickleObject {
  /** What it is, for messages: "a list", "a tensor". */
  abstract readonly what: string;
}

/** A list, which can grow after others know it. */
export class PickleList extends PickleObject {
  readonly what = "a list";
  readonly items: PickleValue[] = [];
}

class Plain extends PickleObject {
  constructor(readonly what: string) {
    super();
  }
}

/** Throws the error that names file and place. */
export type PickleFail = (problem: string, advice?: string) => never;

/** A Python object by name. It stands for nothing but itself, unless `call` says what calling it gives. */
export class PickleGlobal extends PickleObject {
  readonly what = "a class or function";
  constructor(
    readonly name: string,
    readonly call?: (args: readonly PickleValue[], fail: PickleFail) => PickleValue,
  ) {
    super();
  }
}

/** A class whose objects have attributes and nothing else, such as `argparse.Namespace`; the attributes are not kept. */
export const plainGlobal = (name: string): PickleGlobal => new PickleGlobal(name, () => new Plain(`a ${name}`));

/** An empty dictionary that can be filled, such as `OrderedDict()`. */
export const emptyDictionary = (): PickleValue => new Map();

export interface PickleOptions {
  /** All that a pickle may name, by "module.name". */
  readonly globals: ReadonlyMap<string, PickleGlobal>;
  /** What stands for a persistent id: something that lies outside the pickle, such as a storage. */
  readonly persistent: (id: PickleValue, fail: PickleFail) => PickleValue;
}

/** A pickle is a program for a stack machine. These bounds are far above what checkpoints need. */
export const MAX_PICKLE_BYTES = 32 * 2 ** 20;
const MAX_STACK = 100_000;
/** Tuples, dictionaries, their items and memorised values together. */
const MAX_OBJECTS = 2 ** 20;
const MAX_NAME_BYTES = 1000;

const MARK = new Plain("a mark"); // the boundary on the stack that the instruction of this name leaves
const [PROTO, STOP] = [0x80, 0x2e];
const UTF_8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
const DAMAGED = "The file is damaged or was written by a faulty tool: download it again.";

/**
 * Reads a Python pickle, protocols 2 to 5, without running anything: only the instructions are known that tensors,
 * numbers, strings, tuples, lists and dictionaries need, and only the globals given here. Time and memory are bounded
 * by the length of the pickle, whatever is in it.
 * @param name of the file, for messages
 * @throws FemoError E_FILE with the place of the instruction that is malformed or not allowed
 */
export const unpickle = (bytes: Uint8Array, name: string, options: PickleOptions): PickleValue =>
  unpickleAt(bytes, 0, name, options).value;

/** The pickle that begins at a place, of several in a row, and where it ends. @throws FemoError as `unpickle` */
export function unpickleAt(
  bytes: Uint8Array,
  from: number,
  name: string,
  options: PickleOptions,
): { value: PickleValue; end: number } {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const stack: PickleValue[] = [];
  const memo = new Map<number, PickleValue>();
  let objects = 0;
  let at = from; // of the next byte
  let start = from; // of the instruction under way

  const fail: PickleFail = (problem, advice = DAMAGED) => {
    throw new FemoError("E_FILE", `${name}: its pickle, byte ${start}: ${problem}. ${advice}`);
  };
  const count = (more: number) => {
    objects += more;
    if (objects > MAX_OBJECTS) fail(`it has more than ${MAX_OBJECTS} objects`);
  };

  /** Moves on by some bytes and says where they begin. */
  const take = (length: number): number => {
    if (length > bytes.length - at) fail(`it ends after ${bytes.length} bytes, in the middle of something`);
    at += length;
    return at - length;
  };
  const uint8 = (): number => view.getUint8(take(1));
  const uint32 = (): number => view.getUint32(take(4), true);
  /** Two's complement, little-endian, of any length; a number if that is exact. */
  const long = (length: number): number | bigint => {
    const digits = bytes.subarray(take(length), at);
    const value = BigInt.asIntN(
      8 * length,
      digits.reduceRight((sum, digit) => (sum << 8n) | BigInt(digit), 0n),
    );
    const rounded = Number(value);
    return Number.isFinite(rounded) && BigInt(rounded) === value ? rounded : value;
  };
  const text = (length: number): string => {
    const from = take(length);
    try {
      return UTF_8.decode(bytes.subarray(from, at));
    } catch {
      return fail("a text that is not UTF-8");
    }
  };
  const line = (): string => {
    const length = bytes.subarray(at, at + MAX_NAME_BYTES).indexOf(0x0a);
    if (length < 0) fail(`a name without an end in ${MAX_NAME_BYTES} bytes`);
    const found = text(length);
    at++;
    return found;
  };

  const push = (value: PickleValue) => {
    if (stack.push(value) > MAX_STACK) fail(`more than ${MAX_STACK} values are on the stack`);
  };
  const make = (value: PickleValue, items = 0) => {
    count(1 + items);
    push(value);
  };
  const top = (): PickleValue => {
    const value = stack.at(-1);
    return value === undefined || value === MARK ? fail("the stack is empty") : value;
  };
  const pop = (): PickleValue => {
    const value = top();
    stack.pop();
    return value;
  };
  /** The last values, in the order in which they were pushed. */
  const popLast = (length: number): PickleValue[] => Array.from({ length }, pop).reverse();
  const popToMark = (): PickleValue[] => {
    const mark = stack.lastIndexOf(MARK);
    if (mark < 0) fail("there is no mark on the stack");
    const items = stack.splice(mark + 1);
    stack.pop();
    return items;
  };

  /** Attributes of the object on top are set, which are not kept. */
  const change = () => {
    const changed = top();
    if (!(changed instanceof Plain)) fail("something is changed that cannot be");
  };
  const append = (added: readonly PickleValue[]) => {
    const list = top();
    if (!(list instanceof PickleList)) return change();
    for (const item of added) list.items.push(item);
  };
  /** Key, value, key, value ... into the dictionary on top. */
  const fill = (items: readonly PickleValue[]) => {
    const dictionary = top();
    if (!(dictionary instanceof Map)) return fail("items are put into something that is no dictionary");
    if (items.length % 2 === 1) fail("a key without a value");
    count(items.length / 2);
    for (let i = 0; i < items.length; i += 2) dictionary.set(items[i], items[i + 1]);
  };
  const memorize = (index: number) => {
    count(1);
    memo.set(index, top());
  };
  const recall = (index: number) => {
    const value = memo.get(index);
    push(value === undefined ? fail(`value ${index} is used before it is there`) : value);
  };
  const global = (module: PickleValue | undefined, member: PickleValue | undefined) => {
    if (typeof module !== "string" || typeof member !== "string") return fail("a global without a name");
    const full = `${module}.${member}`;
    const problem = `it asks for the Python object ${quote(full)}, which tensors do not need; nothing was executed`;
    const advice = "Save tensors only, in Python: torch.save(model.state_dict(), path).";
    push(options.globals.get(full) ?? fail(problem, advice));
  };
  const call = () => {
    const [args, callee] = [pop(), pop()];
    if (!Array.isArray(args)) return fail("a call without arguments");
    if (!(callee instanceof PickleGlobal)) return fail("a call of something that is no function");
    make(callee.call?.(args, fail) ?? fail(`a call of ${callee.name}`));
  };
  const protocol = (version: number) => {
    if (version < 2 || version > 5) fail(`expected protocol 2 to 5, found ${version}`);
  };

  // By their codes, with Python's names for them (pickletools).
  const instructions: Readonly<Record<number, () => void>> = {
    [PROTO]: () => protocol(uint8()),
    149: () => take(8), // FRAME: how much to read at once
    40: () => push(MARK), // MARK
    78: () => push(null), // NONE
    136: () => push(true), // NEWTRUE
    137: () => push(false), // NEWFALSE
    75: () => push(uint8()), // BININT1
    77: () => push(view.getUint16(take(2), true)), // BININT2
    74: () => push(view.getInt32(take(4), true)), // BININT
    138: () => push(long(uint8())), // LONG1
    71: () => push(view.getFloat64(take(8), false)), // BINFLOAT
    140: () => push(text(uint8())), // SHORT_BINUNICODE
    88: () => push(text(uint32())), // BINUNICODE
    85: () => push(text(uint8())), // SHORT_BINSTRING: a text of Python 2
    84: () => push(text(uint32())), // BINSTRING
    41: () => make([]), // EMPTY_TUPLE
    133: () => make(popLast(1), 1), // TUPLE1
    134: () => make(popLast(2), 2), // TUPLE2
    135: () => make(popLast(3), 3), // TUPLE3
    116: () => {
      const items = popToMark(); // TUPLE
      make(items, items.length);
    },
    93: () => make(new PickleList()), // EMPTY_LIST
    97: () => append([pop()]), // APPEND
    101: () => append(popToMark()), // APPENDS
    125: () => make(emptyDictionary()), // EMPTY_DICT
    115: () => fill(popLast(2)), // SETITEM
    117: () => fill(popToMark()), // SETITEMS
    113: () => memorize(uint8()), // BINPUT
    114: () => memorize(uint32()), // LONG_BINPUT
    148: () => memorize(memo.size), // MEMOIZE
    104: () => recall(uint8()), // BINGET
    106: () => recall(uint32()), // LONG_BINGET
    99: () => global(line(), line()), // GLOBAL
    147: () => global(...(popLast(2) as [PickleValue, PickleValue])), // STACK_GLOBAL
    82: call, // REDUCE: call a function
    129: call, // NEWOBJ: make an object of a class
    98: () => {
      pop(); // BUILD: a state dict has attributes too, the versions of its modules
      if (!(top() instanceof Map)) change();
    },
    81: () => make(options.persistent(pop(), fail)), // BINPERSID
  };

  if (bytes.length > MAX_PICKLE_BYTES) fail(`it has ${bytes.length} bytes, more than ${MAX_PICKLE_BYTES}`);
  if (bytes[from] !== PROTO) fail("it does not start with its protocol");
  for (;;) {
    start = at;
    const code = uint8();
    if (code === STOP) break;
    const instruction = instructions[code];
    if (!instruction) {
      const hex = code.toString(16).padStart(2, "0");
      return fail(`the instruction 0x${hex} is not one of those that tensors need; nothing was executed`);
    }
    instruction();
  }
  const value = pop();
  if (stack.length > 0) fail(`${stack.length} values are left over at the end`);
  return { value, end: at };
}
