import { isLosslessNumber } from 'lossless-json';
import { z } from 'zod';
import {
  canonicalJson,
  canonicalMembers,
  contentId,
  joinMembers,
  type CanonicalMembers,
  type Json,
  type JsonObject,
} from './json.ts';
import { DAY_MS, parseTime, type Moment } from './time.ts';

type Value = string | number | bigint | Date | null | undefined;

/**
 * One row to write; `values` are in the order of `columns`, undefined leaves one unset, a time is a Date or in ms since the
 * epoch. Rows of one table with the same texts as `partition` and `key` are the same row, of which the later one counts;
 * with a `timestamp`, the write time in µs, the one with the greatest, and of equal times the one with the greater `rank`.
 */
export interface Row {
  readonly table: string;
  readonly partition: string;
  readonly key: string;
  readonly columns: readonly string[];
  readonly values: readonly Value[];
  readonly timestamp?: bigint;
  readonly rank?: string;
}

/** What becomes of a record that is taken: rows, and the summary bucket that they change, if any. */
export interface TakenRecord {
  readonly rows: readonly Row[];
  /** A vehicle and the start of an hour, in ms since the epoch. */
  readonly touched?: { readonly vehicleId: string; readonly hour: number };
}

/** Why a record was not taken. `field` is empty for the record as a whole. */
export interface Rejection {
  readonly field: string;
  readonly reason: string;
}

/** The ledger's key of a file, written into each row. */
export interface FileVersion {
  readonly name: string;
  readonly version: string;
}

/** A file version as one text, as the change log writes it. */
export const loadOf = ({ name, version }: FileVersion) => `${version} ${name}`;
export function fileOfLoad(load: string): FileVersion {
  const space = load.indexOf(' ');
  return { version: load.slice(0, space), name: load.slice(space + 1) };
}

/** What the reading of a record needs to know: its file, when that was written (ms since the epoch), the IANA zone of times without one. */
export interface RecordContext {
  readonly lineage: FileVersion;
  readonly writtenAt: number;
  readonly sourceTimeZone: string;
}

/** One kind of input file: the base names of its files begin with `prefix`. */
export interface Dataset {
  readonly name: string;
  readonly prefix: string;
  /** Checks one record and turns it into rows. Pure. @throws RangeError for one that has no canonical JSON */
  read(record: Json, context: RecordContext): TakenRecord | Rejection;
}

/**
 * A field that becomes a text. `quick` gives the text of a usual value, from its canonical JSON where that helps; whatever
 * it leaves undefined the schema judges.
 */
interface Field {
  readonly schema: z.ZodType<string>;
  readonly quick: (value: Json, canonical: string) => string | undefined;
}

/**
 * What a dataset is made of. `fields` are those that it knows beside vehicle and time; the part of the time that `bucketOf`
 * gives is, in the column of its name, the partition key with the vehicle.
 */
interface DatasetParts extends Omit<Dataset, 'read'> {
  readonly timeField: string;
  readonly idColumn: string;
  readonly bucketColumn: string;
  readonly bucketOf: (ms: number) => string;
  readonly fields: Readonly<Record<string, Field>>;
  /** Makes what makes rows of a record; `values` are those of `columns`, in their order. */
  readonly rows: (columns: readonly string[]) => (record: ReadRecord) => TakenRecord;
}

/** A record that is read: its columns are the bucket, all fields, nanoseconds, identity, unknown fields and lineage. */
interface ReadRecord {
  readonly vehicleId: string;
  readonly bucket: string;
  readonly time: Moment;
  readonly id: string;
  readonly values: readonly Value[];
}

/** An earlier time of a file comes from a clock that was never set, or a tool that sets a fixed one, and limits nothing. */
const CLOCKS_ARE_SET_MS = Date.parse('2000-01-01');
/** Cassandra takes no more than 65,535 bytes of key; an identifier that long is a mistake much earlier. */
const MAX_SHORT_LENGTH = 256;

/** A text of at least so many characters and 256 at most. */
export function shortText(minLength: number): Field {
  const isRight = ({ length }: string) => length >= minLength && length <= MAX_SHORT_LENGTH;
  return {
    schema: z.string().min(minLength).max(MAX_SHORT_LENGTH),
    quick: (value) => (typeof value === 'string' && isRight(value) ? value : undefined),
  };
}

/** A text. */
export const text: Field = { schema: z.string(), quick: (value) => (typeof value === 'string' ? value : undefined) };

/** A text, or a number or truth value that stands for one; numbers keep their digits. */
export const scalarText: Field = {
  schema: z
    .union([z.string(), z.number(), z.boolean(), z.custom(isLosslessNumber)], 'expected text or a number')
    .transform(String),
  quick: text.quick,
};

/** A JSON object, kept as its canonical text. */
export const objectText: Field = {
  schema: z.custom<JsonObject>(isObject, 'expected an object').transform((value) => canonicalJson(value)),
  quick: (value, canonical) => (isObject(value) ? canonical : undefined),
};

/** Makes one kind of input file: checks schema and time, and derives identity, unknown fields and lineage. */
export function createDataset(parts: DatasetParts): Dataset {
  const { name, prefix, timeField, idColumn, bucketColumn, bucketOf, fields, rows } = parts;
  const known: Readonly<Record<string, Field>> = { vehicle_id: shortText(1), [timeField]: text, ...fields };
  const names = Object.keys(known);
  const columns = [
    ...[bucketColumn, ...names, `${timeField}_nanos`, idColumn],
    ...['unknown_fields', 'file_name', 'file_version'],
  ];
  const slots = new Map(Object.entries(known).map(([field, { quick }], index) => [field, { index: index + 1, quick }]));
  const schema = z.object(Object.fromEntries(Object.entries(known).map(([field, { schema: one }]) => [field, one])));
  const take = rows(columns);

  /** The texts of the known fields, in their columns; undefined when it takes the schema to say what is wrong. */
  function readQuickly(record: JsonObject, { keys, texts }: CanonicalMembers): Value[] | undefined {
    const values = Array<Value>(columns.length);
    let found = 0;
    for (let at = 0; at < keys.length; at += 1) {
      const key = keys[at] ?? '';
      const slot = slots.get(key);
      if (slot === undefined) continue;
      const value = slot.quick(record[key] ?? null, texts[at] ?? '');
      if (value === undefined) return undefined;
      values[slot.index] = value;
      found += 1;
    }
    return found === names.length ? values : undefined;
  }

  function readBySchema(record: JsonObject): Value[] | Rejection {
    const { data, error } = schema.safeParse(record);
    if (error === undefined) return [undefined, ...names.map((field) => data[field])];
    const { path = [], message = '' } = error.issues[0] ?? {};
    const field = path.join('.');
    return { field, reason: field in record ? message : 'missing' };
  }

  const withoutKnown = (record: JsonObject): JsonObject =>
    Object.fromEntries(Object.entries(record).filter(([key]) => !slots.has(key)));

  return {
    name,
    prefix,
    read: (record, { lineage, writtenAt, sourceTimeZone }) => {
      if (!isObject(record)) return { field: '', reason: `expected an object, not ${kindOf(record)}` };
      const members = canonicalMembers(record);
      const values = readQuickly(record, members) ?? readBySchema(record);
      if (isRejection(values)) return values;
      const time = parseTime(String(values[2]), sourceTimeZone);
      if (typeof time === 'string') return { field: timeField, reason: time };
      if (isAhead(time.ms, writtenAt))
        return { field: timeField, reason: 'more than a day after its file was written' };
      const id = contentId(joinMembers(members));
      const bucket = bucketOf(time.ms);
      values[0] = bucket;
      values[2] = time.ms;
      const isAllKnown = members.keys.length === names.length;
      const unknown = isAllKnown ? undefined : canonicalJson(withoutKnown(record));
      const rest = [time.nanos, id, unknown, lineage.name, lineage.version];
      for (let at = 0; at < rest.length; at += 1) values[names.length + 1 + at] = rest[at];
      return take({ vehicleId: String(values[1]), bucket, time, id, values });
    },
  };
}

/**
 * Whether a record is further ahead of its file than time zones explain: a wrong clock must not win "latest" for ever. By
 * the time of the file, which is part of its version, so that each reading of a version says the same, whenever it is.
 */
function isAhead(ms: number, writtenAt: number): boolean {
  return writtenAt >= CLOCKS_ARE_SET_MS && ms > writtenAt + DAY_MS;
}

function isObject(value: unknown): value is JsonObject {
  return typeof value === 'object' && value !== null && !Array.isArray(value) && !isLosslessNumber(value);
}

function kindOf(value: Json): string {
  if (Array.isArray(value)) return 'an array';
  return isLosslessNumber(value) ? 'number' : value === null ? 'null' : typeof value;
}

export function isRejection(outcome: object): outcome is Rejection {
  return 'reason' in outcome;
}
