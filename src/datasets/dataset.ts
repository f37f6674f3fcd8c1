import { z } from 'zod';
import { isLosslessNumber } from 'lossless-json';
import { canonicalJson, contentId, type Json } from './json.ts';
import { DAY_MS, parseTime, type Moment } from './time.ts';

/** One row to insert, by column. `undefined` leaves a column unset, `null` empties it. */
export interface Row {
  readonly table: string;
  /** Rows of one table with the same text here lie in one partition. */
  readonly partition: string;
  readonly values: Readonly<Record<string, string | number | Date | null | undefined>>;
  /** The write timestamp in µs since the epoch, where the newest is to win whatever arrives last. */
  readonly timestamp?: bigint;
}

/** What becomes of a record that is taken. */
export interface TakenRecord {
  readonly rows: readonly Row[];
  /** The summary bucket that the record changes: a vehicle and the start of an hour in ms since the epoch. */
  readonly touched?: { readonly vehicleId: string; readonly hour: number };
}

/** Why a record was not taken. `field` is a dotted path, empty for the record as a whole. */
export interface Rejection {
  readonly field: string;
  readonly reason: string;
}

/** What the reading of a record needs to know of its surroundings. */
export interface RecordContext {
  /** The ledger's key of the file, written into each row. */
  readonly lineage: { readonly name: string; readonly version: string };
  /** The IANA zone of times that carry none. */
  readonly sourceTimeZone: string;
  /** ms since the epoch; a time over a day after it is rejected, since it would win "latest" for ever. */
  readonly now: number;
}

/** One kind of input file. */
export interface Dataset {
  readonly name: string;
  /** Matches the base name of its files; the extensions that are read are added by `datasetOf`. */
  readonly prefix: string;
  /** Checks one record and turns it into rows. Pure. */
  read(record: Json, context: RecordContext): TakenRecord | Rejection;
}

/** The fields of a checked record with what every dataset derives from it. */
export interface CheckedRecord<Fields> {
  /** 32 hexadecimal digits, the same for the same content. */
  readonly id: string;
  readonly time: Moment;
  readonly fields: Fields;
  /** Columns of every raw row: the fields that the schema does not know, as a JSON object's text, and the lineage. */
  readonly common: {
    readonly unknown_fields: string | undefined;
    readonly file_name: string;
    readonly file_version: string;
  };
}

/** Cassandra takes no more than 65,535 bytes of key; an identifier that long is a mistake much earlier. */
export const vehicleId = z.string().min(1).max(256);

/** A text, or a number or truth value that stands for one; numbers keep their digits. */
export const scalarText = z
  .union([z.string(), z.number(), z.boolean(), z.custom(isLosslessNumber)], 'expected text or a number')
  .transform(String);

/** A JSON object, kept as its canonical text. */
export const jsonObject = z
  .custom<{ [key: string]: Json }>(
    (value) => typeof value === 'object' && value !== null && !Array.isArray(value) && !isLosslessNumber(value),
    'expected an object',
  )
  .transform((value) => canonicalJson(value));

/**
 * Makes the check of one kind of record: schema, time, identity, unknown fields.
 *
 * @param timeField the field that holds the record's time
 * @param shape the fields that the dataset knows, `vehicle_id` and the time's field among them
 */
export function recordCheck<Shape extends z.ZodRawShape>(timeField: string, shape: Shape) {
  const schema = z.object(shape);

  return (record: Json, context: RecordContext): CheckedRecord<z.output<typeof schema>> | Rejection => {
    if (typeof record !== 'object' || record === null || Array.isArray(record) || isLosslessNumber(record)) {
      return { field: '', reason: `expected an object, not ${kindOf(record)}` };
    }
    let canonical: string;
    try {
      canonical = canonicalJson(record);
    } catch (error) {
      return { field: '', reason: error instanceof Error ? error.message : String(error) };
    }
    const parsed = schema.safeParse(record);
    if (!parsed.success) {
      const [issue] = parsed.error.issues;
      const field = issue?.path.join('.') ?? '';
      return { field, reason: field in record ? (issue?.message ?? 'does not fit the schema') : 'missing' };
    }
    const { [timeField]: timeText } = record;
    const time = parseTime(typeof timeText === 'string' ? timeText : '', context.sourceTimeZone);
    if (typeof time === 'string') return { field: timeField, reason: time };
    if (time.ms > context.now + DAY_MS) return { field: timeField, reason: 'more than a day in the future' };
    const unknown = Object.entries(record).filter(([field]) => !Object.hasOwn(shape, field));
    return {
      id: contentId(canonical),
      time,
      fields: parsed.data,
      common: {
        unknown_fields: unknown.length === 0 ? undefined : canonicalJson(Object.fromEntries(unknown)),
        file_name: context.lineage.name,
        file_version: context.lineage.version,
      },
    };
  };
}

function kindOf(value: Json): string {
  if (value === null) return 'null';
  if (Array.isArray(value)) return 'an array';
  return isLosslessNumber(value) ? 'number' : typeof value;
}

export function isRejection(outcome: object): outcome is Rejection {
  return 'reason' in outcome;
}
