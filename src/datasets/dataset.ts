import { isLosslessNumber } from 'lossless-json';
import { z } from 'zod';
import { canonicalJson, contentId, type Json, type JsonObject } from './json.ts';
import { DAY_MS, parseTime, type Moment } from './time.ts';

type Columns = Readonly<Record<string, string | number | bigint | Date | null | undefined>>;

/**
 * One row to write. Rows of one table with the same text as `partition` lie in one partition; all of a table name the
 * same columns. With a `timestamp`, the write time in µs, they are the same row, and of equal times the greater `rank`
 * is the newer one.
 */
export interface Row {
  readonly table: string;
  readonly partition: string;
  readonly values: Columns;
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

/** What the reading of a record needs to know: its file, the IANA zone of times without one, ms since the epoch. */
export interface RecordContext {
  readonly lineage: FileVersion;
  readonly sourceTimeZone: string;
  readonly now: number;
}

/** One kind of input file: the base names of its files begin with `prefix`. */
export interface Dataset {
  readonly name: string;
  readonly prefix: string;
  /** Checks one record and turns it into rows. Pure. @throws RangeError for one that has no canonical JSON */
  read(record: Json, context: RecordContext): TakenRecord | Rejection;
}

/** What a dataset is made of. `fields` are the texts that it knows beside vehicle and time. */
interface DatasetParts extends Omit<Dataset, 'read'> {
  readonly timeField: string;
  readonly idColumn: string;
  readonly fields: Readonly<Record<string, z.ZodType<string>>>;
  /** Makes rows; `columns` are what each has: all fields, nanoseconds, identity, unknown fields, lineage. */
  readonly take: (vehicleId: string, time: Moment, columns: Columns) => TakenRecord;
}

/** A text, or a number or truth value that stands for one; numbers keep their digits. */
export const scalarText = z
  .union([z.string(), z.number(), z.boolean(), z.custom(isLosslessNumber)], 'expected text or a number')
  .transform(String);

/** A JSON object, kept as its canonical text. */
export const objectText = z
  .custom<JsonObject>(isObject, 'expected an object')
  .transform((value) => canonicalJson(value));

/** Makes one kind of input file: checks schema and time, and derives identity, unknown fields and lineage. */
export function createDataset({ name, prefix, timeField, idColumn, fields, take }: DatasetParts): Dataset {
  // Cassandra takes no more than 65,535 bytes of key; an identifier that long is a mistake much earlier.
  const shape = { vehicle_id: z.string().min(1).max(256), [timeField]: z.string(), ...fields };
  const schema = z.object(shape);
  return {
    name,
    prefix,
    read: (record, { lineage, sourceTimeZone, now }) => {
      if (!isObject(record)) return { field: '', reason: `expected an object, not ${kindOf(record)}` };
      const id = contentId(canonicalJson(record));
      const parsed = schema.safeParse(record);
      if (!parsed.success) {
        const { path = [], message = '' } = parsed.error.issues[0] ?? {};
        const field = path.join('.');
        return { field, reason: field in record ? message : 'missing' };
      }
      const { vehicle_id: vehicleId = '', [timeField]: timeText = '' } = parsed.data;
      const time = parseTime(timeText, sourceTimeZone);
      if (typeof time === 'string') return { field: timeField, reason: time };
      // A wrong clock must not win "latest" for ever.
      if (time.ms > now + DAY_MS) return { field: timeField, reason: 'more than a day in the future' };
      const unknown = Object.entries(record).filter(([field]) => !Object.hasOwn(shape, field));
      return take(vehicleId, time, {
        ...parsed.data,
        [timeField]: new Date(time.ms),
        [`${timeField}_nanos`]: time.nanos,
        [idColumn]: id,
        unknown_fields: unknown.length === 0 ? undefined : canonicalJson(Object.fromEntries(unknown)),
        file_name: lineage.name,
        file_version: lineage.version,
      });
    },
  };
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
