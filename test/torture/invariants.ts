import { stat } from 'node:fs/promises';
import { join } from 'node:path';
import { isDeepStrictEqual } from 'node:util';
import {
  columnsOf,
  idOf,
  nanosOf,
  storedSummaries,
  summariesOf,
  type Summaries,
} from '../integration/recomputation.ts';
import type { ProviderEvent, ProviderStatus } from '../integration/records.ts';
import { keyOf, type Provided, type ProvidedFile } from './provider.ts';
import type { Rig, StoredRow } from './rig.ts';

/** Everything that people query, and the dead letters. */
export interface Stored {
  readonly events: readonly StoredRow[];
  readonly statuses: readonly StoredRow[];
  readonly newest: readonly StoredRow[];
  readonly ledger: readonly StoredRow[];
  readonly rejected: readonly StoredRow[];
  readonly summaries: Summaries;
  readonly letters: readonly { readonly key: string; readonly reason: string }[];
}

/** What is not as it has to be, by kind; each as one line. */
export interface Differences {
  readonly lost: string[];
  readonly doubled: string[];
  readonly wrong: string[];
  readonly summaries: string[];
  readonly files: string[];
}

export async function readStored({ read, queues }: Rig): Promise<Stored> {
  const letters = await queues.deadLetter.getFailed();
  return {
    events: await read('SELECT * FROM vehicle_events'),
    statuses: await read('SELECT * FROM vehicle_status_history'),
    newest: await read('SELECT * FROM vehicle_status'),
    ledger: await read('SELECT name, version, state, records, loaded, rejected, error FROM files'),
    rejected: await read('SELECT name, version, record_index, field, reason FROM rejected_records'),
    summaries: await storedSummaries(read),
    letters: letters.map(({ data, failedReason }) => ({
      key: keyOf({ name: String(data['name']), version: `${String(data['size'])}-${String(data['mtimeNs'])}` }),
      reason: failedReason,
    })),
  };
}

/** Both in the same order, so that two of them can be compared. */
export function sorted(stored: Stored): unknown {
  return Object.fromEntries(
    Object.entries(stored).map(([part, rows]) => [
      part,
      Array.isArray(rows) ? rows.map((row) => JSON.stringify(row)).sort() : rows,
    ]),
  );
}

const certain = ({ expected }: ProvidedFile) => expected === 'loaded';
const text = (value: unknown) => (value === undefined ? 'none' : JSON.stringify(value));

/** The columns that a record has to have, but for its file's. */
function eventColumns({ vehicle_id, event_time, event_source, event_type, event_value, ...rest }: ProviderEvent) {
  const { event_extra_data: extra, ...unknown } = rest;
  const { time, rest: nanos } = columnsOf(nanosOf(event_time));
  return {
    ...{ vehicle_id, day: time.slice(0, 10), event_time: time, event_time_nanos: nanos },
    ...{ event_source, event_type, event_value, event_extra_data: extra },
    unknown_fields: Object.keys(unknown).length > 0 ? unknown : null,
  };
}

function statusColumns({ vehicle_id, report_time, status_source, status }: ProviderStatus) {
  const { time, rest: nanos } = columnsOf(nanosOf(report_time));
  return { vehicle_id, report_time: time, report_time_nanos: nanos, status_source, status, unknown_fields: null };
}

const parsed = (value: unknown): unknown =>
  typeof value === 'string' && value.startsWith('{') ? JSON.parse(value) : value;

/** Compares rows with records by their identity. Returns the identities that are there. */
function compareRows<T extends object>(
  rows: readonly StoredRow[],
  idColumn: string,
  files: readonly ProvidedFile[],
  recordsOf: (file: ProvidedFile) => readonly T[],
  columnsOfRecord: (record: T) => object,
  found: Differences,
): Map<string, T> {
  const known = new Map<string, { record: T; files: Set<string>; required: boolean }>();
  for (const file of files) {
    for (const record of recordsOf(file)) {
      const id = idOf(record);
      const one = known.get(id) ?? { record, files: new Set(), required: false };
      one.files.add(file.name);
      one.required ||= certain(file);
      known.set(id, one);
    }
  }
  const there = new Map<string, T>();
  for (const { [idColumn]: rawId, file_name, file_version: _version, month: _month, ...columns } of rows) {
    const id = String(rawId);
    const one = known.get(id);
    if (one === undefined || there.has(id))
      found.doubled.push(`${idColumn} ${id} of ${String(file_name)}: ${text(columns)}`);
    if (one === undefined) continue;
    there.set(id, one.record);
    const stored = Object.fromEntries(Object.entries(columns).map(([column, value]) => [column, parsed(value)]));
    const wanted = columnsOfRecord(one.record);
    if (!isDeepStrictEqual(stored, wanted))
      found.wrong.push(`${idColumn} ${id}: ${text(stored)} is not ${text(wanted)}`);
    if (!one.files.has(String(file_name))) found.wrong.push(`${idColumn} ${id} names the file ${String(file_name)}`);
  }
  for (const [id, one] of known) {
    if (one.required && !there.has(id)) found.lost.push(`${idColumn} ${id} of ${[...one.files].join(', ')}`);
  }
  return there;
}

function compareNewest(rows: readonly StoredRow[], reports: Iterable<ProviderStatus>, found: Differences): void {
  const newest = new Map<string, ProviderStatus>();
  for (const report of reports) {
    const best = newest.get(report.vehicle_id);
    if (best === undefined || nanosOf(report.report_time) > nanosOf(best.report_time))
      newest.set(report.vehicle_id, report);
  }
  const stored = new Map(rows.map((row) => [String(row['vehicle_id']), row]));
  for (const vehicle of new Set([...newest.keys(), ...stored.keys()])) {
    const report = newest.get(vehicle);
    const wanted = report && { id: idOf(report), status: report.status };
    const row = stored.get(vehicle);
    const is = row && { id: row['status_id'], status: row['status'] };
    if (!isDeepStrictEqual(is, wanted))
      found.wrong.push(`newest status of ${vehicle}: ${text(is)} is not ${text(wanted)}`);
  }
}

function compareSummaries(stored: Summaries, wanted: Summaries, found: Differences): void {
  for (const table of ['hourly', 'daily', 'dailyByDay'] as const) {
    for (const key of new Set([...Object.keys(stored[table]), ...Object.keys(wanted[table])])) {
      const [is, must] = [stored[table][key], wanted[table][key]];
      if (!isDeepStrictEqual(is, must)) found.summaries.push(`${table} ${key}: ${text(is)} is not ${text(must)}`);
    }
  }
}

/** Each file is loaded or a dead letter with a reason, never both and never neither. */
function compareLedger({ ledger, letters }: Stored, files: readonly ProvidedFile[], found: Differences): void {
  const rows = new Map(
    ledger.map((row) => [keyOf({ name: String(row['name']), version: String(row['version']) }), row]),
  );
  const byKey = new Map(files.map((file) => [keyOf(file), file]));
  const reasons = new Map<string, string>();
  for (const { key, reason } of letters) {
    if (reasons.has(key)) found.files.push(`${key} is a dead letter twice`);
    reasons.set(key, reason);
  }
  for (const [key, file] of byKey) {
    const { state, error, ...counts } = rows.get(key) ?? {};
    const is = `${key}, which has to be ${file.expected}, is ${text(state)} in the ledger`;
    if (file.expected === 'loaded') {
      if (state !== 'loaded' && state !== 'unchanged') found.files.push(`${is}: ${text(error)}`);
      const rejected = file.rejected.size;
      const wanted = { records: file.records, loaded: file.records - rejected, rejected };
      const { records, loaded, rejected: refused } = counts;
      if (state === 'loaded' && !isDeepStrictEqual({ records, loaded, rejected: refused }, wanted))
        found.files.push(`${key} says ${text(counts)}, not ${text(wanted)}`);
    }
    if (file.expected === 'dead letter') {
      if (state !== 'dead_letter') found.files.push(is);
      if (!file.reason.test(String(error)))
        found.files.push(`${key} has the reason ${text(error)}, not ${String(file.reason)}`);
      if (reasons.get(key) !== error)
        found.files.push(`${key} has the letter ${text(reasons.get(key))}, not ${text(error)}`);
    }
    if (file.expected === 'replaced' && state === 'dead_letter') found.files.push(is);
  }
  for (const [key, { state }] of rows)
    if (state === 'dead_letter' && !reasons.has(key)) found.files.push(`${key} is a dead letter in the ledger alone`);
  for (const key of new Set([...rows.keys(), ...reasons.keys()])) {
    const expected = byKey.get(key)?.expected;
    const isLetter = reasons.has(key) || rows.get(key)?.['state'] === 'dead_letter';
    if (isLetter && expected !== 'dead letter' && expected !== 'removed')
      found.files.push(
        `${key}, ${expected ?? 'half-written at the time'}, is a dead letter: ${text(reasons.get(key))}`,
      );
  }
}

function compareRejections(rows: readonly StoredRow[], files: readonly ProvidedFile[], found: Differences): void {
  const linesOf = (file: ProvidedFile) =>
    [...file.rejected].map(([index, field]) => `${keyOf(file)} record ${index} field ${field}`);
  const wanted = files.filter(certain).flatMap(linesOf);
  const possible = files.flatMap(linesOf);
  const stored = rows.map(({ name, version, record_index, field, reason }) => {
    const file = keyOf({ name: String(name), version: String(version) });
    if (typeof reason !== 'string' || reason === '') found.wrong.push(`${file} has a rejection without a reason`);
    return `${file} record ${String(record_index)} field ${String(field)}`;
  });
  for (const one of wanted.filter((line) => !stored.includes(line))) found.lost.push(`rejection: ${one}`);
  for (const one of stored.filter((line) => !possible.includes(line))) found.doubled.push(`rejection: ${one}`);
}

/** A file that is loaded is still in the folder, or in the archive. */
async function compareFolder(folder: string, files: readonly ProvidedFile[], found: Differences): Promise<void> {
  const isThere = async (path: string, version: string) => {
    const there = await stat(join(folder, path), { bigint: true }).catch(() => undefined);
    return there !== undefined && `${there.size}-${there.mtimeNs}` === version;
  };
  for (const { name, version } of files.filter(({ expected }) => expected === 'loaded' || expected === 'dead letter')) {
    const places = [name, `archive/${name}`, `archive/${name}.${version}`];
    const found_ = await Promise.all(places.map((path) => isThere(path, version)));
    if (!found_.includes(true)) found.files.push(`${name} ${version} is neither in the folder nor in the archive`);
  }
}

/** Compares what is stored with what the provider's files say, by the tests' own computation. */
export async function differencesOf(stored: Stored, provided: Provided, folder: string): Promise<Differences> {
  const found: Differences = { lost: [], doubled: [], wrong: [], summaries: [], files: [] };
  const files = [...provided.values()];
  const { events, statuses, newest, rejected, summaries } = stored;
  const there = compareRows(events, 'event_id', files, (file) => file.events, eventColumns, found);
  const reports = compareRows(statuses, 'status_id', files, (file) => file.statuses, statusColumns, found);
  compareNewest(newest, reports.values(), found);
  compareSummaries(summaries, summariesOf([...there.values()]), found);
  compareLedger(stored, files, found);
  compareRejections(rejected, files, found);
  await compareFolder(folder, files, found);
  return found;
}
